"""The stages of `gpu.py`: what each runs, for how long at most, and what its figures come to in a line."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = Path(__file__).resolve().parent
XPCONV = (sys.executable, "-m", "xpconv")
# dtype, precision: what a user of a GPU chooses among
PRECISIONS = (("bfloat16", "ieee"), ("float16", "ieee"), ("float32", "fast"), ("float32", "ieee"))
_SANITIZED = {  # ops, in groups that end in time
    "pool": "max_pool,avg_pool,lp_pool,max_unpool,global_avg_pool,global_max_pool",
    "conv": "conv,conv_transpose,linear",
    "rest": "batch_norm,layer_norm,group_norm,softmax,softmax_cross_entropy,relu,gelu,prelu,dropout",
}
_SANITIZER = ("/usr/local/cuda/bin/compute-sanitizer", "compute-sanitizer")


@dataclass(frozen=True)
class Stage:
    """One process: its command, its seconds at most, the JSON file it writes, and why it cannot run here."""

    name: str
    command: tuple[str, ...]
    limit: int
    result: str = ""
    absent: str = ""


def stages(out: Path, dry_run: bool) -> list[Stage]:
    """All of them, what matters most first; in a dry run tiny, and without what an emulated GPU cannot do."""
    return [*checks(out, dry_run), *benchmarks(out, dry_run), *studies(out, dry_run)]


def checks(out: Path, dry_run: bool) -> Iterator[Stage]:
    """Whether answers are right."""
    yield Stage("info", (*XPCONV, "info"), 60)
    probe = (sys.executable, str(BENCH / "gpu_device.py"), str(out / "device.json"))
    yield Stage("device", probe, 60, "device.json", "an emulated GPU has no properties" if dry_run else "")
    ops = ("--op", "conv,max_pool,relu") if dry_run else ()
    parity = (*XPCONV, "parity", "--backend", "cupy", *ops, "--json", str(out / "parity.json"))
    yield Stage("parity", parity, 420, "parity.json")
    train = (sys.executable, str(BENCH / "gpu_train.py"), str(out), *(("--epochs", "1") if dry_run else ()))
    yield Stage("train", train, 180, "train.json")
    laws = (sys.executable, "-m", "pytest", "tests/test_laws.py", "-k", "cupy", "-p", "no:cacheprovider", "-q")
    missing = "" if importlib.util.find_spec("pytest") else "pytest is not installed"
    yield Stage("laws", laws, 540, absent="the tests run the emulator by themselves" if dry_run else missing)


def benchmarks(out: Path, dry_run: bool) -> Iterator[Stage]:
    """How fast it is, beside PyTorch where that is installed."""
    torch = ["torch"] if importlib.util.find_spec("torch") else []
    graph = ["torch-graph"] if torch else []
    engines = ["engine:portable"] if dry_run else ["engine:cupy+portable"]

    def bench(name: str, limit: int, *options: str, peers: list[str], dtype: str = "float32", precision: str = "ieee"):
        file = f"gpu-{name}.json"
        common = ("--dtype", dtype, "--precision", precision, "--rounds", "1" if dry_run else "3")
        against = ("--against", ",".join(peers) or "none", *(("--emulated",) if dry_run else ()))
        where = ("--json", str(out / file), "--resume")
        command = (*XPCONV, "bench", "--backend", "cupy", *against, *common, *options, *where)
        return Stage(name, command, limit, file)

    tiny = ("--batch", "1") if dry_run else ()
    only = ("--only", "ReLU") if dry_run else ()
    yield bench("overhead", 90, "--set", "overhead", *tiny, *only, peers=[*torch, "launch"])
    if dry_run:
        yield bench("lenet", 90, "--set", "lenet", "--direction", "forward,fused", *tiny, peers=[*torch, *engines])
        small = ("--batch", "4", "--only", "lenet", "--memory")
        yield bench("steps", 120, "--set", "steps", *small, peers=[*torch, *graph])
        return

    def of_each(set_name: str, batch: str, limit: int, peers: list[str], name: str, *more: str):
        for dtype, precision in PRECISIONS:
            rows = ("--set", set_name, "--batch", batch, *more)
            yield bench(f"{name}-{dtype}-{precision}", limit, *rows, peers=peers, dtype=dtype, precision=precision)

    yield from of_each("resnet50", "64", 540, [*torch, *engines], "resnet50-64")
    yield bench("steps", 240, "--set", "steps", "--memory", peers=[*torch, *graph])
    yield bench("bandwidth", 180, "--set", "bandwidth", peers=torch)
    yield from of_each("large_steps", "64", 300, [*torch, *graph], "large-steps", "--memory")
    for net, batch in (("mobilenetv2", "64"), ("resnet50", "256"), ("mobilenetv2", "256")):
        yield from of_each(net, batch, 540, torch, f"{net}-{batch}")


def studies(out: Path, dry_run: bool) -> Iterator[Stage]:
    """Why it is as fast as it is."""
    layouts = (sys.executable, str(BENCH / "gpu_layouts.py"), str(out / "layouts.json"))
    yield Stage("layouts", layouts, 240, "layouts.json", "an emulated GPU has no cuDNN" if dry_run else "")
    batch = ("--batch", "1") if dry_run else ()
    columns = (sys.executable, str(BENCH / "gpu_columns.py"), str(out / "columns.json"), *batch)
    yield Stage("columns", columns, 90, "columns.json")
    models = ("--model", "lenet", "--batch", "2") if dry_run else ()
    profile = (sys.executable, str(BENCH / "gpu_profile.py"), str(out / "profile.json"), *models)
    yield Stage("profile", profile, 180, "profile.json")
    tool = next((found for name in _SANITIZER if (found := shutil.which(name))), None)
    absent = "an emulated GPU has guard zones instead" if dry_run else "" if tool else "the tool is not here"
    code = (
        "import sys, cupy; cupy.cuda.set_allocator(None); "  # each array by itself, so that no overrun hides in a pool
        "from xpconv.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    check = (tool or "compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-c", code)
    for name, ops in _SANITIZED.items():
        parity = ("parity", "--backend", "cupy", "--engine", "cupy", "--op", ops, "--json")
        file = f"sanitizer-{name}.json"
        yield Stage(f"sanitizer-{name}", (*check, *parity, str(out / file)), 540, file, absent)


def headline(out: Path, stage: Stage) -> str:
    """What a stage's figures come to."""
    try:
        found = json.loads((out / stage.result).read_text()) if stage.result else {}
    except (OSError, ValueError):
        return ""
    emulated = "emulated: no measurement; " if found.get("emulated") else ""
    if found.get("what") == "xpconv bench":
        parts = [
            f"{entry['peer']} {entry['direction']} {entry['geometric_mean']:.2f}"
            f" ({entry['least']:.2f}, {entry['below_1']} of {entry['rows']} below 1)"
            for entry in found["summary"]
        ]
        return emulated + "; ".join(parts)
    if found.get("what") == "xpconv parity":
        return (
            f"{'all right' if found['ok'] else 'wrong'} in {len(found['rows'])} rows on {', '.join(found['targets'])}"
        )
    return emulated + found.get("headline", "")
