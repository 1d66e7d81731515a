"""Convolution in three directions on CuPy arrays, each in one launch of a plan.

The library names axes in the order N, C, spatial; where an axis lies is what strides say, and with the channels' stride
1 it reads our arrays as they are. Weights it takes as (O, *kernel, C / groups), which is ours with the last axis first:
a copy that a layer's parameter keeps. Where measuring has found it faster, all is copied for the other layout. What the
library does not fuse is done elementwise after the convolution, in float32 and float64 alone: a half-precision result
has been rounded by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from operator import is_, itemgetter
from typing import Any

import cupy

from xpconv.backend import Array
from xpconv.dispatch import Primitive
from xpconv.engines.cudnn import library, plans
from xpconv.engines.cudnn.finish import finish
from xpconv.engines.cudnn.graph import ACTIVATIONS, TYPES
from xpconv.engines.cudnn.layouts import blank, blank_weights, image, ready, weights, written, written_weights
from xpconv.engines.cudnn.plans import Plan, Way
from xpconv.engines.cudnn.problem import Problem, dgrad_problem, fprop_problem, wgrad_problem
from xpconv.settings import current
from xpconv.window import Window


def fprop(way: Way, x: Array, w: Array, *, window: Window, groups: int, epilogue: Any) -> Any:
    """y = activation(conv(x, w) · scale + bias + residual): (N, *size, C) -> (N, *out, O)."""
    bias, residual, activation, keep, scale = epilogue
    fused, layout = way.problem, way.problem.layout
    y = blank((x.shape[0], *window.out, w.shape[-1]), x.dtype, layout)
    extras = _extras((scale, fused.scale), (bias, fused.bias), (residual, fused.residual))
    if fused.keep_sums:
        sums = cupy.empty_like(y)
        way.run(image(x, layout), weights(w, layout), *extras, y, sums)
        return written(y, layout), written(sums, layout)
    way.run(image(x, layout), weights(w, layout), *extras, y)
    rest = (None if fused.bias else bias, None if fused.residual else residual)
    return finish(written(y, layout), *rest, None if fused.activation else activation, keep)


def dgrad(
    way: Way, dy: Array, w: Array, *, window: Window, groups: int, bias: Array | None, residual: Array | None
) -> Array:
    """dx = the transpose of `fprop` in x, plus a bias and a residual: (N, *out, O) -> (N, *size, C)."""
    fused, layout = way.problem, way.problem.layout
    dx = blank((dy.shape[0], *window.size, w.shape[-2] * groups), dy.dtype, layout)
    extras = _extras((bias, fused.bias), (residual, fused.residual))
    way.run(image(dy, layout), weights(w, layout), *extras, dx)
    rest = (None if fused.bias else bias, None if fused.residual else residual)
    return finish(written(dx, layout), *rest, None, False)


def wgrad(way: Way, x: Array, dy: Array, *, window: Window, groups: int, w_shape: tuple[int, ...]) -> Array:
    """dw = the transpose of `fprop` in w: (N, *size, C), (N, *out, O) -> (*kernel, C / groups, O)."""
    layout = way.problem.layout
    dw = blank_weights(w_shape, x.dtype, layout)
    way.run(image(x, layout), image(dy, layout), dw)
    return written_weights(dw, layout)


def _extras(*given: tuple[Array | None, bool]) -> list[Array]:
    """Those that are fused, as a plan takes them: vectors, and residuals in our layout."""
    return [ready(extra) for extra, fused in given if fused]


def _plan(problem: Problem) -> Plan:
    """The plan that fuses most; `declines` has seen that there is one."""
    plan = _found(problem)
    assert isinstance(plan, Plan), plan
    return plan


def _found(problem: Problem) -> Plan | str:
    """The plan that fuses all; else, where nothing is rounded between, one that fuses the bias, or nothing."""
    plan = plans.find(problem) if problem.activation in (None, *ACTIVATIONS) else f"has no {problem.activation}"
    if isinstance(plan, Plan):
        return plan
    return next((found for less in problem.lesser if isinstance(found := plans.find(less), Plan)), plan)


def _answer(problem: Problem) -> Plan | str:
    """The plan for a problem, or why it is not for this engine."""
    if problem.dtype not in TYPES:
        return f"takes {', '.join(TYPES)}, not {problem.dtype}"
    if not problem.images or 0 in problem.window.size:
        return "leaves empty arrays to others"
    if problem.scale and not problem.autotune:
        return "compiles a kernel for each layer and batch size to take a norm in: only with autotune(True)"
    try:
        library.prepare(problem.device)
        return _found(problem)
    except (RuntimeError, MemoryError) as error:  # no handle or no memory, or a graph is captured: not remembered
        return "cannot start here: " + " ".join(line.strip() for line in str(error).splitlines())


def _told(problem: Problem) -> str:
    """A plan in words for `explain`."""
    plan = _plan(problem)
    way = plan.way
    fused, left = _names(way.problem), [name for name in _names(problem) if name not in _names(way.problem)]
    copies = f" between copies from and to NHWC of {way.problem.copies} B" if way.problem.copies else ""
    parts = [
        f"{way.problem.layout} in one launch{copies}" + (f" with {', '.join(fused)}" if fused else ""),
        *([f"{', '.join(left)} after it"] if left else []),
        f"plan {way.name} by {'measurement' if problem.autotune and plan.tuned else 'heuristics'}",
        f"{way.workspace} B workspace",
    ]
    return ", ".join(parts)


def _names(problem: Problem) -> list[str]:
    """What is done to the sums, in words."""
    fused = {"scale": problem.scale, "bias": problem.bias, "residual": problem.residual}
    named = {**fused, str(problem.activation): problem.activation}
    return [name for name, there in named.items() if there]


class _Asked(threading.local):
    """What a direction was asked last in this thread, and the plan that it has for it."""

    call: tuple[Any, ...] = ()
    plan: Plan | None = None

    def keep(self, plan: Plan, call: tuple[Any, ...]) -> None:
        self.plan, self.call = plan, call

    def take(self, call: tuple[Any, ...]) -> Plan | None:
        """The plan, if it is for this very call; nothing of it stays."""
        plan, asked = self.plan, self.call
        self.plan, self.call = None, ()
        return plan if len(asked) == len(call) and all(map(is_, asked, call)) else None


def _primitive(run: Callable[..., Any], problem_of: Callable[..., Problem], names: tuple[str, ...]) -> Primitive:
    """A direction as dispatch asks for it: first whether it declines, then for the work, with the plan found before."""
    asked, values = _Asked(), itemgetter(*names)

    def declines(*arrays: Any, **options: Any) -> str | None:
        found = _answer(problem_of(*arrays, **options))
        if isinstance(found, str):
            return found
        asked.keep(found, (current(), *arrays, *values(options)))
        return None

    def planned(*arrays: Any, **options: Any) -> Any:
        plan = asked.take((current(), *arrays, *values(options))) or _plan(problem_of(*arrays, **options))
        return run(plan.settled(lambda way: run(way, *arrays, **options)), *arrays, **options)

    def describe(*arrays: Any, **options: Any) -> str:
        asked.take(())
        return _told(problem_of(*arrays, **options))

    return Primitive(planned, declines=declines, describe=describe)


PRIMITIVES: dict[str, Primitive] = {
    "conv_fprop": _primitive(fprop, fprop_problem, ("window", "groups", "epilogue")),
    "conv_dgrad": _primitive(dgrad, dgrad_problem, ("window", "groups", "bias", "residual")),
    "conv_wgrad": _primitive(wgrad, wgrad_problem, ("window", "groups", "w_shape")),
}
