"""How gradients are asked for: an op's result, and the function that takes its gradient to those of the op's arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.arrays import check_array
from xpconv.backend import Array, library, on_device_of
from xpconv.dispatch import Needs, Pullback, registered
from xpconv.errors import describe, dtype_name, message
from xpconv.kinds import is_inexact
from xpconv.settings import applied, current


def vjp(op: Callable[..., Any], /, *args: Any, needs: Needs | None = None, **options: Any) -> tuple[Any, Pullback]:
    """Run an op and return its result with a pullback, the vector-Jacobian product.

    Parameters
    ----------
    op : function of `xpconv.ops`
    *args, **options
        The op's own arguments.
    needs : tuple of bool, optional
        Whether each array parameter's gradient is wanted, in signature order, one entry per gradient returned;
        default: all. What is not needed is neither computed nor kept.

    Returns
    -------
    y : what the op returns
    pullback : ``pullback(dy) -> tuple``
        One gradient for each array parameter, in signature order, as far as the last one passed, with that
        argument's shape and dtype; `None` for one passed as `None`, for integer arrays, and for what is not needed.
        ``dy`` has the shape and dtype of y (of the first of several results). It may be called again. It runs under
        the settings that held at `vjp`, and keeps what the gradients need until it is dropped; the arrays given, y and
        dy must not be written to before that.

    Raises
    ------
    TypeError, ValueError
        As the op does; also for a ``dy`` or ``needs`` that does not fit.

    Notes
    -----
    For complex arrays the gradient of a real loss L is ``dL/dRe + i dL/dIm``, as in PyTorch.

    Examples
    --------
    >>> import numpy as np, xpconv
    >>> from xpconv import ops
    >>> x, w = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 5))
    >>> y, pullback = xpconv.vjp(ops.conv, x, w, padding="same", needs=(False, True))
    >>> [None if g is None else g.shape for g in pullback(np.ones_like(y))]
    [None, (3, 3, 2, 5)]
    """
    known = registered(op)
    call = known.bind(*args, **options)
    entries = known.entries(args, options)
    if needs is not None and (not isinstance(needs, (tuple, list)) or len(needs) != entries):
        rule = f"needs has an entry for each of {entries} arrays ({', '.join(known.arrays[:entries])})."
        raise ValueError(message(known.name, rule, f"given: needs={needs!r}"))
    asked = (True,) * entries if needs is None else needs
    pairs = zip(call.arrays, (*asked, *(False,) * (len(call.arrays) - entries)), strict=True)
    wanted = tuple([x is not None and bool(ask) and is_inexact(x) for x, ask in pairs])
    with on_device_of(call.arrays[0]):
        y, backward = call.vjp(wanted)
    settings, like, like_x = current(), _likeness(y), _likeness(call.arrays[0]) if call.adds_beside else None

    def pullback(dy: Array, *beside: Array) -> tuple[Array | None, ...]:  # beside: from layers, see `Pullback`
        check_array(known.name, "dy", dy)
        if _likeness(dy) != like:
            raise _unfit(known.name, "dy", dy, "y", like)
        if beside:
            _check_beside(known.name, beside, like_x)
        if not any(wanted):
            return (None,) * entries
        with applied(settings), on_device_of(dy):
            return backward(dy, *beside)[:entries]

    return y, pullback


def _likeness(y: Any) -> tuple[Any, ...]:
    first = y[0] if isinstance(y, tuple) else y
    if type(first) is np.ndarray:  # whose device is the only one
        return ("numpy", "cpu", first.dtype, first.shape)
    return (library(first), first.device, first.dtype, tuple(first.shape))


def _unfit(op: str, name: str, given: Array, of: str, like: tuple[Any, ...]) -> Exception:
    kind = ValueError if _likeness(given)[:3] == like[:3] else TypeError
    evidence = f"{describe(name, given)} · {of} {like[3]} {dtype_name(like[2])} of {like[0]} on {like[1]}"
    return kind(message(op, f"{name} must have the shape, dtype, library and device of {of}.", evidence))


def _check_beside(op: str, beside: tuple[Array, ...], like: tuple[Any, ...] | None) -> None:
    if like is None or len(beside) > 1:
        raise TypeError(message(op, "a pullback takes dy alone.", f"given: {1 + len(beside)} arrays"))
    check_array(op, "beside", beside[0])
    if _likeness(beside[0]) != like:
        raise _unfit(op, "beside", beside[0], "x", like)
