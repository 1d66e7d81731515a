"""What a layer owns: arrays that learn (`Parameter`), and arrays that are only remembered (`Buffer`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpconv.backend import HALVES, Array, Backend, backend_of
from xpconv.errors import describe, message
from xpconv.nn import init as inits
from xpconv.nn.held import place_of
from xpconv.nn.state import Shape, State
from xpconv.packing import Place
from xpconv.runtime import copied, made


class Parameter(State):
    """An array that learns: its value, the gradient gathered for it, and whether it takes one.

    Parameters
    ----------
    given : tuple of int or None, or array
        A shape, whose values are drawn when the layer is initialised; or the values themselves, which are copied.
    init : function of (generator, shape), optional
        What draws the values of a shape; default: `nn.init.he_normal`.
    trainable : bool
        One that is not takes no gradient, and no time is spent on computing it.

    Attributes
    ----------
    value, grad : array or None
    trainable : bool
    version : int
        Grows with every change of the value.
    packed : Place
        What engines keep of this version of the value; a new one follows every change. See `xpconv.packing`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import nn
    >>> scale = nn.Parameter(np.ones(3))
    >>> scale.accumulate(np.full(3, 2.0)); scale.accumulate(np.full(3, 0.5))
    >>> scale.grad.tolist(), scale.version
    ([2.5, 2.5, 2.5], 1)
    """

    __slots__ = ("grad", "packed", "trainable")

    def __init__(self, given: Shape | Array, init: inits.Init | None = None, *, trainable: bool = True) -> None:
        self.packed = Place()
        self.grad: Array | None = None
        self.trainable = trainable
        super().__init__(given, inits.he_normal if init is None and isinstance(given, tuple) else init)

    def accumulate(self, grad: Array, *, fresh: bool = False) -> None:
        """Add to the gradient: the one place where gradients arrive.

        The array is never written to, and a copy is kept of it, since it may be the caller's own dy; a ``fresh`` one,
        which nobody else has, is kept itself. A parameter that is not trainable takes none.

        Raises
        ------
        ValueError
            If the gradient differs from the value in shape, dtype, library or device.
        """
        if not self.trainable:
            return
        value = self._value
        if value is None or value.shape != grad.shape or place_of(value) != place_of(grad):
            rule = "a gradient must have the shape, dtype, library and device of the value."
            raise ValueError(message(str(self), rule, f"{describe('grad', grad)} · {describe('value', value)}"))
        if self.grad is not None:
            before: Any = self.grad
            self.grad = made(lambda: before + grad)
        else:
            self.grad = grad if fresh else copied(grad)

    def touch(self) -> None:
        """Note a change of the value: what was packed from the old one is dropped."""
        super().touch()
        self.packed = Place()

    def make(self, place: Backend, dtype: str) -> None:
        """Draw the first values, and forget the gradient."""
        self.grad = None
        super().make(place, dtype)

    def moving(self, place: Backend | None, dtype: str | None) -> Callable[[], None]:
        """Convert the value and the gradient."""
        move, grad = super().moving(place, dtype), self.grad
        if grad is not None:
            grad = (place or backend_of(grad)).asarray(grad, dtype or self.dtype)

        def both() -> None:
            move()
            self.grad = grad

        return both


class Buffer(State):
    """An array that is remembered and saved but does not learn: running statistics.

    Half-precision networks keep theirs in float32: the small steps of a running mean would be rounded away.
    """

    __slots__ = ()

    def _kept_in(self, dtype: str) -> str:
        return "float32" if dtype in HALVES else dtype
