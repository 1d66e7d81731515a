"""Ops inside somebody's PyTorch model: PyTorch sees one function with its gradient."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from xpconv.backend import Array
from xpconv.dispatch import registered, vjp


def function(op: Callable[..., Any]) -> Callable[..., Any]:
    """Make of an op a function of torch tensors that PyTorch can differentiate.

    Parameters
    ----------
    op : function of `xpconv.ops`

    Returns
    -------
    function
        With the op's own parameters; arrays are tensors, in xpconv's layout. Those on the CPU are worked on as NumPy
        arrays that share their memory (bfloat16 ones, which NumPy lacks, as they are), others where they are.

    Raises
    ------
    TypeError
        If it is not an op.

    Notes
    -----
    Gradients are of first order: the backward pass cannot itself be differentiated.

    Examples
    --------
    >>> from xpconv import ops
    >>> from xpconv.exchange import torch
    >>> relu = torch.function(ops.relu)      # then: relu(tensor).sum().backward()
    """
    known, signature = registered(op), inspect.signature(op)

    @functools.wraps(op)
    def differentiable(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        names = [name for name in known.arrays if given.get(name) is not None]
        options = {name: value for name, value in given.items() if name not in known.arrays}
        passed = known.arrays[: known.arrays.index(names[-1]) + 1]

        def run(arrays: list[Array], needs: list[bool]) -> tuple[Any, Callable[[Array], list[Array | None]]]:
            needed = dict(zip(names, needs, strict=True))
            asked = tuple(needed.get(name, False) for name in passed)
            y, pullback = vjp(op, **dict(zip(names, arrays, strict=True)), **options, needs=asked)
            return y, lambda dy: [g for name, g in zip(passed, pullback(dy), strict=True) if name in needed]

        return _bridge().apply(run, *(given[name] for name in names))

    return differentiable


@functools.cache
def _bridge() -> Any:
    """The torch autograd Function that runs an op and its pullback."""
    import torch

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, run: Any, *tensors: Any) -> Any:
            y, ctx.pullback = run([_lent(x) for x in tensors], list(ctx.needs_input_grad[1:]))
            results = tuple(map(_returned, y if isinstance(y, tuple) else (y,)))
            ctx.mark_non_differentiable(*results[1:])
            return results if isinstance(y, tuple) else results[0]

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, dy: Any, *_: Any) -> Any:
            grads = ctx.pullback(_lent(dy))
            return None, *(None if g is None else _returned(g) for g in grads)

    return Bridge


def _lent(x: Any) -> Array:
    """The tensor's values for an engine: as a NumPy array where they lie on the CPU."""
    x = x.detach()
    return x.numpy() if x.device.type == "cpu" and str(x.dtype) != "torch.bfloat16" else x


def _returned(x: Array) -> Any:
    import torch

    return x if isinstance(x, torch.Tensor) else torch.as_tensor(x)
