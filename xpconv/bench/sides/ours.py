"""xpconv's own side: on the backend and engines in force."""

from __future__ import annotations

from typing import Any

import numpy as np

import xpconv
from xpconv import ops
from xpconv.backend import Backend, get, to_numpy
from xpconv.bench.candidate import Candidate, gradients, waiting
from xpconv.bench.case import Case
from xpconv.bench.devices import Device
from xpconv.errors import dtype_name
from xpconv.settings import current

_LINE = 64  # bytes of a cache line


def version() -> dict[str, str]:
    """Versions of what does the work."""
    name = current().backend.partition(":")[0]
    if name == "cupy":
        from xpconv.bench.devices import cupy

        return {"xpconv": xpconv.__version__, **cupy.versions()}
    module = get(name).xp if name in ("numpy", "array_api_strict") else __import__(name)
    return {"xpconv": xpconv.__version__, name: module.__version__}


def device() -> Device:
    """Where the backend in force has its arrays."""
    if current().backend.partition(":")[0] != "cupy":
        return Device()
    from xpconv.bench.devices import cupy

    return cupy.device()


def make(case: Case, arrays: dict[str, np.ndarray]) -> list[Candidate]:
    """The op through its public function, or a training step of the network, or its inference."""
    place = get(current().backend)
    if case.layer.op in ("step", "update"):
        from xpconv.bench.sides import ours_step

        return ours_step.make(case, arrays, place)
    if case.layer.op == "inference":
        from xpconv.bench.sides import ours_inference

        return ours_inference.make(case, arrays, place)
    given = {name: placed(place, x, case.dtype) for name, x in arrays.items()}
    dy = given.pop("dy")
    op, options = getattr(ops, case.layer.op), case.options

    def forward() -> Any:
        return op(**given, **options)

    def both() -> Any:
        return xpconv.vjp(op, **given, **options)[1](dy)

    engines = xpconv.explain(op, **given, **options)
    note = " + ".join(name for name, answer in engines.items() if answer.startswith("chosen"))
    wait = waiting(dy)
    if case.direction in ("forward", "fused"):
        return [Candidate(current().backend, forward, lambda: {"y": host(forward())}, wait, note)]
    if case.direction == "both":
        return [Candidate(current().backend, both, dict, wait, note)]
    _, pullback = xpconv.vjp(op, **given, **options)
    return [
        Candidate(current().backend, lambda: pullback(dy), lambda: gradients(case, pullback(dy), host), wait, note),
    ]


def placed(place: Backend, x: np.ndarray, dtype: str) -> Any:
    """The array on a backend, floating-point values in ``dtype``."""
    return place.asarray(at_cache_line(x) if place.library == "numpy" else x, dtype if x.dtype.kind == "f" else None)


def host(x: Any) -> np.ndarray:
    """The values on the host, half precision in float32."""
    values = to_numpy(x)
    return values.astype("float32") if dtype_name(x.dtype) in ("float16", "bfloat16") else values


def at_cache_line(x: np.ndarray) -> np.ndarray:
    """A copy where a layer before would have left it; every peer, too, copies what it is given to memory of its own."""
    memory = np.empty(x.nbytes + _LINE, np.uint8)
    copy = np.ndarray(x.shape, x.dtype, memory, -memory.ctypes.data % _LINE)
    copy[...] = x
    return copy
