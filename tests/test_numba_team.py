"""The team of threads: right answers whoever calls, the same bits for any number, and an end without a hang."""

from __future__ import annotations

import contextvars
import os
import threading
import time

import numpy as np
import pytest
from apart import run

import xpconv
from xpconv import ops

pytest.importorskip("numba")

from numba import cfunc, types

from xpconv.engines.numba import board as at
from xpconv.engines.numba import team
from xpconv.engines.numba.kernels.memory import SIGNATURE, pointers

numbers = pointers(types.int64)


@cfunc(SIGNATURE)
def note(args, task, slot):
    """Note the slot of each task, after some work."""
    waste = 0.0
    for i in range(2000):
        waste += 1.0 / (i + task + 1)
    numbers(args[0])[task] = slot + (1 if waste < 0 else 0)
    numbers(args[1])[task] += 1


def slots(tasks: int, threads: int) -> np.ndarray:
    """The slots that the tasks of a job were done in; each task was done once."""
    slot, times = np.full(tasks, -1), np.zeros(tasks, dtype=int)
    team.run(note.address, tasks, slot.ctypes.data, times.ctypes.data, threads=threads)
    assert (times == 1).all()
    return slot


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("tasks", [0, 1, 2, 5, 500])
def test_every_task_is_done_once_in_a_slot_below_the_threads(tasks, threads):
    slots(20, 8)  # a team larger than what is asked for next
    for _ in range(20):
        assert slots(tasks, threads).max(initial=0) < threads


def test_members_do_help():
    assert any(len(set(slots(500, 2))) == 2 for _ in range(100))


def at_once(call, threads: int = 6) -> None:
    """Call in several Python threads at once; the first failure is raised here."""
    failures = []

    def keep_calling():
        try:
            for _ in range(10):
                call()
        except BaseException as error:
            failures.append(error)

    callers = [threading.Thread(target=contextvars.copy_context().run, args=(keep_calling,)) for _ in range(threads)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    if failures:
        raise failures[0]


def test_many_python_threads_may_call_at_once():
    with xpconv.set_num_threads(3):
        at_once(lambda: slots(200, 3))


RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape, dtype="float32")


CALLS = {
    "conv": (ops.conv, (normal(4, 17, 15, 24), normal(3, 3, 24, 40), normal(40)), {"padding": 1, "activation": "relu"}),
    "conv, few channels": (ops.conv, (normal(4, 33, 31, 3), normal(5, 5, 3, 20)), {"stride": 2}),
    "conv, depthwise": (ops.conv, (normal(4, 33, 31, 48), normal(3, 3, 1, 48)), {"groups": 48, "padding": "same"}),
    "conv, 1x1": (ops.conv, (normal(4, 17, 15, 64), normal(1, 1, 64, 80)), {}),
    "conv, one row": (ops.conv, (normal(1, 7, 7, 256), normal(3, 3, 256, 256)), {"padding": 1}),
    "conv_transpose": (ops.conv_transpose, (normal(4, 17, 15, 24), normal(2, 2, 16, 24), normal(16)), {"stride": 2}),
    "linear": (ops.linear, (normal(300, 200), normal(200, 150), normal(150)), {"activation": "tanh"}),
    "max_pool": (ops.max_pool, (normal(4, 65, 63, 40), 3), {"stride": 2, "padding": 1}),
    "avg_pool": (ops.avg_pool, (normal(4, 65, 63, 40), 3), {"stride": 2, "padding": 1}),
    "global_avg_pool": (ops.global_avg_pool, (normal(4, 65, 63, 40),), {}),
    "batch_norm": (ops.batch_norm, (normal(8, 33, 31, 40), normal(40), normal(40)), {}),
    "dropout": (ops.dropout, (normal(300, 999), 0.3), {"key": (1, 2)}),
    "layer_norm": (ops.layer_norm, (normal(5000, 100), normal(100), normal(100)), {}),
    "group_norm": (ops.group_norm, (normal(8, 33, 31, 40), 8, normal(40), normal(40)), {}),
    "instance_norm, one image": (ops.instance_norm, (normal(1, 65, 63, 64), normal(64), normal(64)), {}),
    "silu": (ops.silu, (normal(700, 1000),), {}),
    "gelu": (ops.gelu, (normal(700, 1000),), {}),
    "prelu": (ops.prelu, (normal(8, 33, 31, 40), normal(40)), {}),
    "mse": (ops.mse, (normal(700, 1000), normal(700, 1000)), {}),
    "lp_pool": (ops.lp_pool, (normal(4, 65, 63, 40), 3), {"stride": 2, "padding": 1}),
    "max_unpool": (ops.max_unpool, (normal(2, 40, 40, 40), RNG.integers(0, 6400, (2, 40, 40, 40)), 80), {}),
    "softmax": (ops.softmax, (normal(5000, 100),), {}),
}


def results(name: str) -> list[np.ndarray]:
    op, args, options = CALLS[name]
    y, pullback = xpconv.vjp(op, *args, **options)
    return [y, *(g for g in pullback(np.sin(np.arange(y.size, dtype="float32")).reshape(y.shape)) if g is not None)]


@pytest.mark.parametrize("name", CALLS)
def test_any_number_of_threads_gives_the_same_bits(name):
    answers = []
    for threads in (1, 2, 8):
        with xpconv.set_num_threads(threads):
            answers += [results(name), results(name)]
    for answer in answers[1:]:
        for got, first in zip(answer, answers[0], strict=True):
            np.testing.assert_array_equal(got, first)


