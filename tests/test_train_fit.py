"""The training loop: the same on every backend, honest in what it records, and clear about data that do not fit."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import backend, nn, ops, train

BACKENDS = ("numpy", "torch", "array_api_strict", "array_api_strict:device1", "cupy")


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest) -> str:
    reason = missing(request.param)
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


def blobs(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images of 4 x 4 pixels whose brightest corner is their class."""
    rng = np.random.default_rng(seed)
    images, labels = rng.random((n, 4, 4, 1), dtype=np.float32), rng.integers(0, 3, n)
    for image, label in zip(images, labels, strict=True):
        image[2 * (label // 2) :, :, 0][:2, 2 * (label % 2) :][:, :2] += 1
    return images, labels


def small_net(seed: int = 0, **options: Any) -> nn.Sequential:
    conv = nn.Conv2d(1, 4, 3, padding="same", activation="relu", **options)
    return nn.Sequential(conv, nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 3)).initialize(seed)


def fit(net: Any, data: Any, **options: Any) -> train.History:
    return train.fit(net, data, **{"epochs": 2, "batch_size": 16, "progress": False} | options)


class Seen(train.Progress):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_start(self, epochs: int, steps: int) -> None:
        self.told.append(("start", epochs, steps))

    def on_step(self, epoch: int, step: int) -> None:
        self.told.append((epoch, step))

    def on_epoch(self, record: train.Epoch) -> None:
        self.told.append(record)

    def on_end(self, history: train.History) -> None:
        self.told.append(("end", history.interrupted))


# -- what is learnt ------------------------------------------------------------------------------------------------


def test_a_small_network_learns() -> None:
    net, (images, labels) = small_net(), blobs(200)
    history = fit(net, (images, labels), epochs=25, optimizer=train.Adam(5e-3), validation=blobs(50, seed=1))
    assert len(history) == 25
    assert [record.epoch for record in history] == list(range(1, 26))
    assert history[-1].loss < 0.3 * history[0].loss
    assert history[-1].val_accuracy is not None
    assert history[-1].val_accuracy >= 0.95
    assert history[-1].seconds > 0
    assert not history.interrupted


def test_every_backend_learns_the_same(place: str) -> None:
    """Five steps with shuffles, dropout, augmentation and a schedule: only float32 rounding may differ."""

    def trained(name: str) -> tuple[list[float], dict[str, np.ndarray], str]:
        with xpconv.use_backend(name):
            net = small_net(seed=3)
        options = {"augment": train.augment.random_shift(1), "schedule": train.schedule.Cosine(warm_up=0.2)}
        history = fit(
            net, blobs(80), epochs=5, batch_size=80, optimizer=train.SGD(0.1, momentum=0.9), seed=7, **options
        )
        values = {key: backend.to_numpy(p.value) for key, p in net.parameters().items()}
        return [record.loss for record in history], values, backend.library(net.parameters()["0.weight"].value)

    here, there = trained("numpy"), trained(place)
    assert there[2] == place.partition(":")[0]
    np.testing.assert_allclose(there[0], here[0], rtol=2e-5)
    for name, value in there[1].items():
        np.testing.assert_allclose(value, here[1][name], rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_run_and_another_does_not() -> None:
    runs = [fit(small_net(), blobs(), seed=seed, augment=train.augment.random_flip()) for seed in (5, 5, 6)]
    losses = [[record.loss for record in run] for run in runs]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_each_epoch_sees_every_image_once_in_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1), np.zeros(10, int)
    batches: list[list[float]] = []

    def note(x: Any, rng: np.random.Generator) -> Any:
        batches.append(x.ravel().tolist())
        return x

    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2)).initialize(0)
    fit(net, (images, labels), batch_size=4, augment=note)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = ([x for batch in half for x in batch] for half in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != sorted(first)


def test_what_is_recorded_is_the_mean_over_images() -> None:
    net, (images, labels) = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).initialize(0), blobs(23)
    (record,) = fit(
        net, (images, labels), epochs=1, batch_size=10, optimizer=train.SGD(0.0), validation=blobs(7, seed=1)
    )
    logits = train.predict(net, images)
    assert record.loss == pytest.approx(float(ops.softmax_cross_entropy(logits, labels)), rel=1e-6)
    assert record.accuracy == pytest.approx(np.mean(logits.argmax(axis=-1) == labels))
    assert (record.val_loss, record.val_accuracy) == pytest.approx(train.evaluate(net, blobs(7, seed=1), batch_size=3))


