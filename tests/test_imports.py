"""The house: which package may import which, and how little `import xpconv` costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import xpconv

ROOT = Path(xpconv.__file__).parent

# A module may import those of its own row and of every row below it.
STOREYS = (
    ("cli", "__main__"),
    ("sklearn",),
    ("bench",),
    ("parity",),
    ("train", "exchange", "plot"),
    ("nn",),
    ("steps", "gradients"),
    ("ops",),
    ("derivatives", "as_real"),
    ("dispatch",),
    ("window", "arrays", "kinds", "packing"),
    ("runtime",),
    ("backend",),
    ("settings", "atomic", "cores", "driver", "notices", "activations", "axes"),
    ("arguments", "hints"),
    ("errors",),
)
ENGINE_MAY_IMPORT = {
    "as_real",
    "dispatch",
    "window",
    "kinds",
    "packing",
    "backend",
    "runtime",
    "settings",
    "atomic",
    "cores",
    "driver",
    "notices",
    "activations",
    "axes",
    "errors",
}
HEAVY = (
    *("torch", "numba", "cupy", "cudnn", "scipy", "matplotlib", "sklearn", "onnx", "rich", "mpi4py"),
    "array_api_compat.numpy",
)


def modules():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            found.append(pytest.param(path, parts, id=".".join(parts)))
    return found


def imported(path: Path) -> set[str]:
    """Dotted names of the project's own modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "xpconv"}


def storey(name: str) -> int:
    return next(i for i, row in enumerate(STOREYS) if name in row)


@pytest.mark.parametrize(("path", "parts"), modules())
def test_imports_point_one_way(path, parts):
    for name in imported(path):
        target = name.split(".")[1:]
        if parts[0] == "engines":
            check_engine(parts, target)
        elif target and target[0] in {name for row in STOREYS for name in row} | {"engines"}:
            assert target[0] != "engines", f"{parts}: only dispatch loads engines, by name"
            assert storey(target[0]) >= storey(parts[0]), f"{'.'.join(parts)} imports {name}, which is above it"


def check_engine(parts, target):
    if target[0] == "engines":
        own = parts[1]
        allowed = {own, "portable"} if own == "reference" else {own}
        assert len(target) == 1 or target[1] in allowed, f"engine {own} imports engine {target[1]}"
    else:
        assert target[0] in ENGINE_MAY_IMPORT, f"an engine imports {target}"


def test_the_benchmark_imports_in_no_circle():
    """Not for types alone either: what two modules know has a module below both. A side and its steps count as one."""
    graph: dict[str, set[str]] = {}
    for path in (ROOT / "bench").rglob("*.py"):
        here = _part_of_the_benchmark(".".join(path.relative_to(ROOT).with_suffix("").parts))
        named = {name.removeprefix("xpconv.") for name in imported(path)}
        below = {name for name in named | {name.rpartition(".")[0] for name in named} if _is_module(name)}
        graph.setdefault(here, set()).update({_part_of_the_benchmark(name) for name in below} - {here, "bench"})
    TopologicalSorter(graph).prepare()


def _part_of_the_benchmark(name):
    return re.sub(r"(bench\.sides\.\w+)_step$", r"\1", name.removesuffix(".__init__"))


def _is_module(name):
    file = ROOT / name.replace(".", "/")
    return name.startswith("bench.") and (file.with_suffix(".py").exists() or file.is_dir())


# Libraries that are imported in these places only, beside the backend; `bench` reads clocks, memory and versions.
DEVICE_LIBRARIES = {
    "cupy": {("engines", "cupy"), ("engines", "cudnn"), ("bench", "devices")},
    "cudnn": {("engines", "cudnn"), ("bench", "devices")},
    "numba": {("engines", "numba")},
}


@pytest.mark.parametrize("library", DEVICE_LIBRARIES)
def test_device_libraries_are_imported_where_they_are_at_home_only(library):
    for path in ROOT.rglob("*.py"):
        relative = path.relative_to(ROOT).parts
        if relative == ("backend.py",) or relative[:2] in DEVICE_LIBRARIES[library]:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] == library], f"{path} imports {library}"


def test_importing_pulls_in_nothing_heavy():
    code = f"import sys, xpconv, xpconv.ops; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_files_stay_short():
    long = {str(p.relative_to(ROOT)): n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 330}
    assert not long, "split by purpose"
