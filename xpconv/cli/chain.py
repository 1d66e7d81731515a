"""Whether the engines that were asked for can do all that a network needs: told at the start, with what would do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv import nn, ops
from xpconv.backend import Array, asarray
from xpconv.cli.console import UsageError
from xpconv.dispatch import engine_primitives, offered, registered, select
from xpconv.errors import message
from xpconv.nn.gate import Watch, watcher
from xpconv.nn.state import value_of
from xpconv.settings import TOTAL, current, use_engine


def check_training(net: nn.Module, shape: tuple[int, ...]) -> None:
    """Run one image through the network by an engine that can do all, and ask of each layer who would train it."""
    engines = current().engine
    if engines is None or any(name in TOTAL for name in engines):
        return
    image = asarray(np.zeros((1, *shape), np.float32))
    if all(isinstance(engine_primitives(name), str) for name in engines):
        select("conv_fprop", image)  # is refused, with the reason of each
    asked = _Asked(engines)
    token = watcher.set(asked)
    try:
        with use_engine("portable"):
            outputs = copy.deepcopy(net)(image)
            asked.of(ops.softmax_cross_entropy, (outputs, asarray(np.zeros(1, np.int64))), {})
    finally:
        watcher.reset(token)
    if asked.missing:
        chain = ",".join(engines)
        rule = f"{chain} cannot do all that this network needs: {', '.join(asked.missing)}."
        raise UsageError(message("--engine", rule, "", f"let portable do what is left: --engine {chain},portable"))


class _Asked(Watch):
    """Told of every module that the image passes through."""

    def __init__(self, engines: tuple[str, ...]) -> None:
        self.engines = engines
        self.missing: dict[str, None] = {}  # primitives, in the order in which they were met

    def __call__(self, module: Any, x: Array, run: Callable[[], Any]) -> Any:
        if isinstance(module, nn.Layer):
            op, args, options = module.bind(x, True)
            self.of(op, tuple(map(value_of, args)), {name: value_of(option) for name, option in options.items()})
        return run()

    def of(self, op: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Note what of a call no engine would serve."""
        call = registered(op).bind(*args, **options)
        with use_engine(*self.engines):
            refused = [name for name, arrays, opts in call.parts() if offered(name, *arrays, **opts) is None]
        self.missing |= dict.fromkeys(refused)
