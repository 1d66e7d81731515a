"""The portable engine beside PyTorch and the reference loops: 3x3 convolutions of ResNet, forward.

    python bench/portable_conv.py --json bench/results/portable_conv.json

Each side lives in a process of its own and sleeps while the other is timed; they take turns, and medians count.
PyTorch is given the better of its two memory formats. The reference loops take seconds: they run once, on one image,
for which the portable engine is timed anew, so that their ratio is measured and not scaled. An answer outside the bound
is refused a time.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib import metadata
from pathlib import Path

# (images, height = width, input channels, output channels)
SHAPES = [(8, 56, 64, 64), (8, 28, 128, 128), (8, 14, 256, 256), (8, 28, 512, 512), (8, 224, 64, 64), (8, 7, 512, 512)]
ROUNDS = 9


def arrays(shape):
    import numpy as np

    n, size, c, o = shape
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, size, size, c), dtype="f"), rng.standard_normal((3, 3, c, o), dtype="f")


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def xpconv_side(shape, engine):
    import xpconv
    from xpconv import ops

    x, w = arrays(shape)
    xpconv.use_engine(engine)
    return [lambda: ops.conv(x, w, padding=1)]


def torch_side(shape, _):
    import torch

    x, w = (torch.from_numpy(a) for a in arrays(shape))
    torch.set_grad_enabled(False)
    x, w = x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1)
    formats = (torch.contiguous_format, torch.channels_last)
    pairs = [(x.contiguous(memory_format=f), w.contiguous(memory_format=f)) for f in formats]
    return [lambda x=x, w=w: torch.nn.functional.conv2d(x, w, padding=1) for x, w in pairs]


def error(shape):
    """Largest error in units of the bound, against PyTorch in float64 on one image."""
    import numpy as np
    import torch

    from xpconv import ops
    from xpconv.parity.bounds import permitted

    x, w = arrays(shape)
    got = ops.conv(x[:1], w, padding=1)

    def exact(x, w):
        x, w = (torch.from_numpy(a.astype("float64")) for a in (x, w))
        y = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), padding=1)
        return y.permute(0, 2, 3, 1).numpy()

    true = exact(x[:1], w)
    scale = math.sqrt(9 * shape[2]) * exact(np.abs(x[:1]), np.abs(w)).max(axis=(1, 2), keepdims=True)
    return float((np.abs(got - true) / permitted(scale, true, "float32")).max())


SIDES = {"xpconv": xpconv_side, "torch": torch_side}


def serve(pipe, side, shape, argument):
    """Time one round of every candidate each time the parent asks."""
    calls = SIDES[side](shape, argument)
    for call in calls:
        call()
    while pipe.recv():
        pipe.send([timed(call) for call in calls])


class Side:
    def __init__(self, side, shape, argument=None):
        context = multiprocessing.get_context("spawn")
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=serve, args=(child, side, shape, argument))
        self.process.start()
        self.rounds = []

    def turn(self):
        self.pipe.send(True)
        self.rounds.append(self.pipe.recv())

    def best_median(self):
        return min(statistics.median(times) for times in zip(*self.rounds, strict=True))

    def close(self):
        self.pipe.send(False)
        self.process.join()


def in_turns(sides, rounds):
    for _ in range(rounds):
        for side in sides:
            side.turn()
    for side in sides:
        side.close()
    return [side.best_median() for side in sides]


def measure(shape):
    n, size, c, o = shape
    off = error(shape)
    row = {"images": n, "size": size, "in": c, "out": o, "error_in_bounds": round(off, 3)}
    if off > 1:
        return {**row, "refused": "the answer lies outside the bound"}
    ours, theirs = in_turns([Side("xpconv", shape, "portable"), Side("torch", shape)], ROUNDS)
    single = (1, *shape[1:])
    (one,) = in_turns([Side("xpconv", single, "portable")], ROUNDS)
    (loops,) = in_turns([Side("xpconv", single, "reference")], 1)
    gflop = 2 * n * size * size * 9 * c * o / 1e9
    return {
        **row,
        "portable_ms": round(ours * 1e3, 3),
        "torch_ms": round(theirs * 1e3, 3),
        "portable_gflops": round(gflop / ours, 1),
        "torch_gflops": round(gflop / theirs, 1),
        "speed_over_torch": round(theirs / ours, 3),
        "one_image_portable_ms": round(one * 1e3, 3),
        "one_image_reference_ms": round(loops * 1e3, 1),
        "speed_over_reference": round(loops / one),
    }


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def environment():
    import xpconv

    versions = {"xpconv": xpconv.__version__, **{name: metadata.version(name) for name in ("numpy", "torch")}}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "date": date.today().isoformat(),
        "commit": commit,
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **versions,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--only", type=int, nargs="*", help="indices of the shapes to run")
    options = parser.parse_args()
    rows = []
    for i, shape in enumerate(SHAPES):
        if options.only is None or i in options.only:
            rows.append(measure(shape))
            print(json.dumps(rows[-1]), flush=True)
    kept = [row for row in rows if "refused" not in row]
    summary = {
        "geometric_mean_speed_over_torch": round(statistics.geometric_mean(r["speed_over_torch"] for r in kept), 3),
        "least_speed_over_torch": min(r["speed_over_torch"] for r in kept),
        "least_speed_over_reference": min(r["speed_over_reference"] for r in kept),
    }
    print(json.dumps(summary))
    if options.json:
        report = {"what": "3x3 convolution, forward, float32, NumPy arrays", **environment(), **summary, "rows": rows}
        from xpconv.atomic import replacing

        with replacing(options.json) as beside:
            beside.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
