"""Memory of outputs is used again, and never while anyone can still see it."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from apart import run

pytest.importorskip("numba")

from xpconv import ops
from xpconv.engines.numba import reuse
from xpconv.engines.numba.arrays import empty, place

SHAPE = (64, 1024)  # 256 KiB


@pytest.fixture
def outputs(monkeypatch):
    """A store of our own, for a MiB."""
    fresh = reuse.Reuse(2**20, threading.RLock())
    monkeypatch.setattr("xpconv.engines.numba.arrays.outputs", fresh)
    return fresh


def test_an_output_takes_the_memory_of_one_that_was_dropped(outputs):
    first = place(empty(SHAPE, "float32"))
    assert outputs.nbytes > 0
    second = empty(SHAPE, "float32")
    assert place(second) == first
    assert outputs.nbytes == 0


@pytest.mark.parametrize(
    "hold",
    [
        lambda y: y[3:],
        lambda y: y.T[5:],
        lambda y: y.view("int32"),
        lambda y: y.base,
        lambda y: memoryview(y),
        lambda y: np.asarray(y)[::2, None],
        lambda y: np.from_dlpack(y),
        lambda y: np.frombuffer(y, "float32"),
    ],
)
def test_who_holds_a_part_of_an_output_holds_its_memory(outputs, hold):
    y = empty(SHAPE, "float32")
    y[:] = 7
    held = hold(y)
    at = place(y)
    del y
    gc.collect()
    others = [empty(SHAPE, "float32") for _ in range(3)]
    assert at not in [place(other) for other in others]
    for other in others:
        other[:] = 1
    if isinstance(held, np.ndarray):
        assert np.all(held.view("float32") == 7)
    del held
    assert at in [place(empty(SHAPE, "float32"))]


def test_an_op_never_writes_where_an_earlier_result_lives():
    x = np.linspace(-1, 1, 2**17, dtype="float32").reshape(2, 256, 256)
    wanted = np.maximum(x, 0)
    results = [ops.relu(x) for _ in range(5)]
    for _ in range(5):
        ops.relu(-x)
    assert all(np.array_equal(y, wanted) for y in results)


def test_what_waits_is_bounded_and_what_was_not_asked_for_longest_goes_first(outputs):
    sizes = [2**18, 2**19, 2**18 + 2**16]
    for nbytes in sizes * 3:
        arrays = [empty((nbytes,), "uint8") for _ in range(2)]
        del arrays
        assert outputs.nbytes <= 2**20
    assert len(outputs._free[reuse._rounded(sizes[-1] + reuse._PAGE)]) == 2
    large = empty((2**21,), "uint8")
    del large
    assert outputs.nbytes <= 2**20


def test_sizes_are_rounded_up_by_an_eighth_at_most():
    for nbytes in [*range(reuse.LEAST, 3 * reuse.LEAST, 997), 10**6, 10**8, 2**30]:
        assert nbytes <= reuse._rounded(nbytes) <= nbytes * 9 / 8


def test_memory_that_runs_out_takes_back_what_waits(outputs, monkeypatch):
    del (y := [empty(SHAPE, "float32")])[:]
    assert y == []
    assert outputs.nbytes > 0
    real, refused = np.empty, []

    def scarce(*args, **options):
        if not refused:
            refused.append(args)
            raise MemoryError
        return real(*args, **options)

    monkeypatch.setattr(reuse.np, "empty", scarce)
    y = empty((2**19,), "uint8")
    assert y.shape == (2**19,)
    assert refused
    assert outputs.nbytes == 0


def test_an_output_that_is_dropped_while_its_thread_is_in_the_store_is_let_go(outputs):
    y, z = empty(SHAPE, "float32"), empty(SHAPE, "float32")
    with outputs._alone():
        del y  # as the collector might
        assert outputs.nbytes == 0
    del z
    assert outputs.nbytes > 0


def test_memory_that_was_lent_to_nobody_yet_is_no_trouble():
    half_made = reuse._kind(2**17)()
    del half_made


def test_many_threads_never_get_the_same_memory(outputs):
    wrong = []

    def work(number):
        for _ in range(200):
            y = empty(SHAPE, "float32")
            y[:] = number
            z = empty(SHAPE, "float32")
            z[:] = -number
            if not (np.all(y == number) and np.all(z == -number)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_array_that_outlives_the_interpreter_is_no_trouble():
    done = run(
        """
import numpy as np
from xpconv import ops
import xpconv
with xpconv.use_engine("numba"):
    y = ops.relu(np.ones((512, 512), "float32"))
    z = [ops.relu(np.ones((512, 512), "float32"))]
z.append(z)
print(float(y[0, 0]))
"""
    )
    assert (done.stdout, done.stderr) == ("1.0\n", "")