def test_the_schedule_sets_the_rate_of_each_step_and_gives_it_back() -> None:
    rates: list[float] = []

    class Noting(train.SGD):
        def step(self, parameters: Any) -> None:
            rates.append(self.lr)
            super().step(parameters)

    optimizer = Noting(0.5)
    history = fit(small_net(), blobs(), epochs=2, batch_size=10, optimizer=optimizer, schedule=lambda i, n: i / n)
    assert rates == pytest.approx([0.5 * i / 8 for i in range(8)])
    assert [record.lr for record in history] == [rates[3], rates[7]]
    assert optimizer.lr == 0.5


def test_stale_gradients_do_not_count() -> None:
    fresh, stale = small_net(), small_net()
    _, pullback = stale.vjp(blobs()[0])
    pullback(np.ones((40, 3), np.float32))
    stale.initialize(0)
    for p in stale.parameters().values():
        p.grad = np.ones_like(p.value)
    assert fit(fresh, blobs())[-1].loss == fit(stale, blobs())[-1].loss
    assert all(p.grad is None for p in stale.parameters().values())


def test_frozen_parameters_stay() -> None:
    net = small_net()
    net.children()["0"].freeze()
    before = net.state_dict()
    fit(net, blobs())
    after = net.state_dict()
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {"4.weight", "4.bias"}


# -- where and in what -----------------------------------------------------------------------------------------------


def test_a_network_without_values_is_made_on_the_backend_in_force(place: str) -> None:
    images, labels = blobs()
    net = nn.Sequential(nn.Conv2d(None, 2, 3), nn.Flatten(), nn.Linear(None, 3))
    with xpconv.use_backend(place):
        fit(net, (images.astype(np.float64), labels.astype(np.int16)), epochs=1)
    value = net.parameters()["0.weight"].value
    assert backend.library(value) == place.partition(":")[0]
    assert value.dtype == backend.namespace(value).float32


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_images_follow_the_dtype_of_the_network(dtype: str) -> None:
    net = small_net().to(dtype=dtype)
    fit(net, blobs(), optimizer=train.SGD(0.1))
    assert {p.value.dtype.name for p in net.parameters().values()} == {dtype}
    assert train.predict(net, blobs()[0]).dtype == dtype


def test_data_may_be_of_any_library_or_a_list(place: str) -> None:
    images, labels = blobs()
    given = (backend.get(place).asarray(images), backend.get(place).asarray(labels))
    expected = train.evaluate(small_net(), (images, labels))
    assert expected.loss > 0.5
    assert train.evaluate(small_net(), given) == expected
    assert train.evaluate(small_net(), (images.tolist(), labels.tolist())) == expected
    assert train.evaluate(small_net(), (images, labels), batch_size=7) == pytest.approx(expected, rel=1e-6)


def test_large_data_are_moved_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = pytest.importorskip("array_api_strict")
    whole = fit(small_net().to("array_api_strict"), blobs())
    monkeypatch.setattr("xpconv.train.feed._WHOLE", 1)
    moved: list[int] = []
    asarray = strict.asarray
    monkeypatch.setattr(strict, "asarray", lambda x, **options: moved.append(np.shape(x)) or asarray(x, **options))
    assert [record.loss for record in fit(small_net().to("array_api_strict"), blobs())] == [
        record.loss for record in whole
    ]
    assert (40, 4, 4, 1) not in moved
    assert (16, 4, 4, 1) in moved


