"""What a layer owns: arrays that learn (`Parameter`), and arrays that are only remembered (`Buffer`)."""

from __future__ import annotations

from typing import Any

from xpconv.arrays import check_array
from xpconv.backend import Array, Backend, backend_of, cast, dtype_named, get, library, namespace
from xpconv.dispatch import dtype_kind
from xpconv.errors import describe, dtype_name, message
from xpconv.nn import init as inits
from xpconv.settings import current

Shape = tuple[int | None, ...]  # an axis that is `None` is read from the first input
_HALVES = ("float16", "bfloat16")
Key = tuple[int, str]  # the seed and the dotted name: all that first values depend on


class State:
    """An array that a layer owns, made once its shape, its place and its dtype are known.

    Attributes
    ----------
    shape : tuple of int or None
    dtype : str or None
        Of the value, or the one it will be made in; `None`: that of the first input.
    version : int
        Grows with every change of the value.
    """

    __slots__ = ("_key", "_value", "dtype", "init", "shape", "version")

    def __init__(self, given: Shape | Array, init: inits.Init | None = None) -> None:
        self.init = init
        self._key: Key | None = None
        self.version = 0
        self.dtype: str | None = None
        self._value: Array | None = None
        if isinstance(given, tuple):
            self.shape: Shape = self._checked(given)
        else:
            self.shape = tuple(given.shape)
            self.assign(given)

    def _checked(self, shape: Shape) -> Shape:
        if not all(n is None or (hasattr(n, "__index__") and n >= 0) for n in shape):
            raise TypeError(message(type(self).__name__, f"a shape holds integers from 0 on, or None, not {shape!r}."))
        return tuple(None if n is None else n.__index__() for n in shape)

    @property
    def value(self) -> Array | None:
        """The array, to be read; `assign` changes it. `None` until it can be made."""
        return self._value

    def assign(self, array: Array) -> None:
        """Take over the values of an array, in the buffer that is there if library, device, dtype and shape agree.

        Raises
        ------
        ValueError
            If the array has another shape.
        TypeError
            If it is not a plain array.
        """
        check_array(str(self), "value", array)
        if not self.fits(array.shape):
            raise ValueError(message(str(self), f"has shape {self.shape}.", describe("array", array)))
        dtype = self._kept_in(dtype_name(array.dtype))
        if dtype != dtype_name(array.dtype):
            array = cast(array, dtype_named(namespace(array), dtype))
        mine = self._value
        if mine is not None and mine.shape == array.shape and _place(mine) == _place(array):
            mine[...] = array
        else:
            self._value = copied(array)
        self.shape, self.dtype = tuple(array.shape), dtype
        self.version += 1

    def load(self, array: Any) -> None:
        """Take over values from any library, moved to where this one is; if nowhere yet, to the backend in force."""
        place = get(current().backend) if self._value is None else backend_of(self._value)
        self.assign(place.asarray(array, self.dtype))

    def fits(self, shape: Any) -> bool:
        """Whether an array of that shape can be the value."""
        return len(shape) == len(self.shape) and all(m in (None, n) for m, n in zip(self.shape, shape, strict=True))

    def settle(self, n: int) -> None:
        """Give the axes that are still open their size."""
        self.shape = tuple(n if m is None else m for m in self.shape)

    def make(self, place: Backend, dtype: str) -> None:
        """Draw the first values, if there is a rule for them and the shape is known."""
        if self.init is None or None in self.shape:
            return
        assert self._key is not None
        numbers = self.init(inits.generator(*self._key), self.shape)  # type: ignore[arg-type]
        self.dtype = self.dtype or self._kept_in(dtype)
        self._value = place.asarray(numbers, self.dtype)
        self.version += 1

    def to(self, place: Backend | None, dtype: str | None) -> None:
        """Move to a place and, unless it holds integers, to a dtype; one that is not made yet notes the dtype."""
        mine = self._value
        if dtype is not None and (self.dtype is None or dtype_kind(self.dtype) in "fc"):
            self.dtype = self._kept_in(dtype)
        if mine is not None:
            self._value = (place or backend_of(mine)).asarray(mine, self.dtype)
            self.version += 1

    def _kept_in(self, dtype: str) -> str:
        return dtype

    def __str__(self) -> str:
        return f"{type(self).__name__} {self._key[1]!r}" if self._key else type(self).__name__

    def __repr__(self) -> str:
        return f"<{self} {self.shape} {self.dtype or 'not made yet'}>"


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
        Grows with every change of the value; packed copies of weights are kept by it.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import nn
    >>> scale = nn.Parameter(np.ones(3))
    >>> scale.accumulate(np.full(3, 2.0)); scale.accumulate(np.full(3, 0.5))
    >>> scale.grad.tolist(), scale.version
    ([2.5, 2.5, 2.5], 1)
    """

    __slots__ = ("grad", "trainable")

    def __init__(self, given: Shape | Array, init: inits.Init | None = None, *, trainable: bool = True) -> None:
        self.grad: Array | None = None
        self.trainable = trainable
        super().__init__(given, inits.he_normal if init is None and isinstance(given, tuple) else init)

    def accumulate(self, grad: Array) -> None:
        """Add to the gradient: the one place where gradients arrive.

        The array is neither written to nor kept: it may be the caller's own dy. One that is not trainable takes none.

        Raises
        ------
        ValueError
            If the gradient differs from the value in shape, dtype, library or device.
        """
        if not self.trainable:
            return
        value = self._value
        if value is None or value.shape != grad.shape or _place(value) != _place(grad):
            rule = "a gradient must have the shape, dtype, library and device of the value."
            raise ValueError(message(str(self), rule, f"{describe('grad', grad)} · {describe('value', value)}"))
        self.grad = copied(grad) if self.grad is None else self.grad + grad

    def make(self, place: Backend, dtype: str) -> None:
        """Draw the first values, and forget the gradient."""
        self.grad = None
        super().make(place, dtype)

    def to(self, place: Backend | None, dtype: str | None) -> None:
        """Move the value and the gradient."""
        super().to(place, dtype)
        if self.grad is not None:
            self.grad = backend_of(self._value).asarray(self.grad, self.dtype)


class Buffer(State):
    """An array that is remembered and saved but does not learn: running statistics.

    Half-precision networks keep theirs in float32: the small steps of a running mean would be rounded away.
    """

    __slots__ = ()

    def beside(self, x: Array) -> Array:
        """The value for use in one op with x: rounded to its dtype if that is of half precision."""
        return cast(self.value, x.dtype) if dtype_name(x.dtype) in _HALVES else self.value

    def _kept_in(self, dtype: str) -> str:
        return "float32" if dtype in _HALVES else dtype


def _place(x: Array) -> tuple[Any, ...]:
    return library(x), x.device, x.dtype


def copied(x: Array) -> Array:
    """A copy that shares nothing with x."""
    return namespace(x).asarray(x, copy=True, device=x.device)
