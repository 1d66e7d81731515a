"""The training loop: the same on every backend, and honest in what it records."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training import blobs, fit, small_net

import xpconv
from xpconv import backend, nn, ops, train

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


def mean_square(outputs: Any, targets: Any) -> tuple[Any, Any]:
    return np.mean((outputs - targets) ** 2, dtype=float), 2 / outputs.size * (outputs - targets).astype(float)


def of_all_but(label: int, outputs: Any, labels: Any) -> tuple[float, Any]:
    each, pullback = xpconv.vjp(
        ops.softmax_cross_entropy, outputs, np.where(labels == label, 0, labels), reduction="none"
    )
    weights = (labels != label).astype("float32")
    return float((each * weights).mean()), pullback(weights / weights.size)[0]


def test_a_loss_of_ones_own(tmp_path: Path) -> None:
    """As the op would do it; and of labels that it may leave out, of which there is no accuracy."""
    images, labels = blobs()
    nets, targets = (small_net(), small_net()), np.eye(3)[labels]
    own, known = (fit(net, (images, targets), loss=loss) for net, loss in zip(nets, (mean_square, "mse"), strict=True))
    assert [record.loss for record in own] == pytest.approx([record.loss for record in known], rel=1e-5)
    assert train.evaluate(nets[0], (images, targets), loss=mean_square).accuracy is None
    loss = functools.partial(of_all_but, 255)
    assert train.evaluate(nets[0], (images, labels), loss=loss) == pytest.approx(
        train.evaluate(nets[0], (images, labels)), rel=1e-6
    )
    some = np.where(labels == 2, 255, labels)
    kept = train.Checkpoint(tmp_path / "run.safetensors")
    assert fit(nets[0], (images, some), loss=loss, checkpoint=kept)[-1].accuracy is None
    with pytest.raises(xpconv.FileError, match=r"loss: .*of_all_but>, 255\) there · <function mean_square> here"):
        fit(nets[0], (images, some), loss=mean_square, checkpoint=train.Checkpoint(kept.path, resume=True))


def test_a_loss_of_ones_own_of_complex_outputs() -> None:
    def loss(outputs: Any, targets: Any) -> tuple[Any, Any]:
        return np.mean(np.abs(outputs - targets) ** 2), 2 / outputs.size * (outputs - targets)

    x = np.exp(1j * np.arange(24).reshape(4, 6)).astype("complex64")
    net = nn.Sequential(nn.Linear(6, 6)).to(dtype="complex64").initialize(0)
    history = fit(net, (x, x[:, ::-1]), loss=loss, epochs=30, batch_size=4, optimizer=train.Adam(0.05))
    assert history[-1].loss < 0.1 * history[0].loss


@pytest.mark.parametrize("targets", [2 * np.eye(3)[[0, 1] * 20] - 1, 255 * np.eye(3)[[0, 1] * 20].astype("uint8")])
def test_targets_that_are_no_probabilities(targets: Any) -> None:
    with pytest.raises(ValueError, match=r"(?s)must lie in 0\.\.1\.\n  they lie in .*masks of 0 and 255"):
        fit(small_net(), (blobs()[0], targets), loss="binary_cross_entropy_with_logits")


@pytest.mark.parametrize(
    ("loss", "kind", "said"),
    [
        ("hinge", ValueError, r"(?s)fit: loss 'hinge' is not known\..*softmax_cross_entropy, mse"),
        (3, TypeError, r"(?s)must be a name, an op, or a function of \(outputs, targets\)\.\n  given: loss=3"),
        (
            lambda y, t: y,
            TypeError,
            r"(?s)must return the mean loss, .*gradient in the outputs.*loss \(16, 3\) float32",
        ),
        (lambda y, t: (0.0, y[:1]), TypeError, r"(?s)gradient in the outputs.*loss=0\.0 · gradient \(1, 3\) float32"),
        (functools.partial(ops.mse, reduction="sum"), ValueError, r"the loss must be the mean over a batch"),
    ],
)
def test_a_loss_that_cannot_be_used(loss: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        fit(small_net(), blobs(), loss=loss)


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


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_network_that_is_spoilt_is_told_of() -> None:
    net, data = small_net(), blobs()
    with pytest.warns(
        RuntimeWarning, match=r"a smaller learning rate may help.*\n  .*begin again with net\.initialize"
    ):
        fit(net, data, epochs=9, optimizer=train.SGD(1e30))


@pytest.mark.parametrize(
    ("images", "labels", "kind", "said"),
    [
        ([np.zeros((4, 4, 1)), np.zeros((5, 4, 1))], [0, 1], ValueError, r"(?s)images must all be of one shape.*crop"),
        (
            np.zeros((2, 4, 4, 1)),
            np.array([0, "a"], object),
            ValueError,
            r"(?s)must be integers.*such as 0.*return_inv",
        ),
    ],
)
def test_data_that_are_no_numbers(images: Any, labels: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        fit(small_net(), (images, labels))


class OwnFlatten(nn.Module):
    """A layer as people write it: an empty batch cannot be reshaped so."""

    def vjp(self, x: Any, training: bool = True, needs_input: bool = True) -> Any:
        return x.reshape(x.shape[0], -1), lambda dy: dy.reshape(x.shape)


def test_a_layer_of_ones_own_need_not_take_an_empty_batch() -> None:
    assert len(fit(nn.Sequential(OwnFlatten(), nn.Linear(None, 3)), blobs())) == 2


def test_a_complex_network_takes_complex_images() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).initialize().to(dtype="complex64")
    assert train.predict(net, blobs()[0] * 1j).dtype == np.complex64


# -- the package -----------------------------------------------------------------------------------------------------


def test_importing_is_light() -> None:
    heavy = "rich torch sklearn PIL matplotlib array_api_compat.numpy cupy numba scipy array_api_strict"
    code = f"import sys, xpconv.train; print([name for name in {heavy.split()} if name in sys.modules])"
    root = Path(xpconv.__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == "[]"
