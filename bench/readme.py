"""The README's tables of speed, made from the files in `results/`; the tests hold the README to them.

python bench/readme.py cpu
python bench/readme.py peers
python bench/readme.py gpu
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
NOT_MEASURED = "not measured"

Document = dict[str, Any]

CPU_SETS = {
    "resnet50": "ResNet-50's convolutions",
    "mobilenetv2": "MobileNetV2's",
    "lenet": "LeNet's",
    "samples": "1-D and 3-D convolutions",
    "pools": "pools",
    "layers": "batch norm, linear, loss",
    "convnext": "a block of ConvNeXt",
    "unet": "other norms, resizing, borders",
}
CPU_STEPS = {"steps": "training steps of LeNet and ResNet-20", "unet_step": "training step of a U-Net"}
CPU_BATCHES = (8, 32)
NETWORKS = {
    "LeNet 28²": "LeNet, 28²",
    "ResNet-20 32²": "ResNet-20, 32²",
    "U-Net 64²": "a small U-Net, 64²",
    "ResNet-50 224²": "ResNet-50, 224²",
    "MobileNetV2 224²": "MobileNetV2, 224²",
}
NETWORK_COLUMNS = (*(("inference", batch) for batch in (1, 8, 32)), *(("step", batch) for batch in (8, 32, 128)))
GPU_NETS = {"resnet50": "ResNet-50", "mobilenetv2": "MobileNetV2"}
GPU_BATCHES = (64, 256)
GPU_PRECISIONS = {
    "bfloat16-ieee": "bfloat16",
    "float16-ieee": "float16",
    "float32-fast": "float32, TF32",
    "float32-ieee": "float32",
}
GPU_DIRECTIONS = ("forward", "fused", "backward")
GPU_STEPS = (("steps", "LeNet 28²"), ("steps", "ResNet-20 32²"))


def document(name: str) -> Document | None:
    """A file of figures; `None` where it was not measured.

    Raises
    ------
    ValueError
        For figures of an emulated GPU, which are none.
    """
    path = RESULTS / name
    if not path.exists():
        return None
    found: Document = json.loads(path.read_text(encoding="utf-8"))
    if found.get("emulated"):
        raise ValueError(f"{name}: an emulated GPU measures nothing")
    return found


def ratios(found: Document | None, peer: str, keep: Callable[[Document], bool]) -> list[float]:
    """A peer's time over xpconv's, of the rows that are to be kept."""
    rows = found["rows"] if found else []
    return [row["ratio"][peer] for row in rows if keep(row) and row["ratio"].get(peer)]


def cell(found: list[float], missing: str = "") -> str:
    """Geometric mean; the least, and how many are below 1."""
    if not found:
        return missing
    below = sum(ratio < 1 for ratio in found)
    return f"{statistics.geometric_mean(found):.2f} ({min(found):.2f}, {below} of {len(found)})"


def cpu_table() -> Iterator[str]:
    """A row for each set of layers, a column for each direction and batch."""
    found = document("cpu.json")
    columns = [(direction, batch) for direction in ("forward", "backward") for batch in CPU_BATCHES]
    yield "| | " + " | ".join(f"{direction}, batch {batch}" for direction, batch in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, label in CPU_SETS.items():
        cells = []
        for direction, batch in columns:

            def keep(row: Document, batch: int = batch, direction: str = direction, name: str = name) -> bool:
                return row["set"] == name and row["x"][0] == batch and row["direction"] == direction

            cells.append(cell(ratios(found, "torch", keep)))
        yield _line(label, cells)


def networks_table() -> Iterator[str]:
    """A row for each network, a column for each batch of its inference and of its step."""
    files = map(document, ("cpu.json", "cpu_inference.json", "cpu_steps.json"))
    rows = {(row["name"], row["op"], row["x"][0]): row["sides"] for found in files if found for row in found["rows"]}
    yield "| | " + " | ".join(f"{op}, batch {batch}" for op, batch in NETWORK_COLUMNS) + " |"
    yield "|---" * (len(NETWORK_COLUMNS) + 1) + "|"
    for name, label in NETWORKS.items():
        yield _line(label, [_network(rows.get((name, *column))) for column in NETWORK_COLUMNS])


def _network(sides: Document | None) -> str:
    """PyTorch's time over that of replays, and over that of calls."""
    if sides is None:
        return ""
    times = sides["xpconv"]["times_ms"]
    replayed, called = (sides["torch"]["ms"] / statistics.median(times[way]) for way in ("numpy, replay", "numpy"))
    return f"{replayed:.2f} ({called:.2f})"


