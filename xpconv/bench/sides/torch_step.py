"""Whole networks in PyTorch, trained by steps or asked for answers: the same ones as modules, with the same values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.bench import networks, updates
from xpconv.bench.candidate import Candidate, NotOfferedError
from xpconv.bench.case import Case
from xpconv.bench.networks import MOMENTUM, rate
from xpconv.bench.sides import torch_networks
from xpconv.bench.sides.torch import on_host, place, wait


@dataclass(frozen=True)
class Step:
    """A network with its first weights, its optimizer and its data; calling it is one step."""

    net: Any
    optimizer: Any
    x: Any
    labels: Any

    def __call__(self) -> Any:
        from torch.nn import functional

        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.net(self.x), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def step_of(case: Case, arrays: dict[str, np.ndarray], images: int, laid_out: Any) -> Step:
    """A step on the first of the images."""
    import torch

    net = network_of(case, arrays, laid_out)
    labels = torch.from_numpy(arrays["labels"][:images]).to(place())
    optimizer = torch.optim.SGD(net.parameters(), lr=rate(case.layer.options["model"]), momentum=MOMENTUM)
    return Step(net, optimizer, images_of(case, arrays, images, laid_out), labels)


def network_of(case: Case, arrays: dict[str, np.ndarray], laid_out: Any) -> Any:
    """The module with the case's values, where it is to run."""
    import torch

    net = torch_networks.network(case.layer.options["model"], arrays["x"])
    _load(net, arrays)
    return net.to(place(), getattr(torch, case.dtype), memory_format=laid_out)


def images_of(case: Case, arrays: dict[str, np.ndarray], images: int, laid_out: Any) -> Any:
    """The first of the images."""
    import torch

    x = torch.from_numpy(arrays["x"][:images]).permute(0, 3, 1, 2).to(place()).to(getattr(torch, case.dtype))
    return x.contiguous(memory_format=laid_out)


def inference(case: Case, arrays: dict[str, np.ndarray], name: str, laid_out: Any) -> Candidate:
    """The module in eval mode, called under `torch.inference_mode`."""
    import torch

    net = network_of(case, arrays, laid_out).eval()
    x = images_of(case, arrays, case.batch, laid_out)

    def call() -> Any:
        return net(x)

    return Candidate(name, call, lambda: {"y": on_host(call())}, wait, within=torch.inference_mode)


def make(case: Case, arrays: dict[str, np.ndarray], laid_out: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The step, and what `truth` judges: the losses of the first two."""
    import torch

    def answers() -> dict[str, np.ndarray]:
        step = step_of(case, arrays, networks.judged(case.layer, case.batch), laid_out)
        return {"losses": torch.stack([step() for _ in range(2)]).float().cpu().numpy()}

    return step_of(case, arrays, case.batch, laid_out), answers


def updates_of(case: Case, arrays: dict[str, np.ndarray]) -> list[Candidate]:
    """An optimizer's update, each tensor's operations in one launch for all, or fused into one."""
    if case.dtype != "float32":
        raise NotOfferedError("float32 only")
    return [_update(case, arrays, how) for how in ("foreach", "fused")]


def _update(case: Case, arrays: dict[str, np.ndarray], how: str) -> Candidate:
    import torch

    tensors = {name: torch.from_numpy(np.array(x)).to(place()) for name, x in arrays.items()}
    values = [tensor for name, tensor in tensors.items() if name.startswith("p")]
    for i, value in enumerate(values):
        value.grad = tensors[f"g{i}"]
    make: Any = getattr(torch.optim, case.layer.options["optimizer"])
    options: dict[str, Any] = {"betas": updates.BETAS, "eps": updates.EPS}
    if case.layer.options["optimizer"] == "SGD":
        options = {"momentum": updates.MOMENTUM}
    optimizer = make(values, lr=updates.LR, **{how: True}, **options)

    def answers() -> dict[str, np.ndarray]:
        for _ in range(updates.UPDATES):
            optimizer.step()
        return {f"p{i}": value.detach().cpu().numpy() for i, value in enumerate(values)}

    return Candidate(how, optimizer.step, answers, wait)


def _load(net: Any, arrays: dict[str, np.ndarray]) -> None:
    """Give the modules xpconv's values, which go by the same names."""
    import torch

    state, seen = net.state_dict(), None
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        value = arrays[name]
        if value.ndim == 4:
            seen, value = value, value.transpose(3, 2, 0, 1)
        elif value.ndim == 2:
            if seen is not None and value.shape[0] > seen.shape[-1]:  # after a flatten: rows go (H, W, C) -> (C, H, W)
                size = round((value.shape[0] / seen.shape[-1]) ** 0.5)
                value = value.reshape(size, size, seen.shape[-1], -1).transpose(2, 0, 1, 3).reshape(value.shape)
            seen, value = None, value.T
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(value)))
