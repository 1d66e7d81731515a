"""Replayed inference is inference: the same bits, whatever changes in the network meanwhile."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from nets import NETWORKS, examples, images, made, on

import xpconv
from xpconv import nn, ops, train
from xpconv.nn import models
from xpconv.train.replayed_forward import ReplayedForward


def batches(count: int, n: int = 2, shape: tuple[int, ...] = (9, 9, 3), dtype: str = "float32") -> list[np.ndarray]:
    return [x for x, _ in examples(shape, count, n, dtype)]


def assert_same(predictor: train.Predictor, net: nn.Module, inputs: list[np.ndarray]) -> None:
    for x in inputs:
        assert predictor(x).tobytes() == net(x).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_answers_are_the_same_to_the_bit(name, dtype):
    net = made(name, dtype)
    predictor = train.Predictor(net)
    assert_same(predictor, net, batches(7, 2, NETWORKS[name][1], dtype))
    assert predictor.replays, predictor.refused


def test_an_answer_is_ones_own():
    net = made("side by side")
    predictor, inputs = train.Predictor(net), batches(8, 2, (5, 5, 3))
    answers = [predictor(x) for x in inputs]
    assert predictor.replays
    expected = [net(x).tobytes() for x in inputs]
    assert [y.tobytes() for y in answers] == expected
    answers[-1][...] = 0
    assert predictor(inputs[0]).tobytes() == expected[0]


def test_what_changes_in_the_network_is_in_the_next_answer():
    net, inputs = made("side by side"), batches(60, 2, (5, 5, 3))
    predictor, optimizer, step = train.Predictor(net), train.SGD(0.1), iter(range(100))

    def train_on() -> None:
        y, pullback = net.vjp(inputs[next(step)], needs_input=False)
        pullback(y)
        optimizer.step(net.parameters())

    changes: list[Any] = [
        lambda: net.load_state_dict({k: v + 0.1 for k, v in net.state_dict().items()}),
        train_on,
        lambda: net.vjp(inputs[0]),  # moves the running statistics alone
        lambda: setattr(net, "head", nn.Linear(None, 4)),
        lambda: net.to(dtype="float64").to(dtype="float32"),
        lambda: setattr(net.block, "activation", "tanh"),
    ]
    found = []
    for change in changes:
        for _ in range(40):  # the calls as usual between two recordings grow
            x = inputs[next(step)] if len(found) < 3 else inputs[0]
            assert predictor(x).tobytes() == net(x).tobytes()
            if predictor.replays:
                break
        assert predictor.replays, predictor.refused
        before = net(inputs[0]).tobytes()
        change()
        found.append(predictor(inputs[0]).tobytes())
        assert found[-1] == net(inputs[0]).tobytes()
        assert found[-1] != before or change is changes[4]


def test_settings_of_another_kind_are_not_replayed():
    net, x = made("convolutions"), batches(1)[0]
    predictor = train.Predictor(net)
    for _ in range(5):
        predictor(x)
    assert predictor.replays
    with xpconv.use_engine("portable"):
        portable = net(x).tobytes()
        assert predictor(x).tobytes() == portable
    assert predictor(x).tobytes() == net(x).tobytes() != portable


def test_batches_of_several_shapes_and_the_oldest_goes():
    net = made("convolutions")
    predictor = train.Predictor(net)
    for n in (1, 2, 3, 4, 5):
        assert_same(predictor, net, batches(5, n))
        assert predictor.replays
    for n in (5, 4, 3, 2):
        assert_same(predictor, net, batches(1, n))
        assert predictor.replays
    assert_same(predictor, net, batches(1, 1))
    assert not predictor.replays


def test_images_of_other_libraries_and_dtypes():
    net = made("convolutions")
    predictor = train.Predictor(net)
    whole = np.random.default_rng(0).integers(0, 255, (2, 9, 9, 3), dtype=np.uint8)
    expected = net(whole.astype("float32")).tobytes()
    for given in (whole, whole.astype("float64"), whole.tolist(), whole[::1], np.asfortranarray(whole)) * 2:
        assert predictor(given).tobytes() == expected
    assert predictor.replays
    with pytest.raises(TypeError, match="images are complex"):
        predictor(whole * 1j)
    with pytest.raises(ValueError, match="channels"):
        predictor(whole[..., :2])
    with pytest.raises(TypeError, match=r"the network must be an nn\.Module"):
        train.Predictor(nn.ReLU)
    with pytest.raises(TypeError, match="images must be numbers"):
        train.Predictor(nn.ReLU())(None)


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
        (Constant, "a replay does not do all that inference does"),
    ],
)
def test_layers_of_ones_own(layer, said):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), layer()).initialize(seed=0)
    predictor, x = train.Predictor(net), np.ones((2, 9, 9, 3), "float32")
    for i in range(7):
        mine, usual = predictor(x * (1 if i < 5 else 3)), net(x * (1 if i < 5 else 3))
        for one, other in zip(mine, usual, strict=True):
            assert one.tobytes() == other.tobytes()
    assert said in predictor.refused
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
    assert_same(predictor, net, [x] * 5)
    assert predictor.replays, predictor.refused
    before = predictor(x).tobytes()
    change(net)
    assert before != predictor(x).tobytes() == net(x).tobytes()
    assert_same(predictor, net, [x] * 5)
    assert predictor.replays


def test_layers_that_nobody_can_look_at_are_not_recorded():
    class Nested(Doubled):
        def __init__(self) -> None:
            self.blocks = [[nn.Conv2d(32, 32, 3)]]

        def vjp(self, x, training=True, needs_input=True):
            return self.blocks[0][0](x), lambda dy: dy

    net, x = nn.Sequential(nn.Conv2d(3, 32, 1), Nested()).initialize(seed=0), images(2, 9)
    predictor = train.Predictor(net)
    assert_same(predictor, net, [x] * 5)
    weight = net[1].blocks[0][0].weight
    weight.assign(2 * weight.value)
    assert_same(predictor, net, [x])
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

    for layer, x in ((Root, np.full((2, 9, 9, 3), 200, "float32")), (Exp, np.full((2, 9, 9, 3), -300, "float32"))):
        net = nn.Sequential(layer(), nn.Conv2d(3, 3, 1)).initialize(seed=0)
        predictor = train.Predictor(net)
        assert_same(predictor, net, [x] * 6)
        assert "a replay does not do all" in predictor.refused


def test_a_first_batch_of_any_strides_is_recorded():
    net = nn.Sequential(nn.Flatten(), nn.Linear(None, 3)).initialize(seed=0)
    predictor = train.Predictor(net)
    assert_same(predictor, net, [np.asfortranarray(x) for x in batches(7)])
    assert predictor.replays, predictor.refused


@pytest.mark.parametrize("layer", [nn.Identity, nn.Flatten, nn.Dropout])
def test_an_answer_is_never_the_images(layer):
    predictor = train.Predictor(nn.Sequential(layer()))
    for x in (*batches(5), batches(1, 4)[0][::2]):
        y = predictor(x)
        assert y.tobytes() == x.tobytes()
        assert not np.shares_memory(x, y)


def test_many_shapes_in_turn_do_not_push_each_other_out(monkeypatch):
    net, recorded = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()).initialize(seed=0), []
    monkeypatch.setattr(ReplayedForward, "check", lambda self: recorded.append(1))
    predictor, inputs = train.Predictor(net), [batches(1, n)[0] for n in range(1, 7)]
    for _ in range(20):
        for x in inputs:
            assert_same(predictor, net, [x] * 4)
    assert len(recorded) < 12
    assert_same(predictor, net, batches(100, 8))
    assert predictor.replays, "in the end a new shape has its turn"


def test_recordings_that_have_paid_are_made_again_soon(monkeypatch):
    net, x, recorded = made("side by side"), images(2), []
    monkeypatch.setattr(ReplayedForward, "check", lambda self: recorded.append(1))
    for often, most in ((3, 8), (80, 100)):
        recorded.clear()
        predictor = train.Predictor(net)
        for _ in range(20):
            net.load_state_dict(net.state_dict())
            for _ in range(often):
                predictor(x)
        assert len(recorded) <= most
    assert len(recorded) == 20


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


def test_threads_share_one():
    net, inputs = made("resnet20"), batches(12, 1, NETWORKS["resnet20"][1])
    predictor, expected = train.Predictor(net), [net(x).tobytes() for x in inputs]
    faults: list[Any] = []

    def serve() -> None:
        for _ in range(20):
            for x, y in zip(inputs, expected, strict=True):
                if predictor(x).tobytes() != y:
                    faults.append("another answer")

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert predictor.replays


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_is_of_its_own(copied):
    net = models.lenet().initialize(seed=0)
    predictor, inputs = train.Predictor(net), batches(6, 2, (28, 28, 1))
    assert_same(predictor, net, inputs)
    other = copied(predictor)
    assert other.net is not net
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})
    assert_same(other, other.net, inputs)
    assert_same(predictor, net, inputs)


@pytest.mark.parametrize("backend", ["array_api_strict", "torch"])
def test_other_libraries_answer_as_usual(backend):
    with on(backend):
        net = nn.Sequential(nn.Conv2d(3, 2, 3)).initialize(seed=0)
        predictor = train.Predictor(net)
        for _ in range(5):
            y = predictor(images())
        assert xpconv.to_numpy(y).tobytes() == xpconv.to_numpy(net(xpconv.asarray(images()))).tobytes()
    assert not predictor.replays


def test_many_batches_are_replayed_by_predict_and_evaluate(monkeypatch):
    net, x = made("side by side"), images(35)
    labels, replays = np.arange(35) % 5, []
    replay = ReplayedForward.replay
    monkeypatch.setattr(ReplayedForward, "replay", lambda *args: replays.append(1) or replay(*args))
    usual = np.concatenate([net(x[i : i + 2]) for i in range(0, 35, 2)])
    assert train.predict(net, x, batch_size=2).tobytes() == usual.tobytes()
    assert len(replays) == 17 - 3, "two as usual, one that is recorded; the last batch is smaller"
    usual = np.concatenate([net(x[i : i + 3]) for i in range(0, 35, 3)])
    assert train.predict(net, x, batch_size=3).tobytes() == usual.tobytes()
    assert len(replays) == 14, "so few batches are not worth it"
    few = train.evaluate(net, (x, labels), batch_size=35)
    many = train.evaluate(net, (x, labels), batch_size=2)
    assert len(replays) == 28
    assert many.accuracy == few.accuracy
    assert abs(many.loss - few.loss) < 1e-6
