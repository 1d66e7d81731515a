"""The namespace: NumPy's functions by name, and what CuPy does in a way of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cupy import _array, _capture
from cupy._array import apply, called, ndarray, wrap
from cupy.cuda.device import synchronise

# Functions that CuPy has under NumPy's name and with its meaning.
_NAMES = """
abs absolute add all amax amin any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argsort
atleast_1d bitwise_and bitwise_or bitwise_xor broadcast_to ceil clip concatenate conj conjugate
copysign cos cosh count_nonzero cumprod cumsum diff divide dot equal exp exp2 expand_dims expm1 flip floor
floor_divide fmax fmin greater greater_equal hypot imag invert isfinite isinf isnan isclose left_shift
less less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor max maximum mean min
minimum mod moveaxis multiply negative nextafter not_equal pad positive power prod ravel real reciprocal remainder
repeat reshape right_shift rint roll round searchsorted sign signbit sin sinh sort split sqrt square squeeze stack
std subtract sum swapaxes take take_along_axis tan tanh tile transpose trunc true_divide var broadcast_arrays
meshgrid tril triu fabs argpartition rollaxis float_power vdot
"""

_DTYPES = """
bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 intp dtype
generic number integer inexact floating complexfloating signedinteger unsignedinteger
"""

CONSTANTS = ("e", "pi", "inf", "nan", "newaxis")

# About dtypes alone, no array among their arguments.
ABOUT_DTYPES = ("can_cast", "result_type", "promote_types", "issubdtype", "isdtype", "finfo", "iinfo")


def namespace() -> dict[str, Any]:
    found: dict[str, Any] = {name: through(getattr(np, name)) for name in _NAMES.split()}
    found |= {name: getattr(np, name) for name in (*_DTYPES.split(), *CONSTANTS)}
    found |= {name: _about_dtypes(getattr(np, name)) for name in ABOUT_DTYPES}
    made_here = (
        array,
        asarray,
        ascontiguousarray,
        asnumpy,
        arange,
        empty,
        zeros,
        ones,
        full,
        eye,
        linspace,
        empty_like,
    )
    made_here += (zeros_like, ones_like, full_like, matmul, tensordot, get_array_module, copy, astype, nonzero, copyto)
    made_here += (where, argmax, argmin, array_equal, allclose)
    return found | {function.__name__: function for function in made_here}


def through(function: Callable[..., Any]) -> Callable[..., Any]:
    def through_numpy(*args: Any, **kwargs: Any) -> Any:
        return called(function.__name__, function, *args, **kwargs)

    through_numpy.__name__ = through_numpy.__qualname__ = function.__name__
    return through_numpy


def _about_dtypes(function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*(a.dtype if isinstance(a, ndarray) else a for a in args), **kwargs)

    return called


# -- making arrays ---------------------------------------------------------------------------------------------------


def array(obj: Any, dtype: Any = None, copy: bool = True, order: str = "K", **_: Any) -> ndarray:
    if isinstance(obj, ndarray):
        wanted = obj.dtype if dtype is None else np.dtype(dtype)
        return apply(lambda x: x.astype(wanted, order=order, copy=bool(copy)), obj)
    if isinstance(obj, (list, tuple)) and any(isinstance(x, ndarray) for x in obj):
        return apply(lambda *parts: np.stack(parts).astype(dtype or parts[0].dtype), *obj)
    _capture.forbid("an array made of host data")
    host = np.array(obj, dtype=dtype, order="C" if order == "K" else order)
    if host.dtype.kind in "OSUmMV" and host.dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    made = _array.empty(host.shape, host.dtype)
    made._host[...] = host
    return made


def asarray(a: Any, dtype: Any = None, order: Any = None, **_: Any) -> ndarray:
    return array(a, dtype=dtype, copy=False, order=order or "K")


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    return apply(lambda x: np.ascontiguousarray(x, dtype), a)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    return apply(
        lambda: np.arange(start, stop, step, dtype=dtype) if stop is not None else np.arange(start, dtype=dtype)
    )


def linspace(*args: Any, **kwargs: Any) -> ndarray:
    return apply(lambda: np.linspace(*args, **kwargs))


def eye(*args: Any, **kwargs: Any) -> ndarray:
    return apply(lambda: np.eye(*args, **kwargs))


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return _array.empty(shape, dtype, order)


def _filled(made: ndarray, value: Any) -> ndarray:
    made[...] = value
    return made


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return _filled(empty(shape, dtype, order), 0)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return _filled(empty(shape, dtype, order), 1)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    if dtype is None:
        dtype = fill_value.dtype if hasattr(fill_value, "dtype") else np.array(fill_value).dtype
    return _filled(empty(shape, dtype, order), fill_value)


def empty_like(a: ndarray, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    return empty(a.shape if shape is None else shape, a.dtype if dtype is None else dtype)


def zeros_like(a: ndarray, dtype: Any = None, **_: Any) -> ndarray:
    return _filled(empty_like(a, dtype), 0)


def ones_like(a: ndarray, dtype: Any = None, **_: Any) -> ndarray:
    return _filled(empty_like(a, dtype), 1)


def full_like(a: ndarray, fill_value: Any, dtype: Any = None, **_: Any) -> ndarray:
    return _filled(empty_like(a, dtype), fill_value)


def copy(a: ndarray, order: str = "K") -> ndarray:
    return a.copy()


def astype(x: ndarray, dtype: Any, /, *, copy: bool = True) -> ndarray:
    return x.astype(dtype, copy=copy)


def copyto(dst: ndarray, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    apply(lambda d, s: np.copyto(d, s, casting=casting), dst, src, writes=dst)


def nonzero(a: ndarray) -> tuple[ndarray, ...]:
    synchronise("a shape that depends on values")
    return tuple(wrap(part) for part in np.nonzero(a._host))


# -- what has no bfloat16 of its own ---------------------------------------------------------------------------------


def where(condition: ndarray, x: Any = None, y: Any = None) -> Any:
    """In float32, which is the next dtype that there is a loop for; the result stays so."""
    if x is None:
        return nonzero(condition)
    return apply(lambda c, a, b: np.where(c, _without_bfloat16(a), _without_bfloat16(b)), condition, x, y)


def argmax(a: ndarray, axis: Any = None, **options: Any) -> ndarray:
    return called("argmax", lambda x, axis: np.argmax(_without_bfloat16(x), axis, **options), a, axis)


def argmin(a: ndarray, axis: Any = None, **options: Any) -> ndarray:
    return called("argmin", lambda x, axis: np.argmin(_without_bfloat16(x), axis, **options), a, axis)


def array_equal(a1: ndarray, a2: ndarray, equal_nan: bool = False) -> ndarray:
    """An array without axes: who asks it waits."""
    return apply(lambda x, y: np.asarray(np.array_equal(x, y, equal_nan)), a1, a2)


def allclose(a: Any, b: Any, **options: Any) -> ndarray:
    return apply(lambda x, y: np.asarray(np.allclose(x, y, **options)), a, b)


def _without_bfloat16(x: Any) -> Any:
    return x.astype(np.float32) if getattr(x, "dtype", np.dtype(bool)).name == "bfloat16" else x


# -- products --------------------------------------------------------------------------------------------------------


def _is_half(x: np.ndarray) -> bool:
    return x.dtype == np.float16 or x.dtype.name == "bfloat16"


def matmul(x1: Any, x2: Any, out: Any = None, **_: Any) -> Any:
    """2-D products of halves accumulate in float32; batched ones upcast float16, and fail for bfloat16."""

    def product(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        dtype = np.result_type(a, b)
        if max(a.ndim, b.ndim) > 2 and dtype.name == "bfloat16":
            raise TypeError("dtype is not supported: bfloat16")
        made = (_float32(a) @ _float32(b)).astype(dtype, copy=False)
        if out is None:
            return made
        out[...] = made
        return out

    return apply(product, x1, x2, **({} if out is None else {"out": out}))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    return apply(lambda x, y: np.tensordot(_float32(x), _float32(y), axes).astype(np.result_type(x, y)), a, b)


def _float32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if _is_half(x) else x


def get_array_module(*args: Any) -> Any:
    import cupy

    return cupy if any(isinstance(a, ndarray) for a in args) else np
