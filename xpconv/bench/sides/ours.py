"""xpconv's own side: on the backend and engines in force."""

from __future__ import annotations

from typing import Any

import numpy as np

import xpconv
from xpconv import ops
from xpconv.backend import get
from xpconv.bench.candidate import Candidate, gradients, waiting
from xpconv.bench.case import Case
from xpconv.bench.devices import Device
from xpconv.bench.sides.placed import host, placed
from xpconv.settings import current


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
