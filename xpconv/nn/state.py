"""An array that a layer owns: how it comes to have a value, and takes over, moves and changes it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.arguments import integer
from xpconv.arrays import check_array
from xpconv.backend import Array, Backend, backend_of, cast, dtype_named, get, namespace
from xpconv.errors import describe, dtype_name, message
from xpconv.kinds import dtype_kind
from xpconv.nn import init as inits
from xpconv.nn.held import owned, place_of, protect
from xpconv.runtime import copied
from xpconv.settings import current

Shape = tuple[int | None, ...]  # an axis that is `None` is read from the first input
Key = tuple[int, str]  # the seed and the dotted name: all that first values depend on


def shown(shape: Shape) -> str:
    """A shape as a message has it: an axis that is still open takes any size."""
    return str(tuple("any" if n is None else n for n in shape)).replace("'", "")


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
            check_array(type(self).__name__, "the value", given)
            self.shape = tuple(given.shape)
            self.assign(given)

    def _checked(self, shape: Shape) -> Shape:
        kind = type(self).__name__
        return tuple(None if n is None else integer(kind, "a size in the shape", n, least=0) for n in shape)

    @property
    def value(self) -> Array | None:
        """The array. `None` until it can be made; NumPy's are write-protected.

        What it is set to is cast and moved to where it is; `assign` takes an array with its library and dtype.
        """
        return self._value

    @value.setter
    def value(self, array: Array) -> None:
        self.loading(array)()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """NumPy's view of a value of NumPy's: without it, np.asarray would put the parameter itself into an array."""
        if not isinstance(self._value, np.ndarray):
            remedy = "pass its value, by xpconv.to_numpy(parameter.value)."
            raise TypeError(message(str(self), "has no NumPy array as its value.", "", remedy))
        return np.array(self._value, dtype=dtype, copy=copy)

    def assign(self, array: Array) -> None:
        """Take over the values of an array, in the buffer that is there if library, device, dtype and shape agree.

        Raises
        ------
        ValueError
            If the array has another shape.
        TypeError
            If it is not a plain array.
        """
        self._put(self._ready(array))

    def advance(self, array: Array) -> None:
        """Take over values that were computed from this state's own, which need no judging."""
        self._put(array)

    def loading(self, array: Any) -> Callable[[], None]:
        """Convert values of any library to this one's place (else the backend in force) and dtype.

        Nothing changes until the function that it returns is called, which takes them over.

        Raises
        ------
        ValueError
            If the array has another shape.
        TypeError
            If it is not a plain array, or complex where this one is real.
        """
        if isinstance(array, np.ndarray) and type(array) is not np.ndarray:
            check_array(str(self), "value", array)
        given = array if hasattr(array, "dtype") else np.asarray(array)
        self._check_kept(dtype_name(given.dtype), self.dtype)
        place = get(current().backend) if self._value is None else backend_of(self._value)
        return functools.partial(self._put, self._ready(place.asarray(array, self.dtype)))

    def _ready(self, array: Array) -> Array:
        """The array in the dtype that it is kept in, if it can be the value."""
        check_array(str(self), "value", array)
        if not self.fits(array.shape):
            raise ValueError(message(str(self), f"has shape {shown(self.shape)}.", describe("array", array)))
        given = dtype_name(array.dtype)
        dtype = self._kept_in(given)
        return array if dtype == given else cast(array, dtype_named(namespace(array), dtype))

    def _put(self, array: Array) -> None:
        mine = self._value
        if mine is not None and mine.shape == array.shape and place_of(mine) == place_of(array):
            try:
                protect(mine, False)
                mine[...] = array
            finally:  # a write that was interrupted has changed something too
                protect(mine, True)
                self.touch()
        else:
            self._hold(copied(array))
            self.shape, self.dtype = tuple(array.shape), dtype_name(array.dtype)

    def _hold(self, array: Array) -> None:
        """Take an array of one's own as the value."""
        self._value = owned(array)
        self.touch()

    def touch(self) -> None:
        """Note a change of the value: called after it, never before, by whoever wrote to it where it lies."""
        self.version += 1

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
        self._hold(copied(place.asarray(numbers, self.dtype)))  # an init may return what is not its own

    def moving(self, place: Backend | None, dtype: str | None) -> Callable[[], None]:
        """Convert to a place and, unless it holds integers, to a dtype; one that is not made yet notes the dtype.

        Nothing changes until the function that it returns is called.

        Raises
        ------
        TypeError
            For a dtype that the place lacks, or a real one where the value is complex.
        """
        mine, kept = self._value, self.dtype
        if dtype is not None and (kept is None or dtype_kind(kept) in "fc"):
            kept = self._kept_in(dtype)
        if mine is not None:
            self._check_kept(dtype_name(mine.dtype), kept)
            mine = (place or backend_of(mine)).asarray(mine, kept)
        elif kept is not None:
            dtype_named((place or get(current().backend)).xp, kept)
        return functools.partial(self._moved, mine, kept)

    def _moved(self, value: Array | None, dtype: str | None) -> None:
        self.dtype = dtype
        if value is not None:
            self._hold(value)

    def _check_kept(self, given: str, kept: str | None) -> None:
        """Check that nothing but rounding is lost by keeping values of one dtype in another."""
        if kept is not None and dtype_kind(given) == "c" and dtype_kind(kept) != "c":
            rule = f"{given} values in {kept} would lose their imaginary parts."
            raise TypeError(message(str(self), rule, "", "take the real parts first, or keep to a complex dtype."))

    def _kept_in(self, dtype: str) -> str:
        return dtype

    def __copy__(self) -> State:
        """A copy of its own: two that shared a value would not see one another's changes."""
        return copy.deepcopy(self)

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():
            setattr(self, name, value)
        self._value = owned(self._value)  # copies are not protected; what was pickled lies in bytes that never change

    def __str__(self) -> str:
        return f"{type(self).__name__} {self._key[1]!r}" if self._key else type(self).__name__

    def __repr__(self) -> str:
        return f"<{self} {self.shape} {self.dtype or 'not made yet'}>"


def value_of(argument: Any) -> Any:
    """What an op is given for it: the value of an array that a layer owns, and anything else as it is."""
    return argument.value if isinstance(argument, State) else argument