def test_predict_goes_batch_by_batch_and_takes_none() -> None:
    net, (images, _) = small_net(), blobs()
    np.testing.assert_allclose(train.predict(net, images, batch_size=7), net(images), rtol=1e-6)
    assert train.predict(net, images[:0]).shape == (0, 3)


# -- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy_with_logits"])
def test_losses_of_numbers(loss: str) -> None:
    images, labels = blobs(60)
    targets = np.eye(3)[labels]
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).initialize(0)
    history = fit(net, (images, targets.astype(int)), loss=loss, epochs=20, optimizer=train.Adam(0.02))
    assert history[-1].loss < 0.5 * history[0].loss
    assert history[-1].accuracy is None
    direct = getattr(ops, loss)(train.predict(net, images), targets.astype(np.float32))
    assert train.evaluate(net, (images, targets), loss=loss).loss == pytest.approx(float(direct), rel=1e-5)


def test_a_loss_with_options_or_an_op() -> None:
    net, data = small_net(), blobs()
    smooth = train.evaluate(net, data, loss=functools.partial(ops.softmax_cross_entropy, label_smoothing=0.3))
    direct = ops.softmax_cross_entropy(train.predict(net, data[0]), data[1], label_smoothing=0.3)
    assert smooth.loss == pytest.approx(float(direct), rel=1e-6)
    assert smooth.accuracy == train.evaluate(net, data, loss=ops.softmax_cross_entropy).accuracy


