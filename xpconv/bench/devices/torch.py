"""The GPU as PyTorch sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from xpconv.bench.devices.cuda import Cuda


class TorchDevice(Cuda):
    """A CUDA device by its name in PyTorch."""

    def __init__(self, name: str) -> None:
        self._name = name
        torch.cuda.set_device(name)

    def record(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, first: Any, last: Any) -> float:
        return float(first.elapsed_time(last)) / 1e3

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._name)

    def copying(self, count: int) -> Callable[[], Any]:
        x, y = (torch.ones(count // 4, device=self._name) for _ in range(2))
        return lambda: y.copy_(x)

    def multiplying(self, n: int, dtype: str) -> Callable[[], Any]:
        x, y = (torch.randn(n, n, device=self._name).to(getattr(torch, dtype)) for _ in range(2))
        return lambda: x @ y

    def peak(self, call: Callable[[], Any]) -> int | None:
        """The most that was allocated at a time."""
        torch.cuda.synchronize(self._name)
        torch.cuda.reset_peak_memory_stats(self._name)
        before = torch.cuda.memory_allocated(self._name)
        kept = call()
        self.synchronize()
        del kept
        return int(torch.cuda.max_memory_allocated(self._name) - before)

    def release(self) -> None:
        torch.cuda.empty_cache()
