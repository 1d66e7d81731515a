"""The array of the emulated CuPy, and `apply`, the one door through which NumPy computes for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from cupy import _capture, cuda
from cupy.cuda.device import synchronise

_ALIGNED = 512  # bytes, as all memory of CuPy's pools is: kernels take whole vectors where addresses allow it
_GUARD = 256  # bytes before and after fresh memory, at least
_GUARD_BYTE = 0xA5


class Memory:
    """Fresh memory between two guard zones."""

    def __init__(self, nbytes: int) -> None:
        # All bits set: NaN in every floating dtype.
        self.whole = np.full(nbytes + 2 * _GUARD + _ALIGNED, 0xFF, dtype=np.uint8)
        first = _GUARD + -(self.whole.ctypes.data + _GUARD) % _ALIGNED
        self.inside = self.whole[first : first + nbytes]
        self.zones = self.whole[:first], self.whole[first + nbytes :]
        for zone in self.zones:
            zone[:] = _GUARD_BYTE
        _capture.keep(self)

    def intact(self) -> bool:
        return all((zone == _GUARD_BYTE).all() for zone in self.zones)


class _Pointer:
    """``x.data``: where an array's memory starts."""

    def __init__(self, host: np.ndarray, device_id: int) -> None:
        self.ptr, self.device_id = host.ctypes.data, device_id

    @property
    def device(self) -> Any:
        return cuda.Device(self.device_id)


class ndarray:
    """An array on an emulated device; ``_host`` holds its values, which only this package may look at."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
    ) -> None:
        if memptr is not None or strides is not None:
            raise NotImplementedError("the emulated CuPy makes no arrays over foreign memory")
        made = empty(shape, dtype, order)
        self._host, self._device_id, self._memory = made._host, made._device_id, made._memory

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def device(self) -> Any:
        return cuda.Device(self._device_id)

    @property
    def data(self) -> _Pointer:
        return _Pointer(self._host, self._device_id)

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: apply(np.transpose, self))
    mT = property(lambda self: apply(lambda x: x.mT, self))
    real = property(lambda self: apply(np.real, self))
    imag = property(lambda self: apply(np.imag, self))

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"emulated {self._host!r}"

    # -- what makes the host wait ------------------------------------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        if blocking:
            synchronise("a copy to the host")
        if out is None:
            return np.array(self._host, order=order)
        if out.dtype != self.dtype:
            raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype} array")
        if out.shape != self.shape:
            raise ValueError("Shape mismatch")
        out[...] = self._host
        return out

    def item(self, *args: Any) -> Any:
        return self.get().item(*args)

    def tolist(self) -> Any:
        return self.get().tolist()

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if type(arr) is not np.ndarray or arr.dtype != self.dtype:
            raise TypeError("set takes a NumPy array of the same dtype")
        if arr.shape != self.shape:
            raise ValueError("Shape mismatch")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        _capture.forbid("a copy from the host")
        self._host[...] = arr

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return apply(getattr(ufunc, method), *inputs, **kwargs)

    # -- what it does ------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> ndarray:
        return apply(lambda x, k: x[k], self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        apply(lambda x, k, v: x.__setitem__(k, v), self, key, value, writes=self)

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        if not copy and self.dtype == dtype and order == "K":
            return self
        return apply(lambda x: x.astype(dtype, order=order, copy=copy), self)

    def fill(self, value: Any) -> None:
        if np.ndim(value._host if isinstance(value, ndarray) else value):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        apply(lambda x: x.fill(value), self, writes=self)

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        return apply(lambda x: x.reshape(*shape, order=order), self)

    def conj(self) -> ndarray:
        return apply(np.conj, self)


def _method(name: str) -> Callable[..., Any]:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        return called(name, lambda x, *a, **k: getattr(x, name)(*a, **k), self, *args, **kwargs)

    return method


_ALONG = {
    *("sum", "prod", "max", "min", "amax", "amin", "any", "all", "argmax", "argmin", "cumsum", "cumprod"),
    *("count_nonzero", "repeat"),
}
_SORTS = ("argsort", "sort", "argpartition")
_WIDER = {"var": np.float64, "std": np.float64, "round": np.float32, "tril": np.float32, "triu": np.float32}


def called(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A function of NumPy's, applied; what CuPy refuses raises, and bfloat16 becomes what it becomes there."""
    x = args[0] if args else None
    if not isinstance(x, ndarray):
        return apply(function, *args, **kwargs)
    axis = kwargs.get("axis", args[at] if len(args) > (at := 2 if name == "repeat" else 1) else None)
    if name in _ALONG and not x.ndim and isinstance(axis, int):
        raise np.exceptions.AxisError(axis, 0)
    half = x.dtype.name == "bfloat16"
    if half and name in _SORTS:
        raise NotImplementedError("Sorting arrays with dtype 'bfloat16' is not supported")
    made = apply(function, *args, **kwargs)
    return made.astype(_WIDER[name]) if half and name in _WIDER and "dtype" not in kwargs else made


