"""Replayed inference is inference: the same bits, whatever changes in the network meanwhile."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import NETWORKS, assert_answers, batches, images, made, on

import xpconv
from xpconv import nn, train
from xpconv.nn import models
from xpconv.train.replayed_forward import ReplayedForward


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_answers_are_the_same_to_the_bit(name, dtype):
    net = made(name, dtype)
    predictor = train.Predictor(net)
    assert_answers(predictor, net, batches(7, 2, NETWORKS[name][1], dtype))
    assert predictor.replays, predictor.refused


def test_an_answer_is_ones_own():
    net = made("side by side")
    predictor, inputs = train.Predictor(net), batches(8, 2, (5, 5, 3))
    assert repr(predictor) == "<Predictor of Sequential, call by call so far>"
    answers = [predictor(x) for x in inputs]
    assert predictor.replays
    assert repr(predictor) == "<Predictor of Sequential, replayed>"
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
        assert_answers(predictor, net, batches(5, n))
        assert predictor.replays
    for n in (5, 4, 3, 2):
        assert_answers(predictor, net, batches(1, n))
        assert predictor.replays
    assert_answers(predictor, net, batches(1, 1))
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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, r"numbers\.\n  given: None\n  an array \(N, H, W, C\)"),
        ("cat.png", r"numbers\.\n  given: 'cat\.png'\n  a file becomes .*Image\.open\(path\)"),
        ([Path("cat.png"), Path("dog.png")], r"numbers\.\n  given: 'cat\.png' and others\n  a file"),
        (object(), r"numbers\.\n  given: of type object$"),
        ([images(1)[0], images(1, 4)[0]], r"of one shape\.\n  given: \(5, 5, 3\) and \(4, 4, 3\)\n  pad or crop"),
        ([[[1], [1, 2]]], r"of one shape\.\n  setting an array"),
    ],
)
def test_what_makes_no_images_is_told_by_what_it_is(given, said):
    with pytest.raises((TypeError, ValueError), match=rf"^Predictor: images must (all )?be {said}"):
        train.Predictor(nn.ReLU())(given)


def test_a_first_batch_of_any_strides_is_recorded():
    net = nn.Sequential(nn.Flatten(), nn.Linear(None, 3)).initialize(seed=0)
    predictor = train.Predictor(net)
    assert_answers(predictor, net, [np.asfortranarray(x) for x in batches(7)])
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
            assert_answers(predictor, net, [x] * 4)
    assert len(recorded) < 12
    assert_answers(predictor, net, batches(100, 8))
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
    assert_answers(predictor, net, inputs)
    other = copied(predictor)
    assert other.net is not net
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})
    assert_answers(other, other.net, inputs)
    assert_answers(predictor, net, inputs)


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
