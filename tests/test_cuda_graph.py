"""Training by a recorded step is training: the same numbers to the bit.

Run with `PYTHONPATH=tests/emulated`, where a captured stream records and its graph runs, or on a GPU; elsewhere these
are reported as skipped.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from recorded import Watch, data, network, same_bits, trained  # noqa: F401 - a fixture

import xpconv
from xpconv import nn, train

cupy = pytest.importorskip("cupy")


OPTIMIZERS = {
    "sgd": lambda: train.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "plain sgd": lambda: train.SGD(0.05),
    "adam": lambda: train.Adam(1e-2, weight_decay=1e-2),
    "adamw": lambda: train.AdamW(1e-2),
    "clipped": lambda: train.SGD(0.05, momentum=0.9, clip_norm=0.05),
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


@pytest.mark.skipif(not hasattr(cupy, "emulation"), reason="a GPU does not tell")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_is_used_for_the_first_time_while_a_step_is_recorded(name):
    """It would be compiled and loaded then."""
    cupy.emulation.used.clear()
    cupy.emulation.first_in_a_graph.clear()
    trained(True, optimizer=OPTIMIZERS[name]())
    assert len(cupy.emulation.used) > 30
    assert cupy.emulation.first_in_a_graph == []


def test_a_run_that_goes_on_from_a_checkpoint_is_recorded_anew(tmp_path):
    class Ending(Watch):
        def on_step(self, epoch: int, step: int) -> None:
            super().on_step(epoch, step)
            if (epoch, step) == (3, 4):
                raise SystemExit

    whole, net, _ = trained(True)
    kept = train.Checkpoint(tmp_path / "run")
    with pytest.raises(SystemExit):
        trained(True, checkpoint=kept, progress=Ending())
    with xpconv.use_backend("cupy"):
        again = network(seed=99)
    watch, _, _ = trained(True, again, checkpoint=train.Checkpoint(kept.path, resume=True))
    assert watch.notes[0] == "going on after epoch 2"
    assert "is recorded" in watch.notes[1]
    assert watch.losses == whole.losses[10:]
    for key, value in net.state_dict().items():
        assert np.array_equal(value.get(), again.state_dict()[key].get()), key


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
