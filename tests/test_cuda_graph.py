"""Training by a recorded step is training: the same numbers to the bit, and a reason where nothing can be recorded.

Run with `PYTHONPATH=tests/emulated`, where a captured stream records and its graph runs, or on a GPU; elsewhere these
are reported as skipped.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from targets import missing

import xpconv
from xpconv import nn, train
from xpconv.nn import fusion
from xpconv.runtime import NotRecorded, runtime_of

if missing("cupy"):
    pytest.skip(f"cupy: {missing('cupy')}", allow_module_level=True)
import cupy

EMULATED = cupy.__version__.endswith("emulated")
emulated_only = pytest.mark.skipif(not EMULATED, reason="counts are kept by the emulated CuPy alone")


class Watch(train.Progress):
    """What was told, and the loss of every step."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.losses: list[float] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, epoch: int, step: int) -> None:
        self.losses.append(self.running.result().loss)


def network(seed: int = 3) -> nn.Sequential:
    """One of everything that changes from step to step: weights, running statistics, a count of dropout masks."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same", bias=False),
        nn.BatchNorm(4, activation="relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(None, 3),
    )
    return net.initialize(seed=seed)


def data(n: int = 22) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    return (rng.standard_normal((3, 6, 6, 1))[labels] + rng.standard_normal((n, 6, 6, 1))).astype("float32"), labels


def trained(capture: bool, net: nn.Module | None = None, **options: Any) -> tuple[Watch, nn.Module, train.Optimizer]:
    """Three epochs in batches of 5, the last of 2: long enough to be recorded, replayed, and interrupted by others."""
    with xpconv.use_backend("cupy"):
        net, watch = network() if net is None else net, Watch()
        optimizer = options.pop("optimizer", None) or train.Adam(1e-2)
        settings = {"epochs": 3, "batch_size": 5, "seed": 1, "progress": watch, "validation": data(4), **options}
        train.fit(net, data(), optimizer=optimizer, capture=capture, **settings)
    return watch, net, optimizer


OPTIMIZERS = {
    "sgd": lambda: train.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "plain sgd": lambda: train.SGD(0.05),
    "adam": lambda: train.Adam(1e-2, weight_decay=1e-2),
    "adamw": lambda: train.AdamW(1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replayed_steps_are_the_same_to_the_bit(name):
    options = {"schedule": train.schedule.Cosine(warm_up=0.2), "augment": train.augment.random_shift(1)}
    plain, net, own = trained(False, optimizer=OPTIMIZERS[name](), **options)
    replayed, again, other = trained(True, optimizer=OPTIMIZERS[name](), **options)
    assert (plain.notes, len(replayed.notes)) == ([], 1)
    assert "a step of 5 images is recorded" in replayed.notes[0]
    assert plain.losses == replayed.losses
    for key, value in net.state_dict().items():
        assert np.array_equal(value.get(), again.state_dict()[key].get()), key
    assert own.steps == other.steps == len(plain.losses)
    for key, value in own.state_dict().items():
        assert np.array_equal(value, other.state_dict()[key]), key
    assert other.lr == own.lr
    assert all(p.grad is None for p in again.parameters().values())


def test_a_network_on_another_device_than_the_current_one():
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one device")
    found = []
    for backend in ("cupy", "cupy:1"):
        watch = Watch()
        net = network().to(backend)
        train.fit(net, data(), epochs=2, batch_size=5, progress=watch, augment=train.augment.random_flip())
        assert train.evaluate(net, data()).loss > 0
        found.append(watch.losses)
    assert found[0] == found[1]


def test_dropout_draws_anew_at_each_replay():
    def losses(capture):
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3)).initialize(seed=0)
        with xpconv.use_backend("cupy"):
            net.to("cupy")
            watch = Watch()
            still = (np.ones((5, 6, 6, 1), "float32"), np.zeros(5, int))
            train.fit(net, still, epochs=8, batch_size=5, optimizer=train.SGD(0.0), progress=watch, capture=capture)
        return watch.losses

    replayed = losses(True)
    assert replayed == losses(False)
    assert len(set(replayed)) == len(replayed), "nothing learns, so that only the masks differ"


def test_batches_of_two_shapes_and_packed_weights_keep_apart():
    """Whoever uses the network between replays finds its newest weights, and packed ones that fit them."""
    seen: list[Any] = []

    class Using(Watch):
        def on_step(self, epoch: int, step: int) -> None:
            super().on_step(epoch, step)
            seen.append(net(cupy.asarray(data(4)[0])).get())
            versions.append([p.version for p in net.parameters().values()])

    results = []
    for capture in (False, True):
        seen, versions, watch = [], [], Using()
        with xpconv.use_backend("cupy"):
            net = network()
            train.fit(net, data(), epochs=3, batch_size=5, seed=1, progress=watch, capture=capture)
        results.append(seen)
        assert all(a < b for one, two in itertools.pairwise(versions) for a, b in zip(one, two, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_a_frozen_part_and_a_changed_network_are_recorded_anew():
    class Freezing(Watch):
        def on_step(self, epoch: int, step: int) -> None:
            super().on_step(epoch, step)
            if len(self.losses) == 7:
                net.children()["0"].freeze()
            if len(self.losses) == 9:  # into the same arrays
                net.load_state_dict({k: v + 0.1 for k, v in net.state_dict().items()})
            if len(self.losses) == 11:  # into others
                net.to(dtype="float64").to(dtype="float32")
            if len(self.losses) == 13:
                optimizer.load_state_dict({k: v * 0.5 if k.endswith(".m") else v for k, v in kept().items()})

    results = []
    for capture in (False, True):
        watch, optimizer = Freezing(), train.Adam(1e-2)
        kept = optimizer.state_dict
        with xpconv.use_backend("cupy"):
            net = network()
            train.fit(net, data(), epochs=4, batch_size=5, seed=1, progress=watch, capture=capture, optimizer=optimizer)
        results.append((watch.losses, {k: v.get().tolist() for k, v in net.state_dict().items()}))
    assert results[0] == results[1]
    assert len(watch.notes) == 1


def test_a_rate_on_the_device_is_read_at_each_replay():
    def run(rate, capture):
        return trained(capture, optimizer=train.SGD(rate, momentum=0.9), schedule=train.schedule.Cosine())[0].losses

    replayed, plain = (run(cupy.asarray(0.05), capture) for capture in (True, False))
    assert replayed == plain
    assert replayed == run(0.05, True)


LAYERS = {
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "groups, stride": lambda: nn.Conv2d(4, 8, 3, groups=2, stride=2),
    "dilation, silu": lambda: nn.Conv2d(4, 4, 3, dilation=2, activation="silu"),
    "transposed": lambda: nn.ConvTranspose2d(4, 3, 3, stride=2),
    "layer norm": lambda: nn.LayerNorm(),
    "group norm": lambda: nn.GroupNorm(2),
    "average pool": lambda: nn.AvgPool2d(2),
    "overlapping max pool": lambda: nn.MaxPool2d(3, 2, 1),
    "adaptive pool": lambda: nn.AdaptiveAvgPool2d(3),
    "global pool": lambda: nn.GlobalAvgPool(),
    "residual": lambda: nn.Residual(nn.Conv2d(4, 4, 3, padding="same")),
    "parallel": lambda: nn.Parallel(nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)),
    "prelu": lambda: nn.PReLU(),
    "gelu": lambda: nn.GELU(),
    "softmax": lambda: nn.Softmax(),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_can_be_recorded(kind):
    x, labels = np.random.default_rng(0).standard_normal((10, 8, 8, 4)).astype("float32"), np.arange(10) % 3
    found = []
    for capture in (False, True):
        watch = Watch()
        with xpconv.use_backend("cupy"):
            net = nn.Sequential(LAYERS[kind](), nn.Flatten(), nn.Linear(None, 3)).initialize(seed=0)
            train.fit(net, (x, labels), epochs=2, batch_size=2, progress=watch, capture=capture)
        found.append(watch)
    assert found[0].losses == found[1].losses
    assert "is recorded" in found[1].notes[0]


class Stubborn(nn.Module):
    capturable = False

    def vjp(self, x, training=True, needs_input=True):
        return x, lambda dy: dy


class Looking(nn.Module):
    def vjp(self, x, training=True, needs_input=True):
        assert float(x.sum()) != 0.5
        return x, lambda dy: dy


class Uploading(nn.Module):
    def vjp(self, x, training=True, needs_input=True):
        y = x + cupy.asarray(np.zeros(x.shape[1:], "float32"))
        return y, lambda dy: dy


class Own(train.SGD):
    def change(self, value, grad, slots, rate, t):
        return rate * grad


REFUSED = {
    "a layer says no": ({"net": lambda: [Stubborn()]}, "the layer Stubborn '0' says"),
    "a layer looks": ({"net": lambda: [Looking()]}, "captur"),
    "a layer moves data": ({"net": lambda: [Uploading()]}, "captur"),
    "an optimizer of one's own": ({"optimizer": lambda: Own(0.1)}, "no engine updates these parameters by Own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_recorded_is_told_once_and_trained_all_the_same(case):
    made, said = REFUSED[case]

    def options() -> dict[str, Any]:
        extra = made["net"]() if "net" in made else []
        with xpconv.use_backend("cupy"):
            net = nn.Sequential(*extra, *network().children().values()).initialize(seed=3)
        return {"net": net, "optimizer": made["optimizer"]() if "optimizer" in made else None}

    plain, net, _ = trained(False, **options())
    tried, again, _ = trained(True, **options())
    assert len(tried.notes) == 1
    assert tried.notes[0].startswith("no CUDA graph: ")
    assert said in tried.notes[0]
    assert plain.losses == tried.losses
    for key, value in net.state_dict().items():
        assert np.array_equal(value.get(), again.state_dict()[key].get()), key


def test_an_error_within_a_recorded_step_is_the_users_and_leaves_the_network_usable():
    class Breaking(nn.Module):
        calls = 0

        def vjp(self, x, training=True, needs_input=True):
            Breaking.calls += training
            if training and Breaking.calls == 3:
                raise KeyboardInterrupt
            return x, lambda dy: dy

    with xpconv.use_backend("cupy"):
        net = nn.Sequential(Breaking(), *network().children().values()).initialize(seed=3)
    optimizer = train.Adam(1e-2)
    with pytest.raises(KeyboardInterrupt):
        trained(True, net, optimizer=optimizer)
    assert (optimizer.steps, optimizer.lr) == (2, 1e-2)
    assert not cupy.cuda.get_current_stream().is_capturing()
    trained(True, net, optimizer=optimizer)


def test_work_is_ordered_on_a_stream_of_its_own_and_the_current_one_comes_back():
    runtime = runtime_of(xpconv.backend.get("cupy"))
    outer = cupy.cuda.get_current_stream()
    with runtime.working():
        inner = cupy.cuda.get_current_stream()
        assert inner != outer
        with runtime.working():
            assert cupy.cuda.get_current_stream() == inner
    assert cupy.cuda.get_current_stream() == outer


def test_weights_folded_on_one_stream_are_not_taken_on_another():
    """Which would not wait until they are made, nor until they are read before their memory goes."""
    with xpconv.use_backend("cupy"):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm(2)).initialize(seed=0)
    net(cupy.asarray(data(4)[0]))
    weight, _ = fusion._folded(net[0], net[1])
    assert fusion._folded(net[0], net[1])[0] is weight
    with runtime_of(xpconv.backend.get("cupy")).working():
        there, _ = fusion._folded(net[0], net[1])
        assert there is not weight
        assert fusion._folded(net[0], net[1])[0] is there
    assert cupy.array_equal(weight.value, there.value)


def test_a_recording_runs_nothing_and_names_what_stops_it():
    runtime = runtime_of(xpconv.backend.get("cupy"))
    with runtime.working():
        x = cupy.zeros(3)

        def work():
            nonlocal x
            x += 1
            return x * 2

        recording = runtime.record(work)
        assert x.tolist() == [0, 0, 0]
        recording.replay()
        recording.replay()
        assert (x.tolist(), recording.result.tolist()) == ([2, 2, 2], [4, 4, 4])
        with pytest.raises(NotRecorded, match="captur"):
            runtime.record(x.get)
        assert x.tolist() == [2, 2, 2]


def test_a_network_in_bfloat16_trains_on_flipped_images():
    """CuPy's `where` makes float32 of bfloat16, which no layer of this network would take."""
    pytest.importorskip("ml_dtypes")
    found = []
    for capture in (False, True):
        watch, flips = Watch(), train.augment.random_flip()
        net = nn.Sequential(nn.Conv2d(1, 4, 3, activation="relu"), nn.Flatten(), nn.Linear(64, 3)).initialize(seed=0)
        with xpconv.use_backend("cupy"):
            net.to("cupy", dtype="bfloat16")
            train.fit(net, data(), epochs=3, batch_size=5, progress=watch, augment=flips, capture=capture)
        found.append(watch)
    assert found[0].losses == found[1].losses
    assert np.isfinite(found[0].losses).all()
    assert "is recorded" in found[1].notes[0]


