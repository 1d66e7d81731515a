"""The CUDA Runtime by itself: streams in order, recordings, and data on their way from pinned memory.

Run with `PYTHONPATH=tests/emulated`, where a captured stream records and its graph runs, or on a GPU; elsewhere these
are reported as skipped.
"""

from __future__ import annotations

import itertools
import weakref
from collections import Counter

import numpy as np
import pytest
from recorded import Watch, data, emulated_only, network, same_bits  # noqa: F401 - a fixture

import xpconv
from xpconv import nn, train
from xpconv.nn import fusion
from xpconv.runtime import NotRecorded, runtime_of

cupy = pytest.importorskip("cupy")


def test_work_is_ordered_on_a_stream_of_its_own_and_the_current_one_comes_back():
    runtime = runtime_of(xpconv.backend.get("cupy"))
    outer = cupy.cuda.get_current_stream()
    with runtime.working():
        inner = cupy.cuda.get_current_stream()
        assert inner != outer
        with runtime.working():
            assert cupy.cuda.get_current_stream() == inner
    assert cupy.cuda.get_current_stream() == outer


@pytest.mark.parametrize(("dtype", "made"), [("float32", ("weight", "bias")), ("float16", ("scale", "bias"))])
def test_what_is_made_of_a_norm_on_one_stream_is_not_taken_on_another(dtype, made):
    """Which would not wait until it is made, nor until it is read before its memory goes."""
    with xpconv.use_backend("cupy"):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm(2)).initialize(seed=0).to(dtype=dtype)
    net(cupy.asarray(data(4)[0].astype(dtype)))
    here = fusion._joined(net[0], net[1])
    assert fusion._joined(net[0], net[1]) is here
    with runtime_of(xpconv.backend.get("cupy")).working():
        there = fusion._joined(net[0], net[1])
        assert fusion._joined(net[0], net[1]) is there
    for name in made:
        one, other = getattr(here, name), getattr(there, name)
        assert one is not other
        assert cupy.array_equal(one.value, other.value)


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


def test_the_memory_of_a_recording_goes_with_it_and_that_of_one_that_failed(monkeypatch):
    """A pool of CuPy's keeps what it was given back, even when nobody has the pool any more."""
    pools, runtime = [], runtime_of(xpconv.backend.get("cupy"))

    class Pool(cupy.cuda.MemoryPool):
        def __init__(self):
            super().__init__()
            self.freed = []
            pools.append(self)

        def free_all_blocks(self, stream=None):
            super().free_all_blocks()
            self.freed.append((self.total_bytes(), [one() for one in seen]))

    seen: list[weakref.ref] = []

    def work():
        y = cupy.zeros(1000) + 1
        seen.append(weakref.ref(y))
        return y

    def copied_back():
        y = work()
        return y.get()

    def failing():
        try:
            return copied_back()
        except Exception as error:
            raise ValueError("told in other words") from error

    monkeypatch.setattr(cupy.cuda, "MemoryPool", Pool)
    with runtime.working():
        recording = runtime.record(work)
        recording.replay()
        assert pools[0].freed == []
        del recording
        assert pools[0].freed == [(0, [None])]
        with pytest.raises(NotRecorded):
            runtime.record(failing)
    assert pools[1].freed == [(0, [None, None])]


def test_a_graph_that_goes_while_another_is_recorded_spoils_nothing_and_is_freed_after():
    runtime = runtime_of(xpconv.backend.get("cupy"))
    with runtime.working():
        x = cupy.ones(3)
        x * 2, x * 3  # compiled before
        graphs = [runtime.record(lambda: x * 2)]
        graphs[0].replay()
        memory = weakref.ref(graphs[0].result)
        second = runtime.record(lambda: (graphs.clear(), x * 3)[1])
        assert memory() is None
        second.replay()
        assert second.result.get().tolist() == [3, 3, 3]


@emulated_only
def test_a_training_step_waits_for_nothing_and_a_replay_is_one_launch():
    counts = cupy.emulation.counts
    found: list[Counter[str]] = []

    class Counting(train.Progress):
        def on_step(self, epoch: int, step: int) -> None:
            found.append(Counter(counts))

    with xpconv.use_backend("cupy"):
        counts["captured memory of the default pool"] = 0
        train.fit(network(), data(20), epochs=2, batch_size=5, progress=Counting())
    within = [(a, b) for i, (a, b) in enumerate(itertools.pairwise(found)) if i != 3]  # but between epochs
    assert all(a["synchronisations"] == b["synchronisations"] for a, b in within)
    assert found[-1]["graph launches"] - found[2]["graph launches"] == 5
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