@pytest.mark.parametrize(
    ("loss", "kind", "said"),
    [
        ("hinge", ValueError, r"(?s)fit: loss 'hinge' is not known\..*softmax_cross_entropy, mse"),
        (np.mean, TypeError, r"is not an op"),
        (functools.partial(ops.mse, reduction="sum"), ValueError, r"the loss must be the mean over a batch"),
    ],
)
def test_a_loss_that_cannot_be_used(loss: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        fit(small_net(), blobs(), loss=loss)


# -- data that do not fit --------------------------------------------------------------------------------------------

IMAGES, LABELS = blobs()
BAD_DATA: dict[str, tuple[Any, dict[str, Any], str]] = {
    "label too high": (
        (IMAGES, np.where(np.arange(40) == 37, 12, LABELS)),
        {},
        r"^fit: labels must lie in 0\.\.2; found 12 at index 37\.\n  1 of 40 labels are outside",
    ),
    "label below 0": ((IMAGES, LABELS - 1), {}, r"^fit: labels must lie in 0\.\.2; found -1 at index"),
    "label of the validation": (
        (IMAGES, LABELS),
        {"validation": (IMAGES, LABELS + 3)},
        r"^fit \(validation\): labels must lie in 0\.\.2",
    ),
    "floats": ((IMAGES, LABELS / 1), {}, r"(?s)^fit: labels must be integers\..*labels \(40,\) float64.*'int64'"),
    "halves": ((IMAGES, LABELS + 0.5), {}, r"(?s)^fit: labels must be integers\..*np\.unique"),
    "text": ((IMAGES, ["a"] * 40), {}, r"(?s)^fit: labels must be integers\..*of <U1, such as 'a'.*np\.unique"),
    "a data set": ((train.Dataset(*[IMAGES] * 4, ("a",))), {}, r"(?s)^fit: data must be a pair.*\(data\.train_images,"),
    "one-hot": ((IMAGES, np.eye(3, dtype=int)[LABELS]), {}, r"(?s)^fit: labels must have shape \(40,\)\..*argmax"),
    "lengths": ((IMAGES, LABELS[:-1]), {}, r"(?s)^fit: needs as many labels as images.*\(40, 4, 4, 1\).*\(39,\)"),
    "nothing": ((IMAGES[:0], LABELS[:0]), {}, r"^fit: needs as many labels as images, and at least one"),
    "a dict": ({"x": IMAGES, "y": LABELS}, {}, r"^fit: data must be a pair \(images, labels\)\.\n  given: dict"),
    "words": ((np.full((40, 2), "a"), LABELS), {}, r"^fit: images must be numbers"),
    "batch size": ((IMAGES, LABELS), {"batch_size": 0}, r"^fit: batch_size must be an integer of at least 1"),
    "epochs": (
        (IMAGES, LABELS),
        {"epochs": 1.5},
        r"^fit: epochs must be an integer of at least 1\.\n  given: epochs=1\.5",
    ),
    "seed": ((IMAGES, LABELS), {"seed": 0.5}, r"^fit: seed must be an integer, not 0\.5"),
    "progress": ((IMAGES, LABELS), {"progress": "bar"}, r"^fit: progress must be True, False or a train\.Progress"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_do_not_fit_are_named_before_the_first_step(case: str) -> None:
    data, options, said = BAD_DATA[case]
    net = small_net()
    before = net.state_dict()
    with pytest.raises((ValueError, TypeError), match=said):
        fit(net, data, **options)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_labels_of_a_map_are_named_by_their_whole_index() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1)).initialize(0)
    labels = np.zeros((40, 4, 4), int)
    assert fit(net, (IMAGES, labels))[-1].accuracy is not None
    for given, remedy in (
        (np.eye(3)[labels], r"argmax\(axis=3\)"),
        (labels[..., None], r"labels\[\.\.\., 0\]"),
        (labels > 0, "astype"),
    ):
        with pytest.raises(ValueError, match=rf"(?s)labels must .*{remedy}"):
            fit(net, (IMAGES, given))
    labels[5, 2, 3] = 3
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2; found 3 at index 5, 2, 3\."):
        fit(net, (IMAGES, labels))


# -- progress and Ctrl-C ---------------------------------------------------------------------------------------------


def test_progress_is_told_of_everything() -> None:
    seen = Seen()
    history = fit(small_net(), blobs(), progress=seen)
    steps = [[(epoch, step) for step in (1, 2, 3)] for epoch in (1, 2)]
    assert seen.told == [("start", 2, 3), *steps[0], history[0], *steps[1], history[1], ("end", False)]


def test_progress_may_look_at_the_epoch_so_far() -> None:
    class Looking(Seen):
        def on_step(self, epoch: int, step: int) -> None:
            assert self.running is not None
            self.told.append(self.running.result())

    seen = Looking()
    (record,) = fit(small_net(), blobs(), epochs=1, progress=seen)
    looks = seen.told[1:4]
    assert looks[-1] == (record.loss, record.accuracy)
    assert len(set(looks)) == 3


def test_without_a_terminal_there_is_a_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    history = fit(small_net(), blobs(), progress=True)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["epoch", "loss", "accuracy", "val", "loss", "val", "accuracy", "seconds"]
    assert [row.split()[:3] for row in rows] == [
        [f"{record.epoch}/{len(history)}", f"{record.loss:.4f}", f"{record.accuracy:.4f}"] for record in history
    ]


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    history = fit(small_net(), blobs(), progress=True)
    shown = capsys.readouterr().out
    assert all(f"{record.loss:.4f}" in shown for record in history)
    assert "2/2" in shown
    assert "━" in shown


class _Pressing(Seen):
    def __init__(self, *at: tuple[int, int]) -> None:
        super().__init__()
        self.at = at

    def on_step(self, epoch: int, step: int) -> None:
        super().on_step(epoch, step)
        if (epoch, step) in self.at:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_the_run_after_a_whole_step(capsys: pytest.CaptureFixture[str]) -> None:
    seen, optimizer, net = _Pressing((2, 2)), train.Adam(), small_net()
    history = fit(net, blobs(), epochs=5, optimizer=optimizer, progress=seen, schedule=train.schedule.Cosine())
    assert history.interrupted
    assert len(history) == 1
    assert seen.told[-2:] == [(2, 2), ("end", True)]
    assert optimizer.steps == 5
    assert optimizer.lr == 1e-3
    assert {p.version for p in net.parameters().values()} == {1 + 5}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert capsys.readouterr().err == "stopping after this step; Ctrl-C again leaves at once\n"


def test_a_second_ctrl_c_stops_at_once() -> None:
    class Twice(Seen):
        def on_step(self, epoch: int, step: int) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    seen = Twice()
    with pytest.raises(KeyboardInterrupt):
        fit(small_net(), blobs(), progress=seen)
    assert seen.told == [("start", 2, 3), ("end", True)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    net, (images, labels) = small_net(), blobs()
    images[3] = np.inf
    said = r"(?s)not finite in epoch 1; training stopped.*16 of 640 not finite, the first at images\[3, 0, 0, 0\]"
    with pytest.warns(RuntimeWarning, match=said):
        history = fit(net, (images, labels), epochs=5, validation=blobs(seed=1))
    assert len(history) == 1
    assert history.diverged
    assert not history.interrupted
    assert history[0].val_loss is None


@pytest.mark.filterwarnings("ignore:invalid value")
def test_targets_that_are_not_finite_are_named_as_the_cause() -> None:
    images, labels = blobs()
    targets = np.eye(3)[labels]
    targets[7, 2] = np.nan
    said = r"(?s)not finite in epoch 1; .*1 of 120 not finite, the first at targets\[7, 2\].*np\.nan_to_num"
    with pytest.warns(RuntimeWarning, match=said):
        fit(small_net(), (images, targets), loss="mse")


def test_a_display_that_cannot_print_any_more_goes_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(train.Lines):
        tried = 0

        def _print(self, line: str) -> None:
            self.tried += 1
            if self.tried == 2:
                raise BrokenPipeError

    shown = Gone()
    assert len(fit(small_net(), blobs(), epochs=4, progress=shown)) == 4
    assert shown.tried == 2
    monkeypatch.setattr(sys, "stdout", None)
    assert len(fit(small_net(), blobs(), progress=True)) == 2


class OwnFlatten(nn.Module):
    """A layer as people write it: an empty batch cannot be reshaped so."""

    def vjp(self, x: Any, training: bool = True, needs_input: bool = True) -> Any:
        return x.reshape(x.shape[0], -1), lambda dy: dy.reshape(x.shape)


def test_a_layer_of_ones_own_need_not_take_an_empty_batch() -> None:
    assert len(fit(nn.Sequential(OwnFlatten(), nn.Linear(None, 3)), blobs())) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "adam"}, "optimizer must be an optimizer"),
        ({"optimizer": train.Adam}, r"call the class: Adam\(\.\.\.\)"),
        ({"schedule": 3}, "schedule must be a function of"),
        ({"schedule": train.schedule.Cosine}, r"call the class: Cosine\(\.\.\.\)"),
        ({"augment": "flip"}, "augment must be a function of"),
        ({"net": None}, "network must be an nn.Module"),
        ({"net": nn.Sequential}, r"make one of the class: Sequential\(\.\.\.\)"),
        ({"data": (np.ma.masked_array(blobs()[0]), blobs()[1])}, "images is a numpy.ma.MaskedArray"),
        ({"data": (blobs()[0], np.ma.masked_array(blobs()[1]))}, "labels is a numpy.ma.MaskedArray"),
        ({"data": (blobs()[0] * 1j, blobs()[1])}, "imaginary parts would be lost"),
    ],
)
def test_what_is_of_the_wrong_kind_is_refused(options: dict[str, Any], said: str) -> None:
    net, data = options.pop("net", small_net()), options.pop("data", blobs())
    with pytest.raises(TypeError, match=said):
        fit(net, data, **options)