@emulated_only
def test_a_training_step_waits_for_nothing_and_a_replay_is_one_launch():
    counts = cupy.emulation.counts
    found: list[dict[str, int]] = []

    class Counting(train.Progress):
        def on_step(self, epoch: int, step: int) -> None:
            found.append(dict(counts))

    with xpconv.use_backend("cupy"):
        counts["captured memory of the default pool"] = 0
        train.fit(network(), data(20), epochs=2, batch_size=5, progress=Counting())
    within = [(a, b) for i, (a, b) in enumerate(itertools.pairwise(found)) if i != 3]  # but between epochs
    assert all(a["synchronisations"] == b["synchronisations"] for a, b in within)
    assert found[-1]["graph launches"] - found[2].get("graph launches", 0) == 5
    assert found[-1]["launches"] == found[3]["launches"], "a replayed step launches no kernel of ours by itself"
    assert counts["captured memory of the default pool"] == 0


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64"])
def test_large_data_go_through_pinned_memory(monkeypatch, dtype):
    images, labels = data()
    images = (images * 40 + 100).astype(dtype)

    def losses() -> list[float]:
        watch = Watch()
        with xpconv.use_backend("cupy"):
            train.fit(network(), (images, labels), epochs=2, batch_size=5, seed=1, progress=watch)
        return watch.losses

    whole = losses()
    monkeypatch.setattr("xpconv.train.feed._WHOLE", 10)
    assert losses() == whole


