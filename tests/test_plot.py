"""Pictures: what is drawn, not only that a file appears."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xpconv import plot
from xpconv.plot import canvas


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def holds(picture, colour, least=20):
    """Whether the picture holds that colour, in at least so many pixels."""
    return int((np.abs(picture.astype(int) - np.array(colour)).max(axis=-1) <= 2).sum()) >= least


BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


@pytest.fixture
def captions(monkeypatch):
    """Every text of the figures that are written, in drawing order."""
    from matplotlib.figure import Figure

    found = []
    original = Figure.savefig

    def recording(figure, *args, **kwargs):
        from matplotlib.text import Text

        found.extend(text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text())
        return original(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", recording)
    return found


def test_curves_draw_training_and_validation_in_their_colours(tmp_path, captions):
    path = tmp_path / "curves.png"
    plot.learning_curves(path, loss=[2.0, 1.0, 0.5], accuracy=[0.3, 0.6, 0.8], validation_loss=[1.9, 1.2, 0.9])
    picture = pixels(path)
    assert holds(picture, BLUE)
    assert holds(picture, VERMILION)
    assert {"loss", "accuracy", "epoch", "training 0.500", "validation 0.900", "training 0.800"} <= set(captions)


def test_curves_without_validation_are_of_one_colour(tmp_path):
    plot.learning_curves(tmp_path / "curves.png", loss=[2.0, 1.0, 0.5])
    picture = pixels(tmp_path / "curves.png")
    assert holds(picture, BLUE)
    assert not holds(picture, VERMILION, least=1)


@pytest.mark.parametrize(
    ("loss", "label"),
    [([0.7], "training 0.700"), ([0.7, np.nan], "training 0.700"), ([np.nan], None), ([], None)],
    ids=["one epoch", "diverged at the end", "diverged at once", "stopped in the first epoch"],
)
def test_curves_of_runs_that_were_short_or_went_wrong(tmp_path, captions, loss, label):
    plot.learning_curves(tmp_path / "curves.png", loss=loss)
    assert pixels(tmp_path / "curves.png").std() > 0
    assert [text for text in captions if text.startswith("training")] == ([label] if label else [])
    assert ("not finite" in captions) == (bool(loss) and label is None)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written, laid out in their own resolution."""
    found = []
    original = canvas.write

    def write(figure, path):
        original(figure, path)
        figure.canvas.draw()
        found.append(figure)

    monkeypatch.setattr(canvas, "write", write)
    return found


@pytest.mark.parametrize("scale", [1.0, 1e-5], ids=["linear", "logarithmic"])
def test_close_ends_of_two_curves_do_not_share_a_place(tmp_path, drawn, scale):
    plot.learning_curves(tmp_path / "curves.png", loss=[2.0, 0.101 * scale], validation_loss=[1.9, 0.1 * scale])
    first, second = (text.get_window_extent() for text in drawn[0].axes[0].texts)
    assert not first.overlaps(second)


@pytest.mark.parametrize(
    ("loss", "scale", "title"),
    [
        ([2.3, 1e5, 3e10], "log", "loss, logarithmic"),
        ([2.3, 0.5, 0.01], "linear", "loss"),
        ([2.3, 1e5, 0.0], "linear", "loss"),
        ([3e10, 2e10], "linear", "loss"),
    ],
    ids=["many decades", "few", "down to 0", "large"],
)
def test_losses_of_many_decades_have_a_logarithmic_axis(tmp_path, drawn, loss, scale, title):
    plot.learning_curves(tmp_path / "curves.png", loss=loss)
    (axes,) = drawn[0].axes
    assert (axes.get_yscale(), axes.get_title(loc="left")) == (scale, title)
    assert not axes.yaxis.get_offset_text().get_text()


def test_axes_keep_to_what_their_numbers_can_be(tmp_path, drawn):
    plot.learning_curves(tmp_path / "curves.png", loss=[0.0, 0.0], accuracy=[1.0, 1.0])
    loss, accuracy = drawn[0].axes
    assert loss.get_ylim()[0] == 0
    assert accuracy.get_ylim()[1] == 1


def test_a_panel_without_a_number_has_no_grid_behind_its_words(tmp_path, drawn):
    plot.learning_curves(tmp_path / "curves.png", loss=[np.nan, np.nan])
    (axes,) = drawn[0].axes
    assert len(axes.get_xticks()) == len(axes.get_yticks()) == 0


@pytest.mark.parametrize(
    ("ends", "written"),
    [
        ((0.05, 0.017), ("0.050", "0.017")),
        ((0.5, 0.00123), ("0.5000", "0.0012")),
        ((0.9, 0.0), ("0.900", "0.000")),
        ((2e10, 1.5), ("2.00e+10", "1.50e+00")),
    ],
)
def test_numbers_beside_one_another_have_as_many_decimals(tmp_path, captions, ends, written):
    plot.learning_curves(tmp_path / "curves.png", loss=[1.0, ends[0]], validation_loss=[1.0, ends[1]])
    assert {f"training {written[0]}", f"validation {written[1]}"} <= set(captions)


def test_filters_of_one_channel_diverge_from_white(tmp_path, captions):
    w = np.zeros((2, 2, 1, 3))
    w[0, 0, 0, 0], w[1, 1, 0, 1] = 1.0, -1.0
    plot.filters(tmp_path / "filters.png", w)
    picture = pixels(tmp_path / "filters.png").astype(int)
    red, blue = picture[..., 0] - picture[..., 2] > 60, picture[..., 2] - picture[..., 0] > 60
    assert red.sum() > 500
    assert blue.sum() > 500
    assert "First convolution: 3 kernels 2×2" in captions