def peers_table() -> Iterator[str]:
    """A row for each set at batch 8: other peers, and the sums of the rows' peak memory beside PyTorch's."""
    found = document("cpu_peers.json")
    yield "| | JAX, forward | JAX, backward | im2col, forward | peak memory, MiB | PyTorch's, MiB |"
    yield "|---" * 6 + "|"
    for name, label in (CPU_SETS | CPU_STEPS).items():
        rows = [row for row in (found or {"rows": []})["rows"] if row["set"] == name]
        cells = []
        for peer, directions in (("jax", ("forward", "step")), ("jax", ("backward",)), ("im2col", ("forward",))):
            cells.append(cell(ratios({"rows": rows}, peer, lambda row, d=directions: row["direction"] in d)))
        both = [[row["sides"][side].get("memory_bytes") for side in ("xpconv", "torch")] for row in rows]
        told = [pair for pair in both if None not in pair]
        cells += [f"{sum(column) / 2**20:.0f}" for column in zip(*told, strict=True)] if told else ["", ""]
        yield _line(label, cells)


def gpu_table() -> Iterator[str]:
    """A row for each network, batch and precision, then the training steps, then what a call costs the host."""
    yield "| beside PyTorch | forward | conv + bias + ReLU | backward |"
    yield "|---|---|---|---|"
    for net, label in GPU_NETS.items():
        for batch in GPU_BATCHES:
            for precision, said in GPU_PRECISIONS.items():
                found = document(f"gpu-{net}-{batch}-{precision}.json")
                cells = [
                    cell(ratios(found, "torch", lambda row, d=direction: row["direction"] == d), NOT_MEASURED)
                    for direction in GPU_DIRECTIONS
                ]
                yield _line(f"{label}, batch {batch}, {said}", cells)
    yield ""
    yield "| training step | beside PyTorch | beside PyTorch under CUDA graphs |"
    yield "|---|---|---|"
    for set_name, name in GPU_STEPS:
        yield _step(document(f"gpu-{set_name}.json"), name, name)
    for precision, said in GPU_PRECISIONS.items():
        yield _step(document(f"gpu-large-steps-{precision}.json"), "ResNet-50 224²", f"ResNet-50 224², {said}")
    yield ""
    yield "| host time of a call | xpconv, µs | PyTorch, µs | bare kernel, µs |"
    yield "|---|---|---|---|"
    overhead = document("gpu-overhead.json")
    for name in ("ReLU 64", "4² 8→8 3×3"):
        row = next(
            (r for r in (overhead or {"rows": []})["rows"] if (r["name"], r["direction"]) == (name, "forward")), {}
        )
        sides = row.get("sides", {})
        cells = [sides.get(side, {}).get("host_us") for side in ("xpconv", "torch", "launch")]
        shown = [f"{us:.1f}" if us else "" if row else NOT_MEASURED for us in cells]
        yield _line(name, shown)


def _step(found: Document | None, name: str, label: str) -> str:
    both = [ratios(found, peer, lambda row: row["name"] == name) for peer in ("torch", "torch-graph")]
    return _line(label, [f"{r[0]:.2f}" if r else NOT_MEASURED for r in both])


def _line(label: str, cells: Sequence[str]) -> str:
    return f"| {label} |" + "".join(f" {cell} |" if cell else " |" for cell in cells)


TABLES = {"cpu": lambda: (*cpu_table(), "", *networks_table()), "peers": peers_table, "gpu": gpu_table}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in TABLES:
        sys.exit(str(__doc__))
    print("\n".join(TABLES[sys.argv[1]]()))