def test_batches_come_in_order_and_may_be_kept():
    runtime, place = runtime_of(xpconv.backend.get("cupy")), xpconv.backend.get("cupy")
    rows = np.arange(14.0).reshape(7, 2)
    for order in ([slice(0, 3), slice(3, 6), slice(6, 7)], [np.array([6, 0, 2]), np.array([1, 5]), np.array([3, 4])]):
        with runtime.working():
            got = list(runtime.batches(rows, order, place, "float32"))
            assert all(np.array_equal(x.get(), rows[part]) for x, part in zip(got, order, strict=True))
            assert all(x.dtype == np.float32 for x in got)


@emulated_only
def test_pinned_memory_is_given_back_when_its_copies_are_over():
    """Its pool would hand it to the next batches at once, though the device may still be reading it."""
    runtime, place, counts = runtime_of(xpconv.backend.get("cupy")), xpconv.backend.get("cupy"), cupy.emulation.counts
    rows, order = np.arange(14.0).reshape(7, 2), [slice(0, 3), slice(3, 6), slice(6, 7)]
    with runtime.working():
        left = runtime.batches(rows, order, place, "float32")
        next(left)
        before = counts["synchronisations"]
        left.close()
        assert counts["synchronisations"] == before + 2, "of the batch in use, and of the one ahead"
        whole = runtime.batches(rows, order, place, "float32")
        next(whole), next(whole), next(whole)
        before = counts["synchronisations"]
        assert next(whole, None) is None
        assert counts["synchronisations"] == before + 2