def test_a_complex_network_takes_complex_images() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).initialize().to(dtype="complex64")
    assert train.predict(net, blobs()[0] * 1j).dtype == np.complex64


def test_numbers_of_the_validation_are_checked_before_the_first_step() -> None:
    seen, images = Seen(), blobs()[0]
    with pytest.raises(ValueError, match=r"fit \(validation\): targets must have shape \(40, 3\)"):
        fit(small_net(), (images, np.zeros((40, 3))), loss="mse", validation=(images, np.zeros(40)), progress=seen)
    assert not seen.told


def test_ctrl_c_in_the_validation_keeps_the_epoch() -> None:
    class InValidation(Seen):
        def on_epoch(self, record: train.Epoch) -> None:
            signal.raise_signal(signal.SIGINT)

    history = fit(small_net(), blobs(), validation=blobs(seed=1), progress=InValidation())
    assert history.interrupted
    assert [record.epoch for record in history] == [1]


def test_other_threads_and_handlers_are_left_alone() -> None:
    results: list[train.History] = []
    thread = threading.Thread(target=lambda: results.append(fit(small_net(), blobs())))
    thread.start()
    thread.join()
    assert len(results[0]) == 2
    own = signal.signal(signal.SIGINT, lambda number, frame: results.clear())
    try:
        assert len(fit(small_net(), blobs(), progress=_Pressing((1, 1)))) == 2
        assert not results
    finally:
        signal.signal(signal.SIGINT, own)


