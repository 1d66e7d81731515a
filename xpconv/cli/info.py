"""``xpconv info``: what is installed here, which engines serve it, and what would make it faster."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import textwrap
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import xpconv
from xpconv import settings
from xpconv.backend import get
from xpconv.cli.console import columns, terminal_width
from xpconv.cli.machine import blas, openblas_advice
from xpconv.cores import usable_cores
from xpconv.dispatch import ANY_LIBRARY, CHAINS, engine_primitives
from xpconv.driver import driver_found, driver_version, install_cupy
from xpconv.errors import BackendError, EngineError
from xpconv.runtime import runtime_of

# Each backend's distributions; versions come from their metadata, so that nothing heavy is imported for them.
BACKENDS = {
    "numpy": ("numpy",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "torch": ("torch",),
    "array_api_strict": ("array-api-strict",),
}
EXTRAS = {
    "train": "xpconv train and predict, plots, scikit-learn estimator",
    "cpu": "compiled CPU kernels",
    "onnx": "ONNX models",
    "keras": "files of Keras' weights",
}


def run(options: argparse.Namespace) -> int:
    facts = gather()
    print(json.dumps(facts, indent=2, ensure_ascii=False) if options.json else render(facts))
    return 0


def gather() -> dict[str, Any]:
    """Everything `render` shows, as plain data."""
    mistakes = _mistakes()
    library = blas()
    cores, limit = usable_cores()
    engines = {name: _engine(name) for name in settings.ENGINES}
    advice = [*mistakes, openblas_advice(library), _cpu_advice(engines["numba"]), _gpu_advice()]
    return {
        "xpconv": xpconv.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "cores": {"usable": cores, "limit": limit},
        "blas": library._asdict(),
        "backends": {name: _backend(name) for name in BACKENDS},
        "engines": engines,
        "chains": {name: list(chain) for name, chain in {**CHAINS, "any other": ANY_LIBRARY}.items()},
        "settings": {
            setting.name: _setting(setting, cores)
            for setting in vars(xpconv).values()
            if isinstance(setting, settings.Setting)
        },
        "extras": {name: _extra(name) for name in EXTRAS},
        "advice": [text for text in advice if text],
    }


def _version(*distributions: str) -> str | None:
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _backend(name: str) -> dict[str, Any]:
    version = _version(*BACKENDS[name])
    facts: dict[str, str] = {}
    try:
        if version is None:
            get(name)  # is not here, and fails at once with what to install
        elif name == "cupy":
            facts = runtime_of(get(name)).facts()  # only CuPy itself can say whether there are GPUs for it
    except BackendError as error:
        rule, *rest = str(error).splitlines()
        return {
            "version": version,
            "problem": rule.partition(": ")[2],
            "remedy": rest[-1].strip() if rest else "",
            "facts": facts,
        }
    return {"version": version, "problem": "", "remedy": "", "facts": facts}


def _engine(name: str) -> dict[str, Any]:
    try:
        table = engine_primitives(name)
    except EngineError as error:  # an environment variable asks for what cannot be
        table = " ".join(line.strip() for line in str(error).splitlines())
    if isinstance(table, str):
        return {"problem": table}
    return {"problem": "", "primitives": sorted(table), "facts": _facts_of(name)}


def _facts_of(engine: str) -> dict[str, str]:
    """What an engine that can be had tells of itself."""
    tell = getattr(importlib.import_module(f"xpconv.engines.{engine}"), "facts", None)
    return {} if tell is None else tell()


def _cpu_advice(numba: dict[str, Any]) -> str | None:
    """What to install where NumPy arrays have no compiled kernels."""
    if not numba["problem"] or _version("numba") is not None:
        return None
    return "NumPy arrays run without compiled kernels here, which are several times faster: pip install 'xpconv[cpu]'"


def _gpu_advice() -> str | None:
    """What to install where there is an NVIDIA driver and no CuPy for it."""
    if not driver_version() or _version(*BACKENDS["cupy"]) is not None:
        return None
    return f"{driver_found()}, and CuPy is not installed: {install_cupy()}"


def _mistakes() -> list[str]:
    """What the environment asks for that cannot be; it is taken out, so that all the rest can be told."""
    found = []
    for setting in vars(xpconv).values():
        if isinstance(setting, settings.Setting) and os.environ.get(setting.variable):
            try:
                setting.environment()
            except (TypeError, ValueError, RuntimeError) as error:
                found.append(" ".join(line.strip() for line in str(error).splitlines()))
                del os.environ[setting.variable]
    return found


def _setting(setting: settings.Setting, cores: int) -> dict[str, Any]:
    value = getattr(settings.current(), setting.name)
    return {
        "value": cores if setting.name == "num_threads" and value is None else value,
        "variable": setting.variable,
        "from": "environment" if os.environ.get(setting.variable) else "default",
    }


def _extra(name: str) -> dict[str, Any]:
    """Which of an extra's packages are missing, by the record of this package's own installation, if there is one."""
    try:
        wanted = [line for line in metadata.requires("xpconv") or [] if re.search(rf"extra == ['\"]{name}['\"]", line)]
    except metadata.PackageNotFoundError:
        return {"for": EXTRAS[name], "missing": None}
    packages = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted]
    return {"for": EXTRAS[name], "missing": [package for package in packages if _version(package) is None]}


def render(facts: dict[str, Any]) -> str:
    """The facts as text for a terminal or a bug report."""
    cores, width = facts["cores"], terminal_width()
    versions = f"xpconv {facts['xpconv']} · Python {facts['python']} · {facts['platform']}"
    lines = [
        versions if width is None else textwrap.fill(versions, width, subsequent_indent="  "),
        f"cores usable by this process: {cores['usable']}" + (f" ({cores['limit']})" if cores["limit"] else ""),
    ]
    sections: dict[str, Sequence[Sequence[str]]] = {
        "backends": [
            (name, fact["version"] or "-", _backend_note(name, fact, facts["blas"]))
            for name, fact in facts["backends"].items()
        ],
        "engines": [(name, fact["problem"] or _engine_note(fact)) for name, fact in facts["engines"].items()],
        "engine chains, by the arrays' library": [
            (name, ", ".join(_link(facts["engines"][engine], engine) for engine in chain))
            for name, chain in facts["chains"].items()
        ],
        "settings": [
            (name, _shown(name, fact["value"]), fact["from"], fact["variable"])
            for name, fact in facts["settings"].items()
        ],
        "extras": [(name, _extra_note(name, fact)) for name, fact in facts["extras"].items()],
    }
    for title, rows in sections.items():
        lines += ["", title, *columns(rows, within=width)]
    if facts["advice"]:
        lines += [
            "",
            "advice",
            *(
                textwrap.fill(text, min(width or 100, 100), initial_indent="  ", subsequent_indent="  ")
                for text in facts["advice"]
            ),
        ]
    return "\n".join(lines)


def _link(fact: dict[str, Any], engine: str) -> str:
    return f"({engine}: not here)" if fact["problem"] else engine


def _engine_note(fact: dict[str, Any]) -> str:
    more = (f"{name}: {value}" for name, value in fact["facts"].items())
    return " · ".join((f"ready, {len(fact['primitives'])} primitives", *more))


def _backend_note(name: str, fact: dict[str, Any], library: dict[str, str]) -> str:
    if name == "numpy":
        kernels = f", {library['kernels']} kernels" if library["kernels"] else ""
        return f"BLAS: {library['name']} {library['version']}{kernels}"
    if fact["problem"]:
        return fact["remedy"] if fact["version"] is None else f"{fact['problem']} {fact['remedy']}"
    return " · ".join(f"{about}: {text}" for about, text in fact["facts"].items())


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "auto"
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value / 2**20:g} MiB" if name == "workspace_limit" else str(value)


def _extra_note(name: str, fact: dict[str, Any]) -> str:
    if fact["missing"] is None:
        return f"for {fact['for']} (what it needs is not on record: xpconv runs from a checkout)"
    if not fact["missing"]:
        return f"installed: {fact['for']}"
    return f"pip install 'xpconv[{name}]' for {fact['for']} (missing: {', '.join(fact['missing'])})"
