"""What xpconv costs before any arithmetic: the import, and the way from a public op to the engine's function.

    python bench/overhead.py --json bench/results/overhead.json

Imports are timed in fresh processes, in turns with `import numpy` alone. The way to the engine is timed with the
engine's function replaced by one that computes nothing; the least of many repeats counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from portable_conv import environment

from xpconv.atomic import replacing

CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def import_ms(rounds=15):
    """Median milliseconds that `import xpconv` adds to a process that has imported NumPy."""
    took = {"numpy": [], "numpy, xpconv": []}
    for _ in range(rounds):
        for names, times in took.items():
            out = subprocess.run([sys.executable, "-c", CODE.format(names)], capture_output=True, text=True, check=True)
            times.append(float(out.stdout))
    return 1e3 * (statistics.median(took["numpy, xpconv"]) - statistics.median(took["numpy"]))


def best(call, repeats=20, number=2000):
    """Least seconds per call: interruptions only ever add."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(number):
            call()
        times.append((time.perf_counter() - start) / number)
    return min(times)


def dispatch_us():
    """Least microseconds of each op with an engine that computes nothing."""
    import numpy as np

    from xpconv import ops
    from xpconv.dispatch import CHAINS, Primitive, engine_primitives

    x, w, b = np.ones((1, 4, 4, 2), "f"), np.ones((1, 1, 2, 2), "f"), np.ones(2, "f")
    nothing = {
        "relu": Primitive(lambda x, needs: (x, None)),
        "max_pool": Primitive(lambda x, needs, window, ties, return_indices: (x, None)),
        "conv_fprop": Primitive(lambda x, w, window, groups, epilogue: x),
    }
    tables = (engine_primitives(engine) for engine in CHAINS["numpy"])
    next(table for table in tables if not isinstance(table, str)).update(nothing)
    calls = {
        "relu": lambda: ops.relu(x),
        "max_pool": lambda: ops.max_pool(x, 2),
        "conv": lambda: ops.conv(x, w, b, padding="same"),
    }
    return {name: round(1e6 * best(call), 2) for name, call in calls.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    report = {"what": "cost before any arithmetic", **environment()}
    report |= {"import_adds_ms": round(import_ms(), 1), "dispatch_us": dispatch_us()}
    print(json.dumps(report, indent=2))
    if options.json:
        with replacing(options.json) as beside:
            beside.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
