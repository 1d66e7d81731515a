"""PyTorch's training step under a CUDA graph: captured whole by hand, then replayed; both memory formats."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.bench import networks
from xpconv.bench.candidate import RECORDED, Candidate, NotOfferedError
from xpconv.bench.case import Case
from xpconv.bench.sides import torch as eager
from xpconv.bench.sides import torch_step

version, device = eager.version, eager.device
_WARM_UP = 3  # steps before the capture: PyTorch's notes on CUDA graphs ask for some


def make(case: Case, arrays: dict[str, np.ndarray]) -> list[Candidate]:
    """Training steps alone: of a single op PyTorch's graphs save nothing that users would take the pains for."""
    if case.layer.op != "step":
        raise NotOfferedError("training steps only")
    if not eager.place().startswith("cuda"):
        raise NotOfferedError("CUDA graphs need a GPU")
    eager.configure()
    return [_candidate(case, arrays, name, laid_out) for name, laid_out in eager.formats(case).items()]


def _candidate(case: Case, arrays: dict[str, np.ndarray], name: str, laid_out: Any) -> Candidate:
    graph, _ = _captured(torch_step.step_of(case, arrays, case.batch, laid_out))

    def answers() -> dict[str, np.ndarray]:
        replayed, loss = _captured(torch_step.step_of(case, arrays, networks.judged(case.layer, case.batch), laid_out))
        losses = []
        for _ in range(2):
            replayed.replay()
            losses.append(float(loss))
        return {"losses": np.asarray(losses, "float32")}

    return Candidate(f"{name}{RECORDED}CUDA graph", graph.replay, answers, eager.wait)


def _captured(step: torch_step.Step) -> tuple[Any, Any]:
    """The graph of a step, at its first weights again, and the tensor where each replay leaves its loss."""
    import torch

    first = {name: tensor.clone() for name, tensor in step.net.state_dict().items()}
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    step.optimizer.zero_grad()
    with torch.cuda.graph(graph):
        loss = step()
    with torch.no_grad():
        for name, tensor in step.net.state_dict().items():
            tensor.copy_(first[name])
        for kept in step.optimizer.state.values():
            kept["momentum_buffer"].zero_()
    return graph, loss
