"""Ops inside somebody's PyTorch model: PyTorch sees one function with its gradient."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

from xpconv.backend import Array, get, library
from xpconv.derivatives import vjp
from xpconv.dispatch import registered
from xpconv.errors import BackendError, message


def function(op: Callable[..., Any]) -> Callable[..., Any]:
    """Make of an op a function of torch tensors that PyTorch can differentiate.

    Parameters
    ----------
    op : function of `xpconv.ops`

    Returns
    -------
    function
        With the op's own parameters; arrays are tensors, in xpconv's layout. Those on the CPU are worked on as NumPy
        arrays that share their memory (bfloat16 ones, which NumPy lacks, as they are), those on a CUDA device as CuPy
        arrays that do, on PyTorch's current stream, where CuPy can be had; all others as they are.

    Raises
    ------
    TypeError
        If it is not an op; and, from the function, for an array that is no tensor.

    Notes
    -----
    Gradients are of first order: the backward pass cannot itself be differentiated. Tensors must not be changed in
    place between the forward and the backward pass, which then raises. Where no gradient is wanted (under
    `torch.no_grad`, or where no tensor requires one), nothing is kept.

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
        options = {name: value for name, value in given.items() if name not in names}
        tensors = [_tensor(known.name, name, given[name]) for name in names]
        return _bridge().run(_Call(op, names, options), tensors)

    return differentiable


@dataclass(frozen=True)
class _Call:
    """An op with its options (an array that is `None` among them), waiting for the arrays of these names."""

    op: Callable[..., Any]
    names: list[str]
    options: dict[str, Any]

    def value(self, arrays: list[Array]) -> Any:
        return self.op(**dict(zip(self.names, arrays, strict=True)), **self.options)

    def vjp(self, arrays: list[Array], needs: list[bool]) -> tuple[Any, Callable[[Array], list[Array | None]]]:
        """The result with a pullback, which gives a gradient or `None` for each name."""
        known = registered(self.op)
        needed, values = dict(zip(self.names, needs, strict=True)), dict(zip(self.names, arrays, strict=True))
        passed = known.arrays[: known.entries((), {**values, **self.options})]
        asked = tuple(needed.get(name, False) for name in passed)
        y, pullback = vjp(self.op, **values, **self.options, needs=asked)
        return y, lambda dy: [g for name, g in zip(passed, pullback(dy), strict=True) if name in needed]

    @property
    def may_keep_output(self) -> bool:
        """Whether the pullback may read y, so that changing y in place would spoil it."""
        return self.options.get("activation") is not None or registered(self.op).name not in _FREE


# Ops whose pullback has no use for y: in many models the layer that follows writes into it.
_FREE = {
    *("conv", "conv_transpose", "linear", "pad", "resize", "dropout"),
    *("batch_norm", "layer_norm", "group_norm", "instance_norm"),
    *("avg_pool", "adaptive_avg_pool", "global_avg_pool"),
}


@functools.cache
def _bridge() -> Any:
    """The torch autograd Function that runs an op and its pullback."""
    import torch

    class Bridge(torch.autograd.Function):
        @staticmethod
        def run(call: _Call, tensors: list[Any]) -> Any:
            if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
                return Bridge.apply(call, *tensors)
            with _stream_of(tensors[0]):
                y = call.value([_lent(x) for x in tensors])
                return tuple(map(_returned, y)) if isinstance(y, tuple) else _returned(y)

        @staticmethod
        def forward(ctx: Any, call: _Call, *tensors: Any) -> Any:
            with _stream_of(tensors[0]):
                y, ctx.pullback = call.vjp([_lent(x) for x in tensors], list(ctx.needs_input_grad[1:]))
                results = tuple(map(_returned, y if isinstance(y, tuple) else (y,)))
            ctx.mark_non_differentiable(*results[1:])
            ctx.save_for_backward(*tensors, *(results if call.may_keep_output else ()))
            return results if isinstance(y, tuple) else results[0]

        @staticmethod
        def backward(ctx: Any, dy: Any, *_: Any) -> Any:
            ctx.saved_tensors  # noqa: B018 - raises where one was changed in place, which the pullback would not notice
            with _stream_of(dy):
                grads = [None if g is None else _returned(g) for g in ctx.pullback(_lent(dy))]
            if torch.is_grad_enabled():  # create_graph=True: the gradients may be differentiated in their turn
                grads = [None if g is None else Once.apply(g, torch.zeros((), requires_grad=True)) for g in grads]
            return None, *grads

    class Once(torch.autograd.Function):
        """A gradient that says so when it is differentiated, where a constant would silently count for nothing."""

        @staticmethod
        def forward(ctx: Any, grad: Any, anchor: Any) -> Any:
            return grad.view_as(grad)

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            rule = "a gradient of an op of xpconv cannot itself be differentiated."
            raise RuntimeError(message("exchange.torch.function", rule, "", "call backward without create_graph=True."))

    return Bridge


def _tensor(op: str, name: str, x: Any) -> Any:
    import torch

    if not isinstance(x, torch.Tensor):
        kind = f"{type(x).__module__}.{type(x).__qualname__}"
        raise TypeError(
            message(op, f"{name} is a {kind}, not a torch tensor.", "", f"call ops.{op} with other arrays.")
        )
    return x


def _lent(x: Any) -> Array:
    """The tensor's values for an engine, which shares its memory."""
    x = x.detach().resolve_conj().resolve_neg()
    if x.device.type == "cpu":
        return x if str(x.dtype) == "torch.bfloat16" else x.numpy()
    cupy = _cupy() if x.device.type == "cuda" else None
    return x if cupy is None else cupy.from_dlpack(x)


def _returned(x: Array) -> Any:
    import torch

    if isinstance(x, torch.Tensor):
        return x
    return torch.as_tensor(x) if library(x) == "numpy" else torch.from_dlpack(x)


def _stream_of(x: Any) -> AbstractContextManager[Any]:
    """Where CuPy is to work on a CUDA tensor, the stream that PyTorch works on: each then waits for the other."""
    cupy = _cupy() if x.device.type == "cuda" else None
    if cupy is None:
        return nullcontext()
    import torch

    with ExitStack() as stack:
        stack.enter_context(cupy.cuda.Device(x.device.index))
        stack.enter_context(cupy.cuda.Stream.from_external(_Stream(torch.cuda.current_stream(x.device).cuda_stream)))
        return stack.pop_all()


@dataclass(frozen=True)
class _Stream:
    """A stream as libraries hand it to one another; PyTorch's own class says it in later versions only."""

    address: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


@functools.cache
def _cupy() -> Any:
    """CuPy's namespace, or `None` where it cannot be had."""
    try:
        return get("cupy").xp
    except BackendError:
        return None