def test_filters_of_three_channels_are_coloured_around_grey(tmp_path):
    w = np.zeros((1, 1, 3, 2))
    w[0, 0, 1, 0] = 1.0  # green up, the others as they are
    plot.filters(tmp_path / "filters.png", w)
    picture = pixels(tmp_path / "filters.png")
    assert holds(picture, (128, 255, 128), 500)
    assert holds(picture, (128, 128, 128), 500)


def test_filters_say_how_many_of_them_are_drawn(tmp_path, captions):
    plot.filters(tmp_path / "filters.png", np.random.default_rng(0).normal(size=(3, 3, 16, 40)))
    assert any("8 of 40 kernels 3×3" in text and "8 of 16 input channels" in text for text in captions)


@pytest.mark.parametrize(("largest", "said"), [(0.123, "0.12"), (3512.0, "3,512"), (2.5e9, "2.5e+09")])
def test_filters_say_how_large_their_weights_are(tmp_path, captions, largest, said):
    plot.filters(tmp_path / "filters.png", np.full((3, 3, 1, 2), largest))
    assert {said, f"−{said}"} <= set(captions)


def test_filters_reject_what_is_no_2d_convolution(tmp_path):
    with pytest.raises(ValueError, match=r"filters: w must be the weights \(kh, kw, C, O\)"):
        plot.filters(tmp_path / "filters.png", np.ones((3, 1, 4)))
    assert not list(tmp_path.iterdir())


def test_mistakes_come_worst_first(tmp_path, captions):
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.02, 0.01, 0.97]])
    plot.mistakes(
        tmp_path / "m.png", np.ones((3, 4, 4, 1)), np.array([0, 0, 1]), probabilities, class_names=["a", "b", "c"]
    )
    title = "2 of 3 test images misclassified\ntrue class → answer, with their probabilities"
    assert captions == ["b (0.01) → c (0.97)", "a (0.30) → b (0.60)", title]


def test_without_mistakes_the_least_certain_are_shown_and_the_title_says_so(tmp_path, captions):
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    plot.mistakes(tmp_path / "m.png", np.ones((3, 4, 4, 3)), np.array([0, 0, 1]), probabilities, count=2)
    assert captions == ["0 (0.60)", "1 (0.70)", "No mistake among 3 test images: the 2 least certain"]


def test_mistakes_are_cut_to_count(tmp_path, captions):
    plot.mistakes(tmp_path / "m.png", np.ones((9, 4, 4, 1)), np.zeros(9, int), np.tile([0.2, 0.8], (9, 1)), count=4)
    assert len(captions) == 5
    assert captions[-1].startswith("9 of 9 test images misclassified: the 4 worst\n")


@pytest.mark.parametrize(
    "names",
    [["aaaaaaW" * 2, "bbbbbbbbbb" * 3], ["golden retriever from the " + where for where in ("mountains", "valley")]],
)
def test_captions_keep_to_their_tiles(tmp_path, drawn, captions, names):
    probabilities = np.tile([0.2, 0.8], (9, 1))
    plot.mistakes(tmp_path / "m.png", np.ones((9, 4, 4, 1)), np.zeros(9, int), probabilities, class_names=names)
    (figure,) = drawn
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_visible()]
    assert len(boxes) == 9
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    first, second = captions[0].split("\n")
    assert first.startswith(names[0][:6])
    assert first.endswith(f"{names[0][-4:]} (0.20)")
    assert second.startswith(f"→ {names[1][:6]}")


def test_mistakes_draw_the_image_itself(tmp_path):
    image = np.zeros((1, 2, 2, 3))
    image[0, 0, 0] = (1.0, 0.0, 1.0)
    plot.mistakes(tmp_path / "m.png", image, np.array([0]), np.array([[0.1, 0.9]]))
    assert holds(pixels(tmp_path / "m.png"), (255, 0, 255), 1000)


def test_class_names_are_taken_as_they_are(tmp_path):
    images, names = np.zeros((2, 4, 4, 1)), ["c$\\frac{$", "$x$"]
    plot.mistakes(tmp_path / "m.png", images, np.array([0, 1]), np.array([[0.4, 0.6]] * 2), class_names=names)
    assert pixels(tmp_path / "m.png").size


def test_filters_of_a_run_that_diverged_are_drawn(tmp_path):
    plot.filters(tmp_path / "f.png", np.full((3, 3, 1, 4), np.nan))
    assert pixels(tmp_path / "f.png").size


def test_mistakes_reject_shapes_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="of one N"):
        plot.mistakes(tmp_path / "m.png", np.ones((3, 4, 4, 1)), np.zeros(2, int), np.ones((3, 2)))


def test_a_picture_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def failing(figure, file, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", failing)
    with pytest.raises(OSError, match="disk full"):
        plot.learning_curves(path, loss=[1.0])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_pyplot_is_left_alone(tmp_path):
    import sys

    before = "matplotlib.pyplot" in sys.modules
    plot.learning_curves(tmp_path / "curves.png", loss=[1.0, 0.5])
    assert ("matplotlib.pyplot" in sys.modules) == before
