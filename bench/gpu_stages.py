"""The stages of `gpu.py`: what each runs, for how long at most, in which call, and what its figures come to in a line.

The first two calls are planned to the second, what matters most first; what is left of a call's minutes, and every
further call, goes on with the rest. Whether answers are right is found by processes on all cores, while nothing is
timed; they compile every kernel on the way, so that those who time find them in CuPy's cache.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = Path(__file__).resolve().parent
XPCONV = (sys.executable, "-m", "xpconv")
MINUTES = (9.0, 3.0)  # of the first call and of the second
WORKERS = max(1, (os.cpu_count() or 1) - 2)
# dtype, precision: what a user of a GPU chooses among
PRECISIONS = (("bfloat16", "ieee"), ("float32", "ieee"), ("float32", "fast"), ("float16", "ieee"))
_CAPTURE = ("test_cuda_graph", "test_cuda_graph_refusals", "test_cuda_runtime", "test_cuda_graph_own_loop")
_TESTING = (
    "pytest",
    "pytest_timeout",
    "hypothesis",
    "array_api_strict",
)  # imported, or named in settings
_NORMS = "batch_norm,layer_norm,group_norm,instance_norm,local_response_norm,softmax,softmax_cross_entropy"
_SANITIZED = {  # the tool, and ops in groups that end in time
    "pool": ("memcheck", "max_pool,avg_pool,lp_pool,max_unpool,global_avg_pool,global_max_pool,pad,resize"),
    "conv": ("memcheck", "conv,conv_transpose,linear"),
    "norm": ("memcheck", _NORMS),
    "rest": ("memcheck", "relu,gelu,prelu,add,dropout,mse,binary_cross_entropy_with_logits"),
    "races": ("racecheck", f"{_NORMS},prelu,mse"),  # what goes through shared memory
}
_SANITIZER = ("/usr/local/cuda/bin/compute-sanitizer", "compute-sanitizer")
_DRY = 240  # seconds of a stage on the emulated CuPy, which compiles every kernel anew where it has not been before
_RESUMED = 20  # seconds that are worth beginning a stage for whose rows are kept


@dataclass(frozen=True)
class Stage:
    """One process: its command, its seconds at most, the JSON file it writes, and why it cannot run here."""

    name: str
    command: tuple[str, ...]
    limit: int
    result: str = ""
    absent: str = ""
    call: int = 3  # the first that it is planned for
    resumes: bool = False  # goes on where it was stopped
    tuned: bool = False  # cuDNN's plans are timed: PyTorch's cuDNN tries its algorithms, too, and takes the fastest

    @property
    def least(self) -> float:
        """Seconds below which it is not worth beginning."""
        return min(_RESUMED, self.limit) if self.resumes else self.limit / 2


def stages(out: Path, dry_run: bool) -> list[Stage]:
    """All of them, in order; in a dry run tiny, and without what an emulated GPU cannot do."""
    every = [*checks(out, dry_run), *benchmarks(out, dry_run), *studies(out, dry_run)]
    if dry_run:
        every = [replace(stage, limit=_DRY) for stage in every]
    return sorted(every, key=lambda stage: stage.call)


def checks(out: Path, dry_run: bool) -> Iterator[Stage]:
    """Whether answers are right."""
    yield Stage("info", (*XPCONV, "info"), 15, call=1)
    probe = (sys.executable, str(BENCH / "gpu_device.py"), str(out / "device.json"))
    absent = "an emulated GPU has no properties" if dry_run else ""
    yield Stage("device", probe, 20, "device.json", absent, call=1)
    ops = ("--op", "max_pool,relu") if dry_run else ()
    parity = (sys.executable, str(BENCH / "gpu_parity.py"), str(out / "parity.json"), *ops, "--workers", str(WORKERS))
    yield Stage("parity", parity, 125, "parity.json", call=1)
    train = (sys.executable, str(BENCH / "gpu_train.py"), str(out), *(("--epochs", "1") if dry_run else ()))
    yield Stage("train", train, 60, "train.json")
    lacking = [name for name in _TESTING if not importlib.util.find_spec(name)]
    missing = f"not installed: {', '.join(lacking)}" if lacking else ""
    missing = "the tests run the emulator by themselves" if dry_run else missing
    spread = ("-n", str(WORKERS)) if importlib.util.find_spec("xdist") else ()
    # What other libraries are about to drop is no finding here, and the versions there may be newer than ours.
    lenient = ("-p", "no:cacheprovider", "-p", "no:benchmark", "-W", "default::DeprecationWarning")
    pytest = (sys.executable, "-m", "pytest", "-q", *lenient, *spread)
    yield Stage("laws", (*pytest, "tests/test_laws.py", "-k", "cupy"), 540, absent=missing)
    yield Stage("capture", (*pytest, *(f"tests/{name}.py" for name in _CAPTURE)), 40, absent=missing, call=1)


def benchmarks(out: Path, dry_run: bool) -> Iterator[Stage]:
    """How fast it is, beside PyTorch where that is installed."""
    torch = ["torch"] if importlib.util.find_spec("torch") else []
    graph = ["torch-graph"] if torch else []
    engines = ["engine:portable"] if dry_run else ["engine:cupy+portable"]

    def bench(name: str, limit: int, *options: str, peers: list[str], of: str = "", dtype="float32", precision="ieee"):
        file = f"gpu-{of or name}.json"
        rounds = ("--rounds", "1" if dry_run else "2", "--tries", "1")  # there is no time for a second one
        common = ("--dtype", dtype, "--precision", precision, *rounds)
        against = ("--against", ",".join(peers) or "none", *(("--emulated",) if dry_run else ()))
        where = ("--json", str(out / file), "--resume")
        command = (*XPCONV, "bench", "--backend", "cupy", *against, *common, *options, *where)
        return Stage(name, command, limit, file, resumes=True, tuned=True)

    def first(stage: Stage) -> Stage:
        return replace(stage, call=1)

    tiny = ("--batch", "1") if dry_run else ()
    only = ("--only", "ReLU") if dry_run else ()
    yield first(bench("overhead", 30, "--set", "overhead", *tiny, *only, peers=[*torch, "launch"]))
    if dry_run:
        yield bench("lenet", 90, "--set", "lenet", "--direction", "forward,fused", *tiny, peers=[*torch, *engines])
        small = ("--batch", "4", "--only", "lenet")
        yield first(bench("steps", 60, "--set", "steps", *small, peers=[*torch, *graph]))
        return

    def of_each(set_name: str, limit: int, peers: list[str], name: str, *more: str, of: str = ""):
        for dtype, precision in PRECISIONS:
            kind = f"-{dtype}-{precision}"
            rows, file = ("--set", set_name, "--batch", *(more or ("64",))), (of or name) + kind
            yield bench(name + kind, limit, *rows, peers=peers, of=file, dtype=dtype, precision=precision)

    # Some layers forward and backward; the whole set goes on from their rows, in the same files.
    both, whole = ("64", "--direction", "forward,backward"), "resnet50-64"
    yield from map(first, of_each("resnet50_few", 45, [*torch, *engines], "convs", *both, of=whole))
    yield first(bench("steps", 50, "--set", "steps", peers=[*torch, *graph]))
    memory = ("--set", "bandwidth")
    yield first(bench("bandwidth", 50, *memory, "--direction", "forward,step", peers=torch))
    large = list(of_each("large_steps", 110, [*torch, *graph], "large-steps", "64", "--only", "ResNet-50"))
    yield replace(large[0], call=2)
    yield from of_each("resnet50", 400, [*torch, *engines], whole)
    yield from large[1:]
    yield bench("bandwidth-backward", 60, *memory, peers=torch, of="bandwidth")
    for net, batch in (("mobilenetv2", "64"), ("resnet50", "256"), ("mobilenetv2", "256")):
        yield from of_each(net, 540, torch, f"{net}-{batch}", batch)


def studies(out: Path, dry_run: bool) -> Iterator[Stage]:
    """Why it is as fast as it is."""
    layouts = (sys.executable, str(BENCH / "gpu_layouts.py"), str(out / "layouts.json"))
    absent = "an emulated GPU has no cuDNN" if dry_run else ""
    yield Stage("layouts", layouts, 30, "layouts.json", absent, call=1)
    for name, models, limit, call in (("profile", "lenet,resnet20", 45, 2), ("profile-resnet50", "resnet50", 120, 3)):
        chosen = ("--model", "lenet", "--batch", "2") if dry_run else ("--model", models)
        command = (sys.executable, str(BENCH / "gpu_profile.py"), str(out / f"{name}.json"), *chosen)
        yield Stage(name, command, limit, f"{name}.json", call=call, tuned=True)
    batch = ("--batch", "1") if dry_run else ()
    columns = (sys.executable, str(BENCH / "gpu_columns.py"), str(out / "columns.json"), *batch)
    yield Stage("columns", columns, 25, "columns.json", call=2)
    tool = next((found for name in _SANITIZER if (found := shutil.which(name))), None)
    absent = "an emulated GPU has guard zones instead" if dry_run else "" if tool else "the tool is not here"
    code = (
        "import sys, cupy; cupy.cuda.set_allocator(None); "  # each array by itself, so that no overrun hides in a pool
        "from xpconv.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    for name, (checked, ops) in _SANITIZED.items():
        check = (tool or "compute-sanitizer", "--tool", checked, "--error-exitcode", "9", sys.executable, "-c", code)
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
