"""What recorded steps take of memory, while they are made and compared, and what they keep."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from nets import examples, made
from taken import assert_same, stepped

from xpconv import nn, train

engine = pytest.importorskip("xpconv.engines.numba")


def test_a_step_whose_memory_is_too_much_to_keep_is_done_once_and_not_kept(monkeypatch):
    monkeypatch.setattr(engine.reuse, "memory", lambda: 2**20)
    batches = examples((28, 28, 1), n=64)
    runs = [stepped(made("lenet"), batches, capture) for capture in (True, False)]
    assert "MiB, would be kept" in runs[0][2]
    assert_same(*runs)


def test_the_comparison_takes_little_beside_copies_of_weights_and_slots():
    net, batches = nn.Sequential(nn.Linear(2048, 1024), nn.Linear(None, 3)).initialize(seed=1), examples((2048,))
    peaks = []
    for capture in (False, True):
        tracemalloc.start()
        run = stepped(net, batches, capture, train.SGD(1e-3, momentum=0.9))
        peaks.append(tracemalloc.get_traced_memory()[1] / net[0].weight.value.nbytes)
        tracemalloc.stop()
    assert run[2] == ""
    assert peaks[1] < peaks[0] + 2 + 1.5, "a copy of weights and slots, and the gradient's memory, which is kept"


_GROWS = """
import numpy as np
from xpconv import nn, train

def most():  # what getrusage tells may be the parent's
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

net = nn.Sequential(*(nn.Conv2d(None, 16, 1, activation="relu") for _ in range(12)), nn.GlobalAvgPool(), nn.Flatten())
x, labels = np.ones((32, 32, 32, 16), "float32"), np.zeros(32, int)
step = train.Step(net.initialize(seed=0), train.SGD(0.1))
for _ in range(5):  # compiles
    step(x[:2], labels[:2])
before = most()
for _ in range(2):
    step(x, labels)
usual = most() - before
for _ in range(4):
    step(x, labels)
assert step.replays, step.refused
print((most() - before) / usual)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells of memory there")
def test_no_activations_lie_beside_those_that_a_recording_keeps():
    done = subprocess.run([sys.executable, "-c", _GROWS], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert float(done.stdout) < 1.2, "it would be 2, were a step as usual taken beside the recording"
