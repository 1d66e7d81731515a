"""The backend flag: a name such as ``"cupy:1"`` stands for an array library and a device to make new arrays on.

Libraries are recognised by their arrays and never imported uninvited: CuPy and PyTorch are loaded only when a
backend is asked for by name, or when one of their arrays comes in.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from xpconv import driver
from xpconv.errors import BackendError, dtype_name, message
from xpconv.settings import Setting, current, register

Array = Any  # an array of any supported library; array-API namespaces have no common static type

HALVES = ("float16", "bfloat16")  # computed in float32, rounded once

_KNOWN = ("numpy", "cupy", "torch", "array_api_strict")
_OTHERWISE = {"cuda": "cupy", "gpu": "cupy", "cpu": "numpy", "pytorch": "torch"}  # what others call them
_BFLOAT16_FROM = "2.1.2"  # NumPy; with an earlier one CuPy leaves bfloat16 out
# These libraries' own namespaces deviate from the standard; array-api-compat mends them.
_WRAPPED = {"cupy": "array_api_compat.cupy", "torch": "array_api_compat.torch"}


@dataclass(frozen=True, slots=True)
class Backend:
    """Where new arrays are made: a namespace and one of its devices (`None`: the library's own default)."""

    library: str
    xp: ModuleType
    device: Any = None

    def asarray(self, obj: Any, dtype: Any = None) -> Array:
        """An array here with the values of ``obj``: a nested sequence, or an array of any library on any device."""
        name = None if dtype is None else name_of_dtype(dtype)
        if isinstance(obj, np.ndarray) or not hasattr(obj, "shape") or library(obj) != self.library:
            if isinstance(obj, np.ma.MaskedArray):
                rule = "a masked array would lose its mask."
                raise TypeError(message("asarray", rule, "", "fill it first, as in x.filled(0)."))
            obj = np.asarray(to_numpy(obj) if hasattr(obj, "shape") and not isinstance(obj, np.generic) else obj)
            if self.library != "numpy" and _awkward(obj):
                obj = np.array(obj, dtype=obj.dtype.newbyteorder("="), order="C")
        wanted = {} if name is None else {"dtype": dtype_named(self.xp, name)}
        if self.library == "cupy" and self.device is not None:
            with self.device:
                return self.xp.asarray(obj, **wanted)
        if self.library == "array_api_strict" and self.device is not None and not isinstance(obj, np.ndarray):
            obj = obj.to_device(self.device)  # its asarray moves nothing between its devices
        return self.xp.asarray(obj, device=self.device, **wanted)


def _awkward(x: np.ndarray) -> bool:
    """Whether other libraries warn of, or refuse, such a buffer: read-only, backwards, or of foreign byte order."""
    return not x.flags.writeable or not x.dtype.isnative or any(stride < 0 for stride in x.strides)


def namespace(x: Array) -> ModuleType:
    """The array-API namespace that works on ``x``."""
    return type_facts(type(x))[1]  # type: ignore[arg-type]


def library(x: Array) -> str:
    """The name of the array library of ``x``: ``"numpy"``, ``"cupy"``, ``"torch"``, ..."""
    return type_facts(type(x))[0]  # type: ignore[arg-type]


def backend_of(x: Array) -> Backend:
    """Where ``x`` lives."""
    return Backend(library(x), namespace(x), x.device)


@lru_cache(maxsize=256)
def type_facts(kind: type) -> tuple[str, ModuleType]:
    """The library's name and namespace for arrays of that type."""
    root = kind.__module__.partition(".")[0]
    if issubclass(kind, np.ndarray):
        return "numpy", np
    if root in _WRAPPED:
        return root, importlib.import_module(_WRAPPED[root])
    if root != "jaxlib" and hasattr(kind, "__array_namespace__"):
        return root, importlib.import_module(root)
    rule = "cannot be written into" if root == "jaxlib" else "is not an array of a known library"
    remedy = "make an array with xpconv.asarray(...)."
    raise TypeError(
        message("xpconv", f"{root}.{kind.__qualname__}".removeprefix("builtins.") + f" {rule}.", "", remedy)
    )


_WHEREVER: AbstractContextManager[Any] = nullcontext()


def on_device_of(x: Array) -> AbstractContextManager[Any]:
    """Within the block, work is done where x lives; CuPy's would be on its current device, wherever the arrays are."""
    return x.device if library(x) == "cupy" else _WHEREVER


def to_numpy(x: Array) -> np.ndarray:
    """The values of ``x`` as a NumPy array on the host (bfloat16, which NumPy lacks, as float32)."""
    name = library(x)
    if name == "numpy":
        return x
    if name == "cupy":
        x = x.get()
        return x.astype(np.float32) if dtype_name(x.dtype) == "bfloat16" else x
    if name == "torch":
        x = x.detach().cpu().resolve_conj().resolve_neg()
        return (x.float() if dtype_name(x.dtype) == "bfloat16" else x).numpy()
    if name == "array_api_strict":
        return np.asarray(x.to_device(namespace(x).Device("CPU_DEVICE")))
    return np.from_dlpack(x)


def asarray(obj: Any, dtype: Any = None) -> Array:
    """Make an array on the backend in force (`use_backend`).

    Parameters
    ----------
    obj : array of any library, or nested sequence of numbers
    dtype : str or dtype, optional
        ``"float32"``, ``np.float32`` or the library's own; default: that of ``obj``.

    Returns
    -------
    array of the backend's library, on its device

    Examples
    --------
    >>> import xpconv
    >>> xpconv.asarray([[1, 2], [3, 4]], dtype="float32").shape
    (2, 2)
    """
    return get(current().backend).asarray(obj, dtype)


def cast(x: Array, dtype: Any) -> Array:
    """``x`` in ``dtype``, itself where nothing changes (NumPy 2.0 has no `astype` function yet)."""
    if x.dtype == dtype:
        return x
    return x.astype(dtype) if isinstance(x, np.ndarray) else namespace(x).astype(x, dtype)


def conjugate(x: Array) -> Array:
    """The complex conjugate: a real array is its own."""
    return namespace(x).conj(x) if dtype_name(x.dtype).startswith("complex") else x


def dtype_named(xp: ModuleType, name: str) -> Any:
    """The library's dtype of that name."""
    dtype = getattr(xp, name, None)
    if dtype is None and name == "bfloat16" and xp.__name__.endswith("cupy"):
        dtype = _cupy_bfloat16()
    if dtype is None:
        raise TypeError(message("xpconv", f"{xp.__name__.rsplit('.', 1)[-1]} has no dtype {name!r}."))
    return dtype


@cache
def _cupy_bfloat16() -> Any:
    """CuPy has no bfloat16 of its own: it computes with that of ml_dtypes, on a NumPy that takes dtypes of others."""
    if np.lib.NumpyVersion(np.__version__) < _BFLOAT16_FROM:
        rule = f"CuPy has bfloat16 from NumPy {_BFLOAT16_FROM} on."
        remedy = f"pip install 'numpy>={_BFLOAT16_FROM}'"
        raise TypeError(message("xpconv", rule, f"installed: NumPy {np.__version__}", remedy))
    try:
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        remedy = "pip install ml_dtypes"
        raise TypeError(message("xpconv", "CuPy has bfloat16 with ml_dtypes only.", str(error), remedy)) from error


def name_of_dtype(dtype: Any) -> str:
    """The name of a dtype given by name, as a NumPy or Python type, or as any library's own object."""
    if isinstance(dtype, str):
        return dtype
    if isinstance(dtype, type) and issubclass(dtype, (np.generic, int, float, complex)):
        return np.dtype(dtype).name
    return dtype_name(dtype)


@lru_cache(maxsize=64)
def get(name: str) -> Backend:
    """The backend of that name; `BackendError` says what is missing and how to get it."""
    root, _, place = name.partition(":")
    if root not in _KNOWN:
        raise BackendError(
            message(
                "use_backend",
                f"no backend is called {name!r}.",
                f"{root!r} is {_OTHERWISE[root]!r} here." if root in _OTHERWISE else "",
                f"known backends: {', '.join(_KNOWN)}, 'auto'; a device follows a colon, as in 'cupy:1'.",
            )
        )
    try:
        return _MAKERS[root](place)
    except ImportError as error:
        rule = f"{name!r} needs a package that is not here ({error})."
        raise BackendError(message("use_backend", rule, "", _install(root))) from error


def _numpy(place: str) -> Backend:
    if place not in ("", "cpu"):
        raise BackendError(message("use_backend", f"NumPy has no device {place!r}.", "", "its one device is 'cpu'."))
    return Backend("numpy", np)


def _cupy(place: str) -> Backend:
    import cupy  # type: ignore[import-not-found, unused-ignore]

    if not cupy.cuda.is_available():
        raise BackendError(
            message(
                "use_backend",
                "CuPy is installed but finds no usable CUDA device.",
                driver.driver_found(),
                driver.no_device(),
            )
        )
    count = cupy.cuda.runtime.getDeviceCount()
    if place and not (place.isdecimal() and int(place) < count):
        raise BackendError(message("use_backend", f"CuPy has no device {place!r}.", f"devices here: 0 to {count - 1}"))
    return Backend("cupy", type_facts(cupy.ndarray)[1], cupy.cuda.Device(int(place)) if place else None)


def _torch(place: str) -> Backend:
    import torch

    try:
        torch.empty(0, device=place or None)
    except (RuntimeError, AssertionError) as error:
        rule = f"PyTorch cannot use device {place!r}."
        raise BackendError(message("use_backend", rule, str(error).splitlines()[0])) from error
    return Backend("torch", type_facts(torch.Tensor)[1], torch.device(place) if place else None)


def _array_api_strict(place: str) -> Backend:
    import array_api_strict as strict

    known = {device._device: device for device in strict.__array_namespace_info__().devices()}
    if place and place not in known:
        rule = f"array_api_strict has no device {place!r}."
        raise BackendError(message("use_backend", rule, f"devices: {', '.join(known)}"))
    return Backend("array_api_strict", strict, known.get(place))


_MAKERS = {"numpy": _numpy, "cupy": _cupy, "torch": _torch, "array_api_strict": _array_api_strict}


def _install(root: str) -> str:
    if root == "cupy":
        if not driver.driver_version():
            return f"{driver.driver_found()}: use 'numpy' here; beside a driver: {driver.install_cupy()}"
        return f"install it with: {driver.install_cupy()}  ({driver.driver_found()})"
    packages = {"torch": "torch", "array_api_strict": "array-api-strict"}
    return f"install it with: pip install {packages[root]}"


def _parse_backend(name: str) -> str:
    if name == "auto":
        return "cupy" if _usable_gpu() else "numpy"
    if not isinstance(name, str):
        raise BackendError(message("use_backend", f"takes a backend's name, not {name!r}."))
    get(name)
    return name


def _usable_gpu() -> bool:
    try:
        get("cupy")
    except BackendError:
        return False
    return True


use_backend = Setting(
    "backend",
    _parse_backend,
    """Where new arrays (weights, data) are made: ``"numpy"`` (default), ``"cupy"``, ``"cupy:1"``, ``"torch"``,
    ``"array_api_strict:device1"``, or ``"auto"`` (CuPy where a usable GPU is, else NumPy).

    Raises `BackendError` with the exact install line when it cannot be had. Ops run where their arrays live,
    whatever this says. Environment variable: ``XPCONV_BACKEND``.""",
)
register(use_backend)