def test_ops_called_at_once_answer_as_they_do_alone():
    names = ("conv", "max_pool", "silu", "batch_norm")
    alone = {name: results(name) for name in names}
    turn = iter(range(1000))

    def compare():
        name = names[next(turn) % len(names)]
        for got, expected in zip(results(name), alone[name], strict=True):
            np.testing.assert_array_equal(got, expected)

    at_once(compare)


# -- the setting -------------------------------------------------------------------------------------------------------


def test_the_setting_holds_for_a_block():
    usual = team.num_threads()
    with xpconv.set_num_threads(5):
        assert team.num_threads() == team.threads_for(1e9) == 5
        assert team.threads_for(1e3) == 1
    assert team.num_threads() == usual


OP = """
import os, sys, threading, time
import numpy as np
import xpconv
from xpconv import ops

x = np.linspace(-1, 1, 2**20, dtype="float32")

def check():
    with xpconv.use_engine("numba"):
        assert np.array_equal(ops.relu(x), np.maximum(x, 0))

def members():
    return sum(thread.name.startswith("xpconv-") for thread in threading.enumerate())
"""


def test_the_environment_sets_the_threads():
    assert run(OP + "check(); print(members())", XPCONV_NUM_THREADS=3).stdout == "2\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinities here")
def test_a_process_on_one_core_makes_no_threads():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + OP + "check(); print(members())"
    assert run(code, XPCONV_NUM_THREADS=None).stdout == "0\n"


# -- ends and forks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "time.sleep(0.3)",
        "sys.exit(0)",
        "threading.Thread(target=lambda: [check() for _ in range(200)]).start()",
        "threading.Thread(target=lambda: [check() for _ in range(10**6)], daemon=True).start(); time.sleep(0.1)",
        "import atexit; atexit.register(check)",
    ],
    ids=["members spin", "members are parked", "exit", "in a job", "in a daemon's job", "an op at exit"],
)
def test_a_process_ends_at_once_and_in_silence(ending):
    done = run(OP + "check()\n" + ending, XPCONV_NUM_THREADS=4, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_op_that_is_first_called_at_exit_is_done_by_the_caller_alone():
    code = "import atexit\n" + OP + "atexit.register(lambda: (check(), print('done')))"
    assert run(code, XPCONV_NUM_THREADS=4, timeout=60).stdout == "done\n"


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads about

def forked():
    child = os.fork()
    if child == 0:
        check()
        sys.stdout.write(f"{members()} ")
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


BUSY = """
check()
stop = threading.Event()

def work():
    while not stop.is_set():
        check()

for _ in range(2):
    threading.Thread(target=work).start()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.parametrize(
    ("before", "after", "times"),
    [("check()", "", 2), ("", "", 2), (BUSY, "stop.set()", 20)],
    ids=["after a job", "before any", "while others are in jobs"],
)
def test_a_forked_child_has_a_team_of_its_own(before, after, times):
    code = f"{OP}{FORK}{before}\nfor _ in range({times}): forked()\ncheck()\n{after}"
    done = run(code, XPCONV_NUM_THREADS=3, timeout=100)
    assert done.stdout.split() == ["2"] * times
    assert done.stderr == ""


# -- what can go wrong while the team grows ----------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch):
    """A team that has not started yet; it is sent home afterwards."""
    monkeypatch.setattr(team, "_team", None)
    yield
    if team._team is not None:
        team._team.stop()


def test_where_no_thread_can_be_had_the_caller_does_it_all(fresh, monkeypatch):
    starts = []

    def start(thread):
        starts.append(thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    for _ in range(3):
        assert set(slots(50, 4)) == {0}
    assert len(starts) == 1, "it is not tried again at every call"


def test_an_interrupt_while_a_member_starts_takes_no_place_twice(fresh, monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        slots(50, 4)
    monkeypatch.setattr(threading.Thread, "start", start)
    allowed = affinity()
    for _ in range(20):
        assert slots(200, 4).max() < 4
        time.sleep(0.002)  # they park
    assert affinity() == allowed, "a member that could not tell who it is takes no CPU off us"
    assert len({thread.name for thread in team._team._threads}) == 3


def affinity() -> set[int]:
    """The CPUs that this thread may run on; none where the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


CPUS = affinity()


@pytest.mark.skipif(len(CPUS) < 2, reason="there is no other CPU to wake on, or this system does not tell")
def test_a_member_that_slept_on_our_cpu_wakes_on_another_and_may_then_run_everywhere_again():
    slots(20, 2)
    words, me, here = team.team(1)._at, at.MEMBERS, min(CPUS)
    thread = words[me + at.THREAD]
    wait_until(lambda: words[me + at.PARKED])
    try:
        os.sched_setaffinity(0, {here})
        words[me + at.CPU] = here
        slots(500, 2)
        elsewhere = {
            64 * i + bit for i in range(at.LINE) for bit in range(64) if words[me + at.ELSEWHERE + i] >> bit & 1
        }
        assert elsewhere == CPUS - {here}
        wait_until(lambda: os.sched_getaffinity(thread) == CPUS)
    finally:
        os.sched_setaffinity(0, CPUS)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
