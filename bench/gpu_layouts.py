"""Which storage cuDNN is faster in, channels last or first, where tensor cores are barred: true float32, and float64.

    python bench/gpu_layouts.py layouts.json

For 3 x 3 and 1 x 1 layers of ResNet-50 and each direction, the fastest of the plans that the library proposes for
either storage, and what it costs to convert what goes in and what comes out by CuPy's copies. Times are the least of
some batches of launches between events.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys

import cudnn
import cupy
import numpy as np

from xpconv.atomic import replacing
from xpconv.bench.devices import cupy as devices
from xpconv.engines.cudnn import library

BATCH = 64
LAYERS = ((56, 64, 64, 3), (28, 128, 128, 3), (14, 256, 256, 3), (7, 512, 512, 3), (56, 64, 256, 1), (14, 1024, 256, 1))
DIRECTIONS = ("fprop", "dgrad", "wgrad")
TYPES = {"float32": ("FLOAT", "FLOAT"), "float64": ("DOUBLE", "DOUBLE")}
PLANS, LAUNCHES, REPEATS = 6, 3, 2  # a row takes about a second


def strides(dims, channels_last):
    """Of (N, C, H, W)."""
    _, c, h, w = dims
    return [c * h * w, 1, w * c, c] if channels_last else [c * h * w, h * w, w, 1]


def graph_of(direction, dtype, x, w, y, padding, channels_last, handle):
    """The library's graph with its plans, without those that round float32 to fewer bits."""
    io, wide = (getattr(cudnn.data_type, name) for name in TYPES[dtype])
    graph = cudnn.pygraph(io_data_type=io, intermediate_data_type=wide, compute_data_type=wide, handle=handle)
    both = {"pre_padding": [padding] * 2, "post_padding": [padding] * 2, "stride": [1, 1], "dilation": [1, 1]}

    def operand(uid, dims):
        return graph.tensor(name=f"t{uid}", uid=uid, dim=list(dims), stride=strides(dims, channels_last), data_type=io)

    if direction == "fprop":
        out, dims = graph.conv_fprop(image=operand(1, x), weight=operand(2, w), **both), y
    elif direction == "dgrad":
        out, dims = graph.conv_dgrad(loss=operand(1, y), filter=operand(2, w), **both), x
    else:
        out, dims = graph.conv_wgrad(image=operand(1, x), loss=operand(2, y), **both), w
    out.set_output(True).set_data_type(io).set_uid(3).set_dim(list(dims)).set_stride(strides(dims, channels_last))
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    ranked = library.backend_graph(graph)
    note = cudnn.numerical_note
    ranked.deselect_numeric_notes([note.TENSOR_CORE, note.DOWN_CONVERT_INPUTS] if dtype == "float32" else [])
    return ranked


def seconds(device, call):
    """Least seconds of a call."""
    device.batch(call, 1)
    return min(device.batch(call, LAUNCHES)[0] for _ in range(REPEATS))


def fastest(device, graph, arrays, handle):
    """The fastest plan: its seconds, its workspace and its name; or why there is none."""
    pointers = {uid: array.data.ptr for uid, array in enumerate(arrays, 1)}
    found, reason = [], "no plan is proposed"
    for index in range(min(PLANS, graph.get_execution_plan_count())):
        try:
            graph.build_plan_at_index(index)
            size = graph.get_workspace_size_plan_at_index(index)
            scratch = cupy.empty(max(1, size), "uint8")
            took = seconds(device, lambda: library.execute(graph, pointers, scratch.data.ptr, index, handle))  # noqa: B023
        except library.Refusal as error:
            reason = str(error).splitlines()[0][:120]
            continue
        found.append((took, size, graph.get_plan_name_at_index(index)))
    return min(found) if found else reason


def conversion(device, dims, dtype):
    """Seconds of a copy from channels last to first."""
    n, c, h, w = dims
    x = cupy.zeros((n, h, w, c), dtype)
    return seconds(device, lambda: cupy.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def measured(device, layer, direction, dtype):
    """One row."""
    size, c, k, kernel = layer
    x, w, y = (BATCH, c, size, size), (k, c, kernel, kernel), (BATCH, k, size, size)
    operands = {"fprop": (x, w, y), "dgrad": (y, w, x), "wgrad": (x, y, w)}[direction]
    made, number = library.place(0)["handle"], library.handle(0)
    values = cupy.asarray(np.random.default_rng(0).standard_normal(1_000_003).astype(dtype))
    arrays = [cupy.resize(values, math.prod(dims)) for dims in operands]
    row = {"layer": f"{size}² {c}→{k} {kernel}×{kernel}", "direction": direction, "dtype": dtype}
    for name, channels_last in (("nhwc", True), ("nchw", False)):
        graph = graph_of(direction, dtype, x, w, y, kernel // 2, channels_last, made)
        best = fastest(device, graph, arrays, number)
        if isinstance(best, str):
            row[name] = {"refused": best}
        else:
            row[name] = {"ms": round(1e3 * best[0], 4), "workspace_bytes": best[1], "plan": best[2]}
    row["conversion_ms"] = round(1e3 * sum(conversion(device, dims, dtype) for dims in operands), 4)
    return row


def main():
    device = devices.device()
    report = {"what": "cuDNN in two storages", "batch": BATCH, **device.facts(), "versions": devices.versions()}
    rows = report["rows"] = []
    for dtype, layer, direction in itertools.product(TYPES, LAYERS, DIRECTIONS):
        rows.append(measured(device, layer, direction, dtype))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
        ratios = [r["nhwc"]["ms"] / r["nchw"]["ms"] for r in rows if "ms" in r["nhwc"] and "ms" in r["nchw"]]
        mean = f"{statistics.geometric_mean(ratios):.2f} in {len(ratios)} rows" if ratios else "no plan"
        report["headline"] = f"NHWC's time over NCHW's: {mean}"
        with replacing(sys.argv[1]) as beside:
            beside.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
