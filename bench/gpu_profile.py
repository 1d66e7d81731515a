"""Where the time of a training step goes: each primitive on each engine, on the device and on the host.

    python bench/gpu_profile.py profile.json --model lenet,resnet20,resnet50 --batch 128

Every primitive that the dispatcher hands out is put between two events, forward and backward. The device is kept busy
beforehand with a kernel that only waits, as long as the host needs for the whole step, so that device times hold no
gaps. What lies outside all primitives (sums of gradients, what the loop does) is the rest. On a GPU a step's time under
cupyx.profiler is told beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import cupy

from xpconv import dispatch, use_backend
from xpconv.atomic import replacing
from xpconv.bench.case import Case
from xpconv.bench.devices import cupy as devices
from xpconv.bench.sets import SETS
from xpconv.bench.sides import ours

WAIT = r"""
extern "C" __global__ void wait(long long cycles)
{
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""
WARM_UP, STEPS = 5, 10


class Watch:
    """Events and host times around what the dispatcher hands out."""

    def __init__(self, device) -> None:
        self.device, self.spans, self.depth = device, [], 0

    def around(self, name, call):
        """The same call, noted; one inside another belongs to the outer."""

        def noted(*args, **kwargs):
            if self.depth:
                return call(*args, **kwargs)
            self.depth += 1
            first, started = self.device.record(), time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.depth -= 1
                self.spans.append((name, first, self.device.record(), time.perf_counter() - started))

        return noted

    def __enter__(self):
        self._offer = dispatch._offer

        def offer(engine, name, arrays, options):
            primitive, reason = self._offer(engine, name, arrays, options)
            if reason is None:
                backward = primitive.backward and self.around((f"{name} backward", engine), primitive.backward)
                primitive = primitive._replace(run=self.around((name, engine), primitive.run), backward=backward)
            return primitive, reason

        dispatch._offer = offer
        return self

    def __exit__(self, *_):
        dispatch._offer = self._offer


def profiled(model, batch, device, dtype):
    """The table of one network."""
    layer = next(x for name in ("steps", "large_steps") for x in SETS[name]() if x.options["model"] == model)
    case = Case(layer, batch or layer.batch, "step", dtype)
    step = ours.make(case, case.arrays())[0].call
    for _ in range(WARM_UP):
        step()
    host, whole = timed(device, step)
    totals = defaultdict(lambda: [0, 0.0, 0.0])
    with Watch(device) as watch:
        step()
        watch.spans.clear()
        busy(device, 3 * host * STEPS)
        for _ in range(STEPS):
            step()
        device.synchronize()
        for name, first, last, on_host in watch.spans:
            entry = totals[name]
            entry[0] += 1
            entry[1] += device.elapsed(first, last)
            entry[2] += on_host
    rows = [
        {
            "primitive": name,
            "engine": engine,
            "calls": calls // STEPS,
            "device_us": round(1e6 * on_device / STEPS, 1),
            "host_us": round(1e6 * on_host / STEPS, 1),
        }
        for (name, engine), (calls, on_device, on_host) in sorted(totals.items(), key=lambda item: -item[1][1])
    ]
    return {
        "model": model,
        "batch": case.batch,
        "dtype": dtype,
        "step_us": round(1e6 * whole, 1),
        "step_host_us": round(1e6 * host, 1),
        "in_primitives_us": round(sum(row["device_us"] for row in rows), 1),
        "cupyx_profiler": by_cupyx(step),
        "rows": rows,
    }


def timed(device, step):
    """Seconds per step until it came back to the host, and until it was done."""
    device.synchronize()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    host = time.perf_counter() - started
    device.synchronize()
    return host / STEPS, (time.perf_counter() - started) / STEPS


def busy(device, seconds):
    """Keep the device waiting for about so long."""
    if not device.emulated:
        cycles = int(seconds * 1e3 * cupy.cuda.Device().attributes.get("ClockRate", 1_500_000))  # kHz
        cupy.RawKernel(WAIT, "wait")((1,), (1,), (cycles,))


def by_cupyx(step):
    """CuPy's own figures of a step."""
    from cupyx.profiler import benchmark

    found = benchmark(step, n_repeat=STEPS, n_warmup=2, name="step")  # a step is no function with a name of its own
    return {"cpu_us": round(1e6 * found.cpu_times.mean(), 1), "gpu_us": round(1e6 * found.gpu_times.mean(), 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("--model", default="lenet,resnet20,resnet50")
    parser.add_argument("--batch", type=int, help="images (default: the network's own in the benchmarks)")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    with use_backend("cupy"):
        device = devices.device()
        report = {"what": "where the time of a training step goes", **device.facts(), "versions": devices.versions()}
        report["models"] = []
        for model in options.model.split(","):
            report["models"].append(profiled(model, options.batch, device, options.dtype))
            print(json.dumps(report["models"][-1], indent=1), flush=True)
            report["headline"] = "; ".join(
                f"{m['model']}: {m['step_us']:.0f} µs a step, host {m['step_host_us']:.0f}, "
                f"primitives {m['in_primitives_us']:.0f} on the device"
                for m in report["models"]
            )
            with replacing(options.json) as beside:
                beside.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
