"""xpconv's own side: on the backend and engines in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import xpconv
from xpconv import nn, ops, train
from xpconv.backend import get, library, to_numpy
from xpconv.bench import networks
from xpconv.bench.case import Case
from xpconv.bench.sides import Candidate, gradients
from xpconv.settings import current

_LINE = 64  # bytes of a cache line


def version() -> dict[str, str]:
    """Versions of what does the work."""
    name = current().backend.partition(":")[0]
    module = get(name).xp if name in ("numpy", "array_api_strict") else __import__(name)
    return {"xpconv": xpconv.__version__, name: module.__version__}


def make(case: Case, arrays: dict[str, np.ndarray]) -> list[Candidate]:
    """The op through its public function, or a training step of the network."""
    place = get(current().backend)
    if case.layer.op == "step":
        return [_step(case, arrays, place)]
    dy = place.asarray(at_cache_line(arrays["dy"]))
    given = {name: place.asarray(at_cache_line(x)) for name, x in arrays.items() if name != "dy"}
    op, options = getattr(ops, case.layer.op), case.layer.options

    def forward() -> Any:
        return op(**given, **options)

    def both() -> Any:
        return xpconv.vjp(op, **given, **options)[1](dy)

    engines = xpconv.explain(op, **given, **options)
    note = " + ".join(name for name, answer in engines.items() if answer.startswith("chosen"))
    wait = waiting(dy)
    if case.direction == "forward":
        return [Candidate(current().backend, forward, lambda: {"y": to_numpy(forward())}, wait, note)]
    if case.direction == "both":
        return [Candidate(current().backend, both, dict, wait, note)]
    _, pullback = xpconv.vjp(op, **given, **options)
    return [
        Candidate(current().backend, lambda: pullback(dy), lambda: gradients(case, pullback(dy), to_numpy), wait, note),
    ]


def at_cache_line(x: np.ndarray) -> np.ndarray:
    """A copy where a layer before would have left it; every peer, too, copies what it is given to memory of its own."""
    memory = np.empty(x.nbytes + _LINE, np.uint8)
    copy = np.ndarray(x.shape, x.dtype, memory, -memory.ctypes.data % _LINE)
    copy[...] = x
    return copy


def _step(case: Case, arrays: dict[str, np.ndarray], place: Any) -> Candidate:
    x, labels = place.asarray(arrays["x"]), place.asarray(arrays["labels"])
    optimizer, net = train.SGD(networks.LR, momentum=networks.MOMENTUM), _network(case, arrays)
    parameters = net.parameters()
    one = place.asarray(np.ones((), "float32"))

    def call() -> Any:
        net.zero_grad()
        logits, pullback = net.vjp(x, needs_input=False)
        loss, slope = xpconv.vjp(ops.softmax_cross_entropy, logits, labels, needs=(True, False))
        pullback(slope(one)[0])
        optimizer.step(parameters)
        return loss

    def answers() -> dict[str, np.ndarray]:
        return {"losses": np.stack([to_numpy(call()) for _ in range(2)])}

    return Candidate(current().backend, call, answers, waiting(x))


def _network(case: Case, arrays: dict[str, np.ndarray]) -> nn.Sequential:
    """The network with its first weights, where the backend in force is."""
    return networks.network(case.layer.options["model"], arrays["x"]).to(current().backend)


def waiting(x: Any) -> Callable[[Any], None]:
    """A function that returns when the device of ``x`` has done all that was asked of it; on the CPU it has."""
    if library(x) == "cupy":
        return lambda result: x.device.synchronize()
    if library(x) == "torch" and x.device.type == "cuda":
        import torch

        return lambda result: torch.cuda.synchronize(x.device)
    return lambda result: None
