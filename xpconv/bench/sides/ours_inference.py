"""xpconv's inference of a whole network, call by call and replayed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xpconv import train
from xpconv.backend import Backend
from xpconv.bench import networks
from xpconv.bench.candidate import RECORDED, UNTIL_REPLAYED, Candidate, waiting
from xpconv.bench.case import Case
from xpconv.bench.sides.placed import host, placed
from xpconv.runtime import runtime_of
from xpconv.settings import current


def make(case: Case, arrays: dict[str, np.ndarray], place: Backend) -> list[Candidate]:
    """``net(x)`` and, where it can be recorded, ``train.Predictor(net)(x)``; the note says why it could not be."""
    net = networks.loaded(case.layer.options["model"], arrays).to(current().backend, case.dtype)
    x, runtime = placed(place, arrays["x"], case.dtype), runtime_of(place)
    name, within = current().backend, runtime.working
    usual = Candidate(name, lambda: net(x), lambda: {"y": host(net(x))}, waiting(x), within=within)
    if not runtime.records:
        return [usual]
    predictor = train.Predictor(net)
    refused = _refusal(predictor, x)
    if refused:
        return [replace(usual, note=f"no {runtime.recording}: {refused}")]
    recorded = Candidate(
        f"{name}{RECORDED}{runtime.recording}",
        lambda: predictor(x),
        lambda: {"y": host(predictor(x))},
        waiting(x),
        within=within,
    )
    note = f"{runtime.recording}: inference of {case.batch} images is recorded and replayed"
    return [replace(usual, note=note), recorded]


def _refusal(predictor: train.Predictor, x: Any) -> str:
    """Have the predictor record; why it does not replay, or nothing."""
    try:
        for _ in range(UNTIL_REPLAYED):
            predictor(x)
    except Exception as error:  # whatever a capture runs into, the usual call has its time
        return f"{type(error).__name__}: {error}"
    return "" if predictor.replays else predictor.refused or "it is not replayed yet"