def test_an_error_in_a_step_ends_the_display_and_restores_the_rate() -> None:
    def broken(x: Any, rng: np.random.Generator) -> Any:
        raise RuntimeError("no more images")

    seen, optimizer = Seen(), train.SGD(0.5)
    with pytest.raises(RuntimeError, match="no more images"):
        fit(small_net(), blobs(), augment=broken, progress=seen, optimizer=optimizer, schedule=train.schedule.Cosine())
    assert seen.told[-1] == ("end", True)
    assert optimizer.lr == 0.5


# -- augmentation ----------------------------------------------------------------------------------------------------


def test_a_shift_moves_each_image_by_whole_pixels_and_fills_with_zeros(place: str) -> None:
    images = np.random.default_rng(0).random((50, 5, 6, 2), dtype=np.float32)
    given = backend.get(place).asarray(images)
    shifted = backend.to_numpy(train.augment.random_shift(2)(given, np.random.default_rng(1)))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for i in range(50):
        ways = [
            (a, b) for a in range(5) for b in range(5) if np.array_equal(shifted[i], padded[i, a : a + 5, b : b + 6])
        ]
        assert len(ways) == 1
        seen.add(ways[0])
    assert len(seen) > 15
    np.testing.assert_array_equal(shifted, train.augment.random_shift(2)(images, np.random.default_rng(1)))
    np.testing.assert_array_equal(images, backend.to_numpy(given))


def test_a_flip_mirrors_about_half_of_the_images(place: str) -> None:
    images = np.random.default_rng(0).random((60, 2, 3, 1), dtype=np.float32)
    flipped = backend.to_numpy(
        train.augment.random_flip()(backend.get(place).asarray(images), np.random.default_rng(1))
    )
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, images, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert [not m for m in mirrored] == kept
    assert 15 < sum(mirrored) < 45
    np.testing.assert_array_equal(flipped, train.augment.random_flip()(images, np.random.default_rng(1)))


@pytest.mark.parametrize("pixels", [0, -1, 1.5, True])
def test_a_shift_of_no_pixels_is_refused(pixels: Any) -> None:
    with pytest.raises(ValueError, match=r"random_shift: pixels must be an integer of at least 1"):
        train.augment.random_shift(pixels)


# -- the package -----------------------------------------------------------------------------------------------------


def test_importing_is_light() -> None:
    heavy = "rich torch sklearn PIL matplotlib array_api_compat.numpy cupy numba scipy array_api_strict"
    code = f"import sys, xpconv.train; print([name for name in {heavy.split()} if name in sys.modules])"
    root = Path(xpconv.__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == "[]"
