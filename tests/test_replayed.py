"""A recorded training step on NumPy is the step: the same bits, whatever else uses the memory meanwhile."""

from __future__ import annotations

import functools
import gc
import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest
from nets import NETWORKS, examples, flat, made
from taken import assert_same, stepped

import xpconv
from xpconv import nn, ops, train
from xpconv.backend import get
from xpconv.engines import numba as engine
from xpconv.runtime import runtime_of
from xpconv.train.replayed_step import ReplayedStep

OPTIMIZERS = {
    "sgd": lambda: train.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "plain sgd": lambda: train.SGD(0.05),
    "adam": lambda: train.Adam(1e-2, weight_decay=1e-2),
    "adamw": lambda: train.AdamW(1e-2),
    "clipped": lambda: train.SGD(0.05, momentum=0.9, clip_norm=0.05),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_steps_are_the_same_to_the_bit(name, dtype):
    batches = examples(NETWORKS[name][1], dtype=dtype)
    replayed, usual = (stepped(made(name, dtype), batches, capture) for capture in (True, False))
    assert replayed[2] == ""
    assert_same(replayed, usual)
    assert len({found[0].item() for found in usual[0]}) == len(batches), "every step finds something else"


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy_with_logits"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_and_loss(name, loss):
    rng = np.random.default_rng(1)
    batches = [(x, rng.random((len(x), 5), dtype="float32")) for x, _ in examples((5, 5, 3))]
    runs = [stepped(made("side by side"), batches, capture, OPTIMIZERS[name](), loss) for capture in (True, False)]
    assert runs[0][2] == ""
    assert_same(*runs)


def test_what_jobs_read_outlives_the_plans_that_are_kept_and_all_other_memory():
    """A recording holds its tables, scratch and outputs: whatever else is dropped, or written over, changes nothing."""

    def forget(step: int) -> None:
        if step != 3:  # once the plans, which were made by the first steps, have been recorded
            return
        for module in pkgutil.iter_modules(engine.__path__):
            for member in vars(importlib.import_module(f"{engine.__name__}.{module.name}")).values():
                if isinstance(member, functools._lru_cache_wrapper) and member.cache_info().maxsize:
                    member.cache_clear()
        engine.release()
        gc.collect()
        sizes = (*range(8, 2048, 8), *range(2**11, 2**19, 2**11))
        litter.extend(np.full(size, 0xFF, np.uint8) for size in sizes for _ in range(8))

    for name in ("resnet20", "convolutions", "pools", "borders and sizes"):
        litter: list[Any] = []
        batches = examples(NETWORKS[name][1])
        disturbed = stepped(made(name), batches, between=forget)
        assert disturbed[2] == ""
        assert_same(disturbed, stepped(made(name), batches, capture=False))


def test_rates_and_weights_that_change_after_each_step_are_those_of_the_next():
    """Also between the step that a replay is compared with, the one that is recorded, and the comparison."""

    def run(capture: bool) -> Any:
        net, optimizer = made("side by side"), train.Adam(0.01)

        def change(step: int) -> None:
            optimizer.lr = 0.01 / (step + 1)
            net.load_state_dict({k: v * 1.01 for k, v in net.state_dict().items()})  # into the same arrays

        return stepped(net, examples((5, 5, 3)), capture, optimizer, between=change)

    replayed, usual = run(True), run(False)
    assert replayed[2] == ""
    assert_same(replayed, usual)


def test_the_network_is_used_and_changed_between_steps(monkeypatch):
    def change(net: nn.Module, optimizer: train.Optimizer, step: int) -> None:
        seen.append(net(images))
        if step == 5:
            net.children()["head"].freeze()
        if step == 7:  # into the same arrays
            net.load_state_dict({k: v + 0.1 for k, v in net.state_dict().items()})
        if step == 8:
            optimizer.lr = 0.5
        if step == 9:  # into others
            net.to(dtype="float64").to(dtype="float32")
        if step == 11:
            optimizer.clip_norm = 0.1
        if step == 13:
            xpconv.set_num_threads(1)
        if step == 15:
            net.drop = nn.Identity()

    monkeypatch.setattr(importlib.import_module("xpconv.train.replayed"), "_LONGEST", 1)
    images, batches, runs = examples((5, 5, 3))[0][0], examples((5, 5, 3), 20), []
    batches[8] = tuple(part[:2] for part in batches[8])
    for capture in (True, False):
        seen: list[Any] = []
        net, optimizer = made("side by side"), train.Adam(1e-2)
        with xpconv.set_num_threads(2):
            run = stepped(net, batches, capture, optimizer, between=functools.partial(change, net, optimizer))
        assert run[2] == ""
        runs.append((run, [x.tobytes() for x in seen]))
    assert_same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_what_is_set_on_a_layer_between_steps_is_in_the_next_one():
    batches, runs = examples((5, 5, 3), 12), []
    for capture in (True, False):
        net = flat(nn.BatchNorm(3), nn.Dropout(0.2)).initialize(seed=3)
        norm, dropout = net[0], net[1]

        def change(step: int, norm: Any = norm, dropout: Any = dropout) -> None:
            dropout.p = 0.2 if step < 4 else 0.4
            norm.momentum = 0.1 if step < 8 else 0.3

        runs.append(stepped(net, batches, capture, between=change))
    assert runs[0][2] == ""
    assert_same(*runs)


class Undeclared(nn.Module):
    def vjp(self, x, training=True, needs_input=True):
        return x, lambda dy: dy


class Looking(Undeclared):
    """NumPy computes with the numbers of this batch, where no recording sees it."""

    capturable = True

    def vjp(self, x, training=True, needs_input=True):
        scale = np.float32(1 / np.abs(x).max())
        return x * scale, lambda dy: dy * scale


class Declared(Undeclared):
    """It keeps what it has seen."""

    capturable = True
    calls = 0

    def vjp(self, x, training=True, needs_input=True):
        self.seen, self.calls = x, self.calls + 1
        return xpconv.vjp(ops.tanh, x)[0], lambda dy: dy


class Stubborn(Undeclared):
    capturable = False


class Fading(nn.Dropout):
    """What decides is a property."""

    @property
    def p(self):
        return 0.5

    @p.setter
    def p(self, value):
        pass


class Scaled(nn.Module):
    """A gradient without axes that comes in two parts."""

    capturable = True

    def __init__(self) -> None:
        self.scale = nn.Parameter(np.asarray(1.5, np.float32))

    def vjp(self, x, training=True, needs_input=True):
        def pullback(dy):
            for _ in range(2):
                self.scale.accumulate(np.asarray((dy * x).mean()))
            return dy * self.scale.value

        return x * self.scale.value, pullback


class Block(nn.Sequential):
    """A network of others', which adds nothing to how it is run."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(None, 2, 3), nn.ReLU())


class Own(train.SGD):
    def change(self, value, grad, slots, rate, t):
        return rate * grad


REFUSED = {
    "a layer of one's own": (Undeclared, "Undeclared '0' does not say that it can"),
    "a layer that says no": (Stubborn, "Stubborn '0' says that it cannot"),
    "a property of one's own": (Fading, "Fading '0' does not say that it can"),
    "NumPy, and a sum without axes": (Scaled, "a replay does not do all that a step does"),
    "NumPy in a layer": (Looking, "a replay does not do all that a step does"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_replayed_is_told_and_trained_all_the_same(case):
    layer, said = REFUSED[case]
    runs = []
    for capture in (True, False):
        net = nn.Sequential(layer(), nn.BatchNorm(3), nn.Flatten(), nn.Dropout(0.2), nn.Linear(None, 3)).initialize(
            seed=3
        )
        runs.append(stepped(net, examples((5, 5, 3)), capture, train.Adam(1e-2)))
    assert said in runs[0][2]
    assert_same(*runs)


@pytest.mark.parametrize("layer", [Declared, Block])
def test_layers_of_ones_own_that_can_be_replayed(layer):
    batches, runs = examples((5, 5, 3)), []
    for capture in (True, False):
        net = flat(layer()).initialize(seed=3)
        runs.append(stepped(net, batches, capture))
    assert runs[0][2] == ""
    assert_same(*runs)


def test_a_layer_that_is_there_twice_and_a_rate_that_is_an_array():
    batches, runs = examples((5, 5, 3)), []
    for capture in (True, False):
        twice = nn.Conv2d(3, 3, 3, padding="same")
        net, optimizer = flat(twice, nn.ReLU(), twice).initialize(seed=3), train.Adam(np.asarray(1e-2))
        runs.append(stepped(net, batches, capture, optimizer))
        assert optimizer.steps == len(batches)
    assert runs[0][2] == ""
    assert_same(*runs)


def test_an_optimizer_of_ones_own_and_another_engine_take_their_steps_call_by_call():
    batches = examples((5, 5, 3))
    own = [stepped(made("side by side"), batches, capture, Own(0.1)) for capture in (True, False)]
    assert "no engine updates these parameters by Own" in own[0][2]
    assert_same(*own)
    with xpconv.use_engine("portable"):
        assert not runtime_of(get("numpy")).records
    assert runtime_of(get("numpy")).records


def test_a_loss_of_ones_own_takes_its_steps_call_by_call():
    def loss(outputs, labels):
        each, pullback = xpconv.vjp(ops.softmax_cross_entropy, outputs, labels, reduction="none")
        return each.mean(), pullback(np.full_like(each, 1 / len(each)))[0]

    batches = examples((5, 5, 3))
    runs = [stepped(made("side by side"), batches, capture, loss=loss) for capture in (True, False)]
    assert "a loss of one's own" in runs[0][2]
    assert_same(*runs)


def test_fit_replays_its_steps_and_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path, monkeypatch):
    class Ending(train.Progress):
        def on_epoch(self, record: train.Epoch) -> None:
            if record.epoch == 2 and self.ends:
                raise SystemExit

    def run(capture: bool, ends: bool = False, **options: Any) -> tuple[list[Any], dict[str, Any]]:
        net, watch = made("side by side"), Ending()
        watch.ends, x, labels = ends, *map(np.concatenate, zip(*examples((5, 5, 3)), strict=True))
        options = {"epochs": 4, "batch_size": 5, "seed": 1, "progress": watch, **options}
        schedule, augment = train.schedule.Cosine(warm_up=0.2), train.augment.random_flip()
        history = train.fit(net, (x, labels), capture=capture, schedule=schedule, augment=augment, **options)
        return [(epoch.loss, epoch.accuracy) for epoch in history], net.state_dict()

    replays: list[int] = []
    replay = ReplayedStep.replay
    monkeypatch.setattr(ReplayedStep, "replay", lambda *args: replays.append(1) or replay(*args))
    usual = run(False)
    assert not replays
    whole = run(True)
    assert len(replays) == 4 * 5 - 3 + 1, "all whole batches but two, of which one again, and the one that was recorded"
    with pytest.raises(SystemExit):
        run(True, ends=True, checkpoint=train.Checkpoint(tmp_path / "run"))
    resumed = run(True, checkpoint=train.Checkpoint(tmp_path / "run", resume=True))
    for other in (whole, resumed):
        assert other[0] == usual[0]
        assert all(np.array_equal(other[1][key], value) for key, value in usual[1].items())
