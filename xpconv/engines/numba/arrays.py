"""What kernels may be handed: plain float32 and float64 memory, by address."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from xpconv.engines.numba import strided
from xpconv.engines.numba.fields import CACHE_LINE
from xpconv.engines.numba.recording import hold
from xpconv.engines.numba.reuse import LEAST, outputs
from xpconv.packing import place_for
from xpconv.runtime import note, recorder, recorders

DTYPES = (np.dtype("float32"), np.dtype("float64"))


# Where an array object has the address of its elements, by NumPy's C API: first, behind what all objects begin with.
_DATA = object.__basicsize__
_read = ctypes.c_size_t.from_address  # a third of the time of asking the array, a thousand times in a training step

_CACHED = 2**24  # bytes of x and y together; beyond, what is stored would push out what is yet to be read
_LITTLE = 2**16  # bytes up to which NumPy copies as fast
_SMALL = 4096  # bytes up to which aligning an array costs more than it saves


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be written to, which starts at a cache line."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes <= _SMALL:
        return np.empty(shape, dtype)
    if nbytes >= LEAST:
        noting = recorder()
        store = outputs if noting is None else noting.memory
        return np.ndarray(shape, dtype, *store.take(nbytes))
    memory = np.empty(nbytes + CACHE_LINE, np.uint8)
    return np.ndarray(shape, dtype, memory, -place(memory) % CACHE_LINE)


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of zeros that kernels may add to."""
    x = np.zeros(shape, dtype)
    note(lambda: x.fill(0))
    return x


def copied(x: np.ndarray, dtype: Any = None) -> np.ndarray:
    """A copy in C order."""
    if dtype is None and getattr(x, "nbytes", 0) > _LITTLE and strided.copies(x):
        y = empty(x.shape, x.dtype)
        strided.copy(place(x), place(y), x.itemsize, x.shape, x.strides, y.strides)
        return y
    y = np.array(x, dtype, order="C")
    note(lambda: np.copyto(y, x, casting="unsafe"))
    return y


def place(x: np.ndarray) -> int:
    """The address of the first element; of an array indeed, as `dense` answers with, for what else has none there."""
    if recorders:
        hold(x)
    return _read(id(x) + _DATA).value


def place_of(x: np.ndarray | None) -> int:
    """The address of the first element, 0 for none."""
    return 0 if x is None else place(x)


def streams(x: np.ndarray, y: np.ndarray, lanes: int) -> bool:
    """Whether stores should go past the caches: where there is too much for them, and vectors are lines of theirs."""
    if x.nbytes + y.nbytes <= _CACHED or lanes * y.itemsize % CACHE_LINE:
        return False
    return not any(stride % CACHE_LINE for stride in (place(y), *y.strides[:-1]))


_DENSE = (
    0x101  # C-contiguous and aligned, as NumPy's C API numbers its flags: asking for both by name takes twice as long
)


def dense(x: np.ndarray) -> np.ndarray:
    """The array itself if it lies in C order and aligned, else such a copy; NumPy's scalars, no arrays, become one."""
    return x if isinstance(x, np.ndarray) and x.flags.num & _DENSE == _DENSE else copied(x)


def dense_channels(x: np.ndarray) -> np.ndarray:
    """The array itself if its channels lie side by side, whatever the other strides are; else a copy in C order."""
    return x if has_dense_channels(x) else copied(x)


def has_dense_channels(x: np.ndarray) -> bool:
    """Whether channels lie side by side."""
    return x.strides[-1] == x.itemsize and x.flags.aligned


def unsupported(*arrays: Any) -> str | None:
    """Why kernels cannot take these arrays, or `None`: the reason that primitives decline with."""
    for x in arrays:
        if x is not None and x.dtype not in DTYPES:
            return f"computes in float32 and float64 of this machine's byte order, not {x.dtype.name}"
    return None


def kept(w: np.ndarray, what: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What is made of some weights: once for each version of a layer's parameter, each time for other arrays."""
    place = place_for(w)
    if place is None:
        return make()
    key = ("numba", what)
    found = place.get(key)
    if found is None:
        found = place[key] = make()
    return found


if place(_probe := np.empty(1)) != _probe.__array_interface__["data"][0]:
    raise ImportError("arrays of this NumPy do not lie as its C API says, and kernels take addresses")
