"""Inference of layers of one's own: what may be recorded, and what they are set to meanwhile."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from nets import assert_answers, images

import xpconv
from xpconv import nn, ops, train


class Doubled(nn.Module):
    capturable = True

    def vjp(self, x, training=True, needs_input=True):
        y, pullback = xpconv.vjp(ops.add, x, x)
        return y, lambda dy: sum(pullback(dy))


class Pair(Doubled):
    def __call__(self, x):
        return x, x


class Constant(Doubled):
    """What NumPy makes of the batch is the same for any batch of ones."""

    def vjp(self, x, training=True, needs_input=True):
        return ops.add(x, np.full_like(x, float(x.mean()))), lambda dy: dy


class Undeclared(nn.Module):
    def vjp(self, x, training=True, needs_input=True):
        return x, lambda dy: dy


class Options(Doubled):
    """Options in a list, which changes without a word."""

    def __init__(self) -> None:
        self.pads, self.layers = [1], [nn.Conv2d(3, 3, 1)]

    def vjp(self, x, training=True, needs_input=True):
        return ops.pad(self.layers[0](x), ((self.pads[0], 0), (0, 0))), lambda dy: dy


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Doubled, ""),
        (Pair, "returns tuple, not one array"),
        (Undeclared, "does not say that it can"),
        (Constant, r"all that inference does, .*: look at the layer Constant '1'$"),
    ],
)
def test_layers_of_ones_own(layer, said):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), layer()).initialize(seed=0)
    predictor, x = train.Predictor(net), np.ones((2, 9, 9, 3), "float32")
    for i in range(7):
        mine, usual = predictor(x * (1 if i < 5 else 3)), net(x * (1 if i < 5 else 3))
        for one, other in zip(mine, usual, strict=True):
            assert one.tobytes() == other.tobytes()
    assert re.search(said, predictor.refused)
    assert predictor.replays is not bool(said)


@dataclasses.dataclass
class Border:
    before: int = 1


class SetTo(Doubled):
    """All that a layer of one's own may be set to."""

    def __init__(self) -> None:
        self.op, self.slope, self.least = ops.silu, np.ones(3, "float32"), np.float32(0)
        self.border, self.after = Border(), ([1], 0)

    def vjp(self, x, training=True, needs_input=True):
        y = ops.pad(ops.prelu(x, self.slope), ((self.border.before, self.after[0][0]), (0, 0)), value=float(self.least))
        return self.op(y), lambda dy: dy


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net.own, "op", ops.tanh),
        lambda net: setattr(net.own, "slope", np.full(3, 2, "float32")),
        lambda net: setattr(net.own, "least", np.float32(1)),
        lambda net: setattr(net.own.border, "before", 2),
        lambda net: net.own.after[0].__setitem__(0, 2),
        lambda net: delattr(net, "end"),
    ],
)
def test_whatever_a_layer_is_set_to_is_looked_at(change):
    net, x = nn.Sequential(conv=nn.Conv2d(3, 3, 1), own=SetTo(), end=nn.Sigmoid()).initialize(seed=0), images(2, 9)
    predictor = train.Predictor(net)
    assert_answers(predictor, net, [x] * 5)
    assert predictor.replays, predictor.refused
    before = predictor(x).tobytes()
    change(net)
    assert before != predictor(x).tobytes() == net(x).tobytes()
    assert_answers(predictor, net, [x] * 5)
    assert predictor.replays


def test_layers_that_nobody_can_look_at_are_not_recorded():
    class Nested(Doubled):
        def __init__(self) -> None:
            self.blocks = [[nn.Conv2d(32, 32, 3)]]

        def vjp(self, x, training=True, needs_input=True):
            return self.blocks[0][0](x), lambda dy: dy

    net, x = nn.Sequential(nn.Conv2d(3, 32, 1), Nested()).initialize(seed=0), images(2, 9)
    predictor = train.Predictor(net)
    assert_answers(predictor, net, [x] * 5)
    weight = net[1].blocks[0][0].weight
    weight.assign(2 * weight.value)
    assert_answers(predictor, net, [x])
    assert "'1' keeps parameters or layers where parameters() has none" in predictor.refused


@pytest.mark.filterwarnings("error")
def test_images_of_the_comparison_are_nobodys_business():
    class Root(Doubled):
        def vjp(self, x, training=True, needs_input=True):
            if not (x >= 0).all():
                raise ValueError("no picture")
            return np.sqrt(x), lambda dy: dy

    class Exp(Doubled):
        def vjp(self, x, training=True, needs_input=True):
            return np.exp(x), lambda dy: dy

    for layer, size, said in ((Root, 200, "it raises ValueError: no picture"), (Exp, -300, "does not do all")):
        x = np.full((2, 9, 9, 3), size, "float32")
        net = nn.Sequential(layer(), nn.Conv2d(3, 3, 1)).initialize(seed=0)
        predictor = train.Predictor(net)
        assert_answers(predictor, net, [x] * 6)
        assert said in predictor.refused


def test_what_lists_hold_is_looked_at():
    net = nn.Sequential(Options()).initialize(seed=0)
    predictor, x = train.Predictor(net), images(2, 9)
    for change in (lambda: net[0].pads.__setitem__(0, 2), lambda: net[0].layers.__setitem__(0, nn.Conv2d(3, 3, 1))):
        for _ in range(8):
            assert predictor(x).tobytes() == net(x).tobytes()
        assert predictor.replays
        change()
        net[0].initialize(seed=len(net[0].pads))
        assert predictor(x).tobytes() == net(x).tobytes()
        assert not predictor.replays


@pytest.mark.parametrize("call", range(1, 6))
def test_weights_that_change_while_it_is_recorded_or_compared_do_not_end_replays(call):
    """As another thread may change them, while this one is in any of its first calls."""
    calls: list[int] = []

    class Amid(nn.Module):
        capturable = True

        def vjp(self, x, training=True, needs_input=True):
            calls.append(1)
            if len(calls) == call:
                net.load_state_dict({name: value + 1 for name, value in net.state_dict().items()})
            return ops.relu(x), lambda dy: dy

    net = nn.Sequential(nn.Conv2d(3, 4, 3), Amid(), nn.Conv2d(4, 2, 1)).initialize(seed=0)
    predictor, x = train.Predictor(net), np.ones((2, 9, 9, 3), "float32")
    for _ in range(12):
        predictor(x)
    assert predictor.refused == ""
    assert predictor.replays
    assert predictor(x).tobytes() == net(x).tobytes()
