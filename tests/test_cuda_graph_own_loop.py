"""Graphs of a loop of one's own, and of inference: the same numbers to the bit as calls one by one.

Run with `PYTHONPATH=tests/emulated`, where a captured stream records and its graph runs, or on a GPU; elsewhere these
are reported as skipped.
"""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from recorded import data, emulated_only, network, same_bits  # noqa: F401 - a fixture

import xpconv
from xpconv import nn, train
from xpconv.nn import fusion

cupy = pytest.importorskip("cupy")


def stacked() -> nn.Sequential:
    """Convolutions that take the norm behind them into their own pass at inference."""
    block = nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding="same"), nn.BatchNorm(4)), activation="relu")
    layers = nn.Conv2d(1, 4, 3, padding="same"), nn.BatchNorm(4), nn.ReLU(), block, nn.Flatten(), nn.Linear(None, 3)
    return nn.Sequential(*layers).initialize(seed=3)


def test_steps_of_a_loop_of_ones_own():
    x, labels = data()
    found = []
    for capture in (False, True):
        with xpconv.use_backend("cupy"):
            net = network()
            net(cupy.asarray(x[:1]))
            step = train.Step(net, train.Adam(1e-2), capture=capture)
            losses = [step(x[i % 4 * 5 :][:5], labels[i % 4 * 5 :][:5]) for i in range(8)]
            assert step.replays is capture
            found.append(([(float(loss), int(right)) for loss, right in losses], net.state_dict()))
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        assert np.array_equal(value.get(), found[1][1][name].get()), name


@pytest.mark.parametrize("made", [network, stacked])
def test_inference_is_replayed_to_the_bit_and_follows_what_is_learned(made):
    x, labels = data()
    with xpconv.use_backend("cupy"):
        net = made()
        predictor, optimizer = train.Predictor(net), train.SGD(0.1)
        for turn in range(3):
            for i in range(12):
                given = cupy.asarray(x[i : i + 5])
                assert np.array_equal(predictor(given).get(), net(given).get())
            assert predictor.replays, predictor.refused
            train.fit(net, (x, labels), epochs=1, batch_size=8, optimizer=optimizer, progress=False, seed=turn)
    assert predictor.refused == ""


@emulated_only
def test_nothing_is_used_for_the_first_time_while_inference_is_recorded():
    x, _ = data()
    for made in (network, stacked):
        cupy.emulation.used.clear()
        cupy.emulation.first_in_a_graph.clear()
        with xpconv.use_backend("cupy"):
            predictor = train.Predictor(made())
            for _ in range(4):
                predictor(x[:5])
        assert predictor.replays
        assert cupy.emulation.used
        assert cupy.emulation.first_in_a_graph == []


@emulated_only
def test_a_graph_holds_what_layers_have_made_of_their_weights():
    """Another stream, or another thread, makes its own of them, and what was kept before goes."""
    with xpconv.use_backend("cupy"):
        net = stacked()
        predictor = train.Predictor(net)
        for _ in range(4):
            predictor(data()[0][:5])
        made = [weakref.ref(joined.weights.weight.value) for joined in fusion.made_for(net)]
        fusion._kept.clear()
        next(iter(predictor._by_shape.values()))._recording._graph._steps.clear()  # an emulated kernel holds its arrays
        gc.collect()
        assert len(made) == 2
        assert all(array() is not None for array in made)
        del predictor
        gc.collect()
        assert all(array() is None for array in made)


@emulated_only
def test_a_replay_of_inference_waits_for_nothing():
    with xpconv.use_backend("cupy"):
        x, predictor = cupy.asarray(data()[0][:5]), train.Predictor(stacked())
        for _ in range(4):
            predictor(x)
        before = cupy.emulation.counts["synchronisations"]
        for _ in range(3):
            predictor(x)
        assert cupy.emulation.counts["synchronisations"] == before


def test_streams_that_take_turns_are_in_order_with_the_one_graph():
    x, answers = data()[0], []
    with xpconv.use_backend("cupy"):
        net = stacked()
        predictor, streams = train.Predictor(net), [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
        given = [cupy.asarray(x[i : i + 5]) for i in range(10)]
        cupy.cuda.Device().synchronize()
        for i, batch in enumerate(given):
            with streams[i % 2]:
                answers.append(predictor(batch))
        cupy.cuda.Device().synchronize()
        assert all(np.array_equal(y.get(), net(batch).get()) for y, batch in zip(answers, given, strict=True))


def test_predict_and_what_no_graph_can_hold():
    class Looking(nn.Module):
        def vjp(self, x, training=True, needs_input=True):
            assert float(x.sum()) != 0.5
            return x, lambda dy: dy

    x, _ = data(21)
    with xpconv.use_backend("cupy"):
        for net in (stacked(), nn.Sequential(Looking(), *stacked().children().values()).initialize(seed=3)):
            expected = np.concatenate([net(cupy.asarray(x[i : i + 1])).get() for i in range(21)])
            assert np.array_equal(train.predict(net, x, batch_size=1), expected)
        predictor = train.Predictor(net)
        for _ in range(4):
            predictor(x[:2])
    assert "captur" in predictor.refused
