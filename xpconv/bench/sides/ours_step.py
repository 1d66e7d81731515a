"""xpconv's training step, call by call and recorded; and an optimizer's update by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xpconv import nn, train
from xpconv.backend import Backend
from xpconv.bench import networks, updates
from xpconv.bench.candidate import RECORDED, UNTIL_REPLAYED, Candidate, NotOfferedError, waiting
from xpconv.bench.case import Case
from xpconv.bench.sides.placed import host, placed
from xpconv.runtime import Runtime, runtime_of
from xpconv.settings import current
from xpconv.train.objective import Objective
from xpconv.train.replayed_step import ReplayedStep
from xpconv.train.usual import Usual


def make(case: Case, arrays: dict[str, np.ndarray], place: Backend) -> list[Candidate]:
    """The step of `train.fit`, call by call and, where it can be recorded, replayed; or the update."""
    if case.layer.op == "update":
        return [_update(case, arrays, place)]
    runtime = runtime_of(place)
    with runtime.working():
        usual = _candidate(case, arrays, place, None)
        if not runtime.records:
            return [usual]
        try:
            recorded = _candidate(case, arrays, place, runtime)
        except Exception as error:  # whatever a capture runs into, the usual step has its time
            return [replace(usual, note=f"no {runtime.recording}: {type(error).__name__}: {error}")]
    note = recorded.note or f"{runtime.recording}: a step of {case.batch} images is recorded and replayed"
    return [replace(usual, note=note), *([] if recorded.note else [recorded])]


def _candidate(case: Case, arrays: dict[str, np.ndarray], place: Backend, runtime: Runtime | None) -> Candidate:
    """A step call by call, or recorded by a runtime; the note says why it could not be."""
    timed, judged = (
        _Training(case, arrays, images, place) for images in (case.batch, networks.judged(case.layer, case.batch))
    )
    name, refused = current().backend, ""
    if runtime is not None:
        name = f"{name}{RECORDED}{runtime.recording}"
        why = timed.record(runtime) or judged.record(runtime)
        refused = f"no {runtime.recording}: {why}" if why else ""
    within = runtime_of(place).working
    return Candidate(name, timed, lambda: {"losses": judged.losses()}, waiting(timed.x), refused, within)


class _Training:
    """A network with its first weights, its optimizer and the first of the images; calling it is one step."""

    def __init__(self, case: Case, arrays: dict[str, np.ndarray], images: int, place: Backend) -> None:
        self.x, self.labels = (placed(place, arrays[name][:images], case.dtype) for name in ("x", "labels"))
        self._net = networks.network(case.layer.options["model"], arrays["x"]).to(current().backend, case.dtype)
        self._first = {name: np.array(host(value)) for name, value in self._net.state_dict().items()}
        self._optimizer = train.SGD(networks.rate(case.layer.options["model"]), momentum=networks.MOMENTUM)
        objective = Objective("bench", "softmax_cross_entropy")
        self._step: Any = Usual(self._net, self._net.parameters(), objective, self._optimizer, labelled=False)

    def __call__(self) -> Any:
        return self._step(self.x, self.labels).loss

    def losses(self) -> np.ndarray:
        """Of the first two steps."""
        return np.stack([host(self()) for _ in range(2)])

    def record(self, runtime: Runtime) -> str:
        """Make the step a recording, at the first weights again; why it cannot be one."""
        self._step = replayed = ReplayedStep(self._step, runtime, lambda _: None)
        for _ in range(UNTIL_REPLAYED):
            self()
        self._net.load_state_dict(self._first)  # into the arrays that the recording reads
        for kept in self._optimizer._kept.values():
            for slot in kept.slots:
                slot[...] = 0
        return replayed.refused


def _update(case: Case, arrays: dict[str, np.ndarray], place: Backend) -> Candidate:
    if case.dtype != "float32":
        raise NotOfferedError("float32 only")
    optimizers = {
        "SGD": lambda: train.SGD(updates.LR, momentum=updates.MOMENTUM),
        "Adam": lambda: train.Adam(updates.LR, betas=updates.BETAS, eps=updates.EPS),
    }
    given = {name: placed(place, x, case.dtype) for name, x in arrays.items()}
    optimizer, parameters = optimizers[case.layer.options["optimizer"]](), {}
    for i in range(len(given) // 2):
        parameters[f"p{i}"] = parameter = nn.Parameter(given[f"p{i}"])
        parameter.accumulate(given[f"g{i}"])

    def update() -> None:
        optimizer.step(parameters)

    def answers() -> dict[str, np.ndarray]:
        for _ in range(updates.UPDATES):
            update()
        return {name: host(parameter.value) for name, parameter in parameters.items()}

    return Candidate(current().backend, update, answers, waiting(given["p0"]))