def _binary(name: str) -> Callable[..., Any]:
    def method(self: ndarray, other: Any) -> Any:
        if not isinstance(other, (ndarray, np.ndarray, np.generic, bool, int, float, complex)):
            return NotImplemented
        if name in ("__matmul__", "__rmatmul__"):
            from cupy._functions import matmul

            return matmul(self, other) if name == "__matmul__" else matmul(other, self)
        return apply(lambda x, y: getattr(x, name)(y), self, other)

    return method


def _in_place(ufunc: np.ufunc) -> Callable[..., Any]:
    def method(self: ndarray, other: Any) -> ndarray:
        apply(lambda x, y: ufunc(x, y, out=x, casting="same_kind"), self, other, writes=self)
        return self

    return method


for _name in (
    *("transpose", "ravel", "flatten", "sum", "mean", "min", "max", "argmax", "argmin", "copy", "view", "squeeze"),
    *("swapaxes", "repeat", "any", "all", "dot", "cumsum", "take", "round", "prod", "var", "std", "argsort"),
):
    setattr(ndarray, _name, _method(_name))
for _name in (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift", "matmul"),
):
    setattr(ndarray, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(ndarray, f"__r{_name}__", _binary(f"__r{_name}__"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _binary(f"__{_name}__"))
for _name, _ufunc in {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "floordiv": np.floor_divide,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}.items():
    setattr(ndarray, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in {"neg": np.negative, "pos": np.positive, "invert": np.invert, "abs": np.absolute}.items():
    setattr(ndarray, f"__{_name}__", (lambda ufunc: lambda self: apply(ufunc, self))(_ufunc))


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """Fresh memory, full of NaN, between guard zones, on the current device."""
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    return wrap(*_fresh(shape, np.dtype(dtype), order))


def _fresh(shape: tuple[int, ...], dtype: np.dtype, order: str) -> tuple[np.ndarray, Memory]:
    """An array of the host over fresh memory, and that."""
    memory = Memory(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    if dtype == bool:
        memory.inside[:] = 1  # 0xFF is no bool
    return memory.inside.view(dtype).reshape(shape, order="F" if order == "F" else "C"), memory


def wrap(host: np.ndarray, memory: Memory | None = None, device_id: int | None = None) -> ndarray:
    if memory is None and host.base is None and host.flags.forc:  # a result, in memory that NumPy has chosen
        made_by_numpy = host
        host, memory = _fresh(host.shape, host.dtype, "C" if host.flags.c_contiguous else "F")
        host[...] = made_by_numpy
    if host.base is None or memory is not None:
        cuda.memory.account()
    made = ndarray.__new__(ndarray)
    made._host = host
    made._device_id = cuda.current_device_id() if device_id is None else device_id
    made._memory = memory
    return made


def apply(function: Callable[..., Any], *args: Any, writes: ndarray | None = None, **kwargs: Any) -> Any:
    """Run a NumPy function on the values of emulated arrays; what it returns is an emulated array again.

    ``writes`` is the array that the function writes to, where it does; so is ``out``.
    """
    out = kwargs.get("out")
    target = writes if writes is not None else (out[0] if isinstance(out, tuple) else out)
    arrays = [a for a in _flat((args, kwargs)) if isinstance(a, ndarray)]
    for a in arrays:
        if a._device_id != cuda.current_device_id():
            raise ValueError(
                f"Array device must be same as the current device: "
                f"array device = {a._device_id} while current = {cuda.current_device_id()}"
            )

    code = getattr(function, "__code__", function)
    _capture.note((code, *(a.dtype for a in arrays)))

    def run() -> Any:
        with np.errstate(all="ignore"):
            return function(*(_host(a) for a in args), **{name: _host(a) for name, a in kwargs.items()})

    if not _capture.capturing():
        return _wrapped(run(), arrays)
    if target is not None:
        _capture.record(run)
        return target
    made = _wrapped(run(), arrays)
    for one in made if isinstance(made, (tuple, list)) else (made,):
        if isinstance(one, ndarray) and not any(np.shares_memory(one._host, a._host) for a in arrays):
            _garbage(one._host)
    _capture.record(lambda: _copy(run(), made))
    return made


def _flat(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return itertools.chain.from_iterable(map(_flat, value))
    return _flat(tuple(value.values())) if isinstance(value, dict) else (value,)


def _host(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (tuple, list)):
        return type(value)(_host(v) for v in value)
    return value


def _wrapped(result: Any, arrays: list[ndarray]) -> Any:
    if isinstance(result, (tuple, list)):
        return type(result)(_wrapped(r, arrays) for r in result)
    if isinstance(result, np.generic):
        result = np.asarray(result)
    if not isinstance(result, np.ndarray):
        return result
    same = next((a for a in arrays if a._host is result), None)
    memory = next((a._memory for a in arrays if a._memory is not None and np.may_share_memory(a._host, result)), None)
    return same if same is not None else wrap(result, memory=memory)


def _garbage(host: np.ndarray) -> None:
    if host.dtype.kind in "fc" or host.dtype.name == "bfloat16":
        host.fill(np.nan)


def _copy(result: Any, made: Any) -> None:
    if isinstance(made, (tuple, list)):
        for r, m in zip(result, made, strict=True):
            _copy(r, m)
    elif isinstance(made, ndarray) and not np.shares_memory(np.asarray(result), made._host):
        made._host[...] = result
