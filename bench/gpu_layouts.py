"""Which storage cuDNN is faster in, channels last or first, where tensor cores are barred: true float32, and float64.

    python bench/gpu_layouts.py layouts.json

For 3 x 3 and 1 x 1 layers of ResNet-50 and each direction, the fastest of the plans that the engine may take in either
storage, and what it costs to convert images by CuPy's copies: why `autotune` chooses as it does. Times are the least of
some batches of launches between events.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
from functools import partial

import cupy
import numpy as np

from xpconv.atomic import replacing
from xpconv.bench.devices import cupy as devices
from xpconv.engines.cudnn import library, plans
from xpconv.engines.cudnn.layouts import NCHW, NHWC, image
from xpconv.engines.cudnn.problem import Problem
from xpconv.window import conv_window

BATCH = 64
LAYERS = ((56, 64, 64, 3), (28, 128, 128, 3), (14, 256, 256, 3), (7, 512, 512, 3), (56, 64, 256, 1), (14, 1024, 256, 1))
DIRECTIONS = ("fprop", "dgrad", "wgrad")
TYPES = ("float32", "float64")
PLANS, LAUNCHES, REPEATS = 6, 3, 2  # a row takes about a second
LIMIT = 2**33  # bytes of workspace


def problem_of(layer, direction, dtype):
    """A layer's convolution in one direction, with nothing fused to it, in our storage."""
    size, channels, outputs, kernel = layer
    window = conv_window("conv", (size, size), (kernel, kernel), 1, kernel // 2)
    sizes = {"images": BATCH, "channels": channels, "outputs": outputs, "groups": 1, "window": window}
    fused = {"scale": False, "bias": False, "residual": False, "activation": None, "keep_sums": False}
    settings = {"precision": "ieee", "deterministic": False, "workspace_limit": LIMIT, "autotune": False, "device": 0}
    return Problem(direction, dtype, **sizes, **fused, **settings)


def seconds(device, call):
    """Least seconds of a call."""
    device.batch(call, 1)
    return min(device.batch(call, LAUNCHES)[0] for _ in range(REPEATS))


def fastest(device, problem, arrays):
    """The fastest plan: its time, its workspace and its name; or why there is none."""
    found, reason = [], "no plan is proposed"
    for way in itertools.islice(plans.ways(problem, library.place(0)), PLANS):
        try:
            found.append((seconds(device, partial(way.run, *arrays)), way))
        except library.Refusal as error:
            reason = str(error).splitlines()[0][:120]
    if not found:
        return {"refused": reason}
    took, way = min(found, key=lambda each: each[0])
    return {"ms": round(1e3 * took, 4), "workspace_bytes": way.workspace, "plan": way.name}


def conversion(device, dims, dtype):
    """Seconds of a copy from channels last to first."""
    n, c, h, w = dims
    return seconds(device, partial(image, cupy.zeros((n, h, w, c), dtype), NCHW))


def measured(device, layer, direction, dtype):
    """One row."""
    size, c, k, kernel = layer
    problem = problem_of(layer, direction, dtype)
    x, w, y = problem.x, problem.w, problem.y
    operands = {"fprop": (x, w, y), "dgrad": (y, w, x), "wgrad": (x, y, w)}[direction]
    values = cupy.asarray(np.random.default_rng(0).standard_normal(1_000_003).astype(dtype))
    arrays = [cupy.resize(values, math.prod(dims)) for dims in operands]
    row = {"layer": f"{size}² {c}→{k} {kernel}×{kernel}", "direction": direction, "dtype": dtype}
    for layout in (NHWC, NCHW):
        row[layout.lower()] = fastest(device, problem._replace(layout=layout), arrays)
    row["conversion_ms"] = round(1e3 * sum(conversion(device, dims, dtype) for dims in (x, y)), 4)
    return row


def compared(rows):
    """NHWC's time over NCHW's, without the conversions and with them."""
    both = [row for row in rows if "ms" in row["nhwc"] and "ms" in row["nchw"]]
    if not both:
        return "no plan"
    times = [(row["nhwc"]["ms"], row["nchw"]["ms"], row["conversion_ms"]) for row in both]
    alone = statistics.geometric_mean(last / first for last, first, _ in times)
    whole = statistics.geometric_mean(last / (first + copies) for last, first, copies in times)
    return f"{alone:.2f}, with conversions {whole:.2f}, in {len(both)} rows"


def main():
    device = devices.device()
    report = {"what": "cuDNN in two storages", "batch": BATCH, **device.facts(), "versions": devices.versions()}
    rows = report["rows"] = []
    for dtype, layer, direction in itertools.product(TYPES, LAYERS, DIRECTIONS):
        rows.append(measured(device, layer, direction, dtype))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
        report["headline"] = f"NHWC's time over NCHW's: {compared(rows)}"
        with replacing(sys.argv[1]) as beside:
            beside.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
