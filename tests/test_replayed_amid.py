"""Replays amid what else goes on: interrupts, threads, forks, recordings within recordings, memory to be given back."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from nets import images, made

import xpconv
from xpconv import nn, ops, runtime, train

pytest.importorskip("numba")

LABELS = [0, 1]


def small() -> nn.Module:
    """A norm that is folded at inference, and weights that are packed: both are stale where a change goes unnoticed."""
    layers = nn.Conv2d(3, 32, 3), nn.BatchNorm(), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.GlobalAvgPool()
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(None, 3)).initialize(seed=0)
    net(images(2, 12))
    return net


def twin(net: nn.Module) -> nn.Module:
    """Another network with the same values, of which nothing is kept."""
    other = small()
    other.load_state_dict(net.state_dict())
    return other


def interrupted(at: int, work: Callable[[], Any]) -> bool:
    """Press Ctrl-C as a function of `train` is called for the so many-th time; whether there were so many."""
    left = at

    def press(frame: Any, event: str, arg: object) -> None:
        nonlocal left
        code = frame.f_code
        if event == "call" and "/xpconv/train/" in code.co_filename and code.co_name != "<genexpr>":  # which may end
            left -= 1
            if not left:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(press)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def test_ctrl_c_anywhere_leaves_a_predictor_whole():
    net, x = small(), images(2, 12)
    expected, count = net(x).tobytes(), 0

    def answers() -> list[bytes]:
        return [predictor(x).tobytes() for _ in range(6)]

    while True:
        count += 3  # of several hundred
        predictor = train.Predictor(net)
        if not interrupted(count, answers):
            break
        assert not runtime.recorders
        assert set(answers()) == {expected}
        assert predictor.replays, (count, predictor.refused)
    assert count > 50


def test_ctrl_c_anywhere_leaves_a_step_that_goes_on():
    x, count = images(2, 12), 0
    while True:
        count += 29  # of more than a thousand
        net = small()
        step = train.Step(net, train.Adam(1e-3))

        def learn(step: train.Step = step, net: nn.Module = net) -> None:
            for _ in range(6):
                step(x, LABELS)
                net(x)  # keeps what it has packed

        if not interrupted(count, learn):
            break
        assert not runtime.recorders
        assert step.optimizer.lr == 1e-3
        assert isinstance(step.optimizer.steps, int)
        assert net(x).tobytes() == twin(net)(x).tobytes(), count
        learn()
        assert step.replays, (count, step.refused)
        assert net(x).tobytes() == twin(net)(x).tobytes()
    assert count > 500


def test_ctrl_c_while_compiled_code_runs_is_told_after_the_step(monkeypatch):
    net, x = small(), images(2, 12)
    step = train.Step(net, train.SGD(0.1))
    for _ in range(5):
        step(x, LABELS)
    before, recording = net(x).tobytes(), step._ways.replayed._recording
    replay = recording.replay

    def pressed() -> None:
        replay()
        raise KeyboardInterrupt

    monkeypatch.setattr(recording, "replay", pressed)
    with pytest.raises(KeyboardInterrupt):
        step(x, LABELS)
    assert step.optimizer.steps == 6
    assert before != net(x).tobytes() == twin(net)(x).tobytes()


def test_threads_that_begin_together():
    net, inputs, faults = made("lenet"), [images(n, 28, 1) for n in range(1, 7)], []
    expected = [net(x).tobytes() for x in inputs]

    def ask(i: int) -> None:
        ready.wait()
        try:
            faults.extend("another answer" for _ in range(8) if predictor(inputs[i]).tobytes() != expected[i])
        except Exception as error:
            faults.append(repr(error))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            predictor, ready = train.Predictor(net), threading.Barrier(len(inputs))
            threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(inputs))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not faults


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_records_for_no_thread_of_its_parents():
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        leave.wait()

    thread = threading.Thread(target=lambda: runtime.runtime_of(xpconv.backend.get("numpy")).record(work))
    thread.start()
    entered.wait()
    child = os.fork()
    if not child:
        os._exit(len(runtime.recorders))
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


class Within(nn.Module):
    """A layer that asks a predictor."""

    capturable = True

    def __init__(self) -> None:
        self.inner = nn.Conv2d(32, 32, 3)
        self._ask = train.Predictor(self.inner)

    def vjp(self, x, training=True, needs_input=True):
        return self._ask(x), lambda dy: dy


def test_a_predictor_within_what_is_recorded_takes_part_in_it():
    net, x = nn.Sequential(nn.Conv2d(3, 32, 3), Within(), nn.ReLU()).initialize(seed=0), images(2, 12)
    predictor = train.Predictor(net)
    for change in (None, lambda: net[1].inner.weight.assign(2 * net[1].inner.weight.value)):
        if change is not None:
            change()
        for i in range(6):
            assert predictor(x * i).tobytes() == ops.relu(net[1].inner(net[0](x * i))).tobytes()
        assert predictor.replays, predictor.refused


def test_what_is_dropped_is_gone_at_once_and_forks_learn_of_nothing(monkeypatch):
    known: list[Any] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **calls: known.append(calls))
    net, x = small(), images(2, 12)
    gc.disable()
    try:
        for _ in range(2):
            predictor, step = train.Predictor(net), train.Step(net, train.SGD(0.0))
            for _ in range(5):
                predictor(x)
            for _ in range(5):
                step(x, LABELS)
            recordings = [weakref.ref(next(iter(predictor._by_shape.values()))._recording)]
            recordings.append(weakref.ref(step._ways.replayed._recording))
            assert all(recording() is not None for recording in recordings)
            del predictor, step
            assert all(recording() is None for recording in recordings)
    finally:
        gc.enable()
    assert known == []
