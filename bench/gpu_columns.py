"""How near the kernel that lays windows out as rows (im2col) comes to the bandwidth of a copy.

    python bench/gpu_columns.py columns.json

Bytes are those of x, read once, and of the rows, written once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cupy

from xpconv import use_backend
from xpconv.atomic import replacing
from xpconv.bench.devices import cupy as devices
from xpconv.engines.cupy.columns import Sizes
from xpconv.window import conv_window

LAYERS = ((56, 64, 3, 1), (28, 128, 3, 1), (14, 256, 3, 1), (7, 512, 3, 1), (56, 128, 3, 2), (224, 3, 7, 2))
DTYPES = ("float16", "float32", "float64")


def measured(device, layer, batch, dtype):
    """Billions of bytes per second."""
    size, channels, kernel, stride = layer
    window = conv_window("conv", (size, size), (kernel, kernel), stride, kernel // 2)
    sizes, rows = Sizes(window, 1, channels, channels), batch * window.out[0] * window.out[1]
    x = cupy.ones((batch, size, size, channels), dtype)
    moved = (x.size + rows * sizes.step) * x.dtype.itemsize
    took = device.typical(lambda: sizes.gathered(x, 0, rows))
    return moved / took / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    with use_backend("cupy"):
        device = devices.device()
        copy = device.ceiling("float32")["gbytes_per_s"]
        rows = []
        for dtype in DTYPES:
            for layer in LAYERS:
                rate = measured(device, layer, options.batch, dtype)
                name = f"{layer[0]}² {layer[1]} {layer[2]}×{layer[2]} /{layer[3]}"
                row = {"layer": name, "batch": options.batch, "dtype": dtype}
                rows.append({**row, "gbytes_per_s": round(rate, 1), "of_copy": round(rate / copy, 3)})
                print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
        least = min(rows, key=lambda row: row["of_copy"])
        headline = (
            f"im2col at least {100 * least['of_copy']:.0f} % of a copy's rate ({least['layer']}, {least['dtype']})"
        )
        report = {"what": "im2col beside a copy", **device.facts(), "versions": devices.versions()}
        report |= {"copy_gbytes_per_s": copy, "headline": headline, "rows": rows}
        with replacing(options.json) as beside:
            beside.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
