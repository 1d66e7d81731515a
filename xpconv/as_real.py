"""Complex arrays as real ones of twice the channels, for engines whose kernels take real numbers.

A complex channel is two real ones that are neighbours in memory, so that an array of them only has to be looked at
otherwise: (N, *spatial, C) complex is (N, *spatial, 2 C) real. What treats every channel alike needs no more than that.
A convolution takes weights u + iv as the matrix of the real map, the pair that goes in down, that which comes out
across:

    [[ u, v],
     [-v, u]]

Its four real products are those of a complex one. Its transpose is the matrix of u - iv, so that the adjoints of the
real map are those of the complex one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from xpconv.arrays import stand_in
from xpconv.backend import Array, backend_of, dtype_named, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.errors import dtype_name
from xpconv.kinds import PARTS, dtype_kind
from xpconv.packing import Place, offering, place_for
from xpconv.runtime import made, runtime_of

_COMPLEX = {real: name for name, real in PARTS.items()}

Given = tuple[tuple[Any, ...], dict[str, Any]]  # arrays and options


def as_real(primitives: Mapping[str, Primitive]) -> dict[str, Primitive]:
    """An engine's primitives; where they decline complex arrays, these are looked at as real ones."""
    found = dict(primitives)
    for name in primitives.keys() & _DIRECTIONS.keys():
        found[name] = found[name]._replace(otherwise=_direction(primitives[name], *_DIRECTIONS[name]))
    for name in primitives.keys() & _CHANNELWISE:
        found[name] = found[name]._replace(otherwise=_channelwise(primitives[name]))
    return found


class _Seen(Protocol):
    """How complex arrays are seen as real ones."""

    def images(self, x: Any) -> Any: ...

    def weights(self, w: Any) -> Any: ...


class _Matrix:
    """The matrix of a parameter's values as they are; an engine keeps beside it what it packs of it."""

    def __init__(self, value: Any) -> None:
        self.value, self.packed = value, Place()


class _Values:
    """The arrays themselves, dense ones of NumPy or CuPy."""

    def __init__(self) -> None:
        self.matrices: tuple[_Matrix, ...] = ()  # that are kept

    @staticmethod
    def images(x: Any) -> Any:
        """(..., C) complex -> (..., 2 C) real: a view, or a copy of what is not dense."""
        return None if x is None else _dense(x).view(PARTS[dtype_name(x.dtype)])

    def weights(self, w: Any) -> Any:
        """(*kernel, C / groups, O) complex -> (*kernel, 2 C / groups, 2 O) real: the matrix of each cell.

        Made once for each version of a layer's parameter, each time for other arrays. Each queue of a device has its
        own, since another would not wait until it is made; and a captured graph makes it anew at every replay, since
        what a parameter keeps is made and dropped outside of it.
        """
        place = place_for(w)
        if place is None:
            return _matrix(w)
        runtime = runtime_of(backend_of(w))
        if runtime.busy() and not runtime.eager:
            return _matrix(w)
        key = "as real", runtime.queue()
        kept = place.get(key)
        if kept is None:
            kept = place[key] = _Matrix(_matrix(w))
        self.matrices = (kept,)
        return kept.value


def _matrix(w: Any) -> Any:
    """By parts: a product with 1j would make nan of what stands beside an infinite one, and warn."""

    def make() -> Any:
        rows: Any = namespace(w).empty((*w.shape[:-1], 2, 2 * w.shape[-1]), dtype=_part(w), device=w.device)
        rows[..., 0, ::2], rows[..., 0, 1::2] = w.real, w.imag
        rows[..., 1, ::2], rows[..., 1, 1::2] = -w.imag, w.real
        return rows.reshape(*w.shape[:-2], 2 * w.shape[-2], 2 * w.shape[-1])

    return made(make)


class _Stand:
    """Arrays of their shapes and dtypes, of one number each, to ask an engine about."""

    @staticmethod
    def images(x: Any) -> Any:
        return None if x is None else stand_in(x, (*x.shape[:-1], 2 * x.shape[-1]), _part(x))

    @staticmethod
    def weights(w: Any) -> Any:
        return stand_in(w, (*w.shape[:-2], 2 * w.shape[-2], 2 * w.shape[-1]), _part(w))


def _part(x: Array) -> Any:
    """The dtype of the parts of x."""
    return dtype_named(namespace(x), PARTS[dtype_name(x.dtype)])


def _fprop(seen: _Seen, x: Any, w: Any, *, epilogue: Any, **options: Any) -> Given:
    of_y = epilogue._replace(bias=seen.images(epilogue.bias), residual=seen.images(epilogue.residual))
    return (seen.images(x), seen.weights(w)), {**options, "epilogue": of_y}


def _dgrad(seen: _Seen, dy: Any, w: Any, *, bias: Any, residual: Any, **options: Any) -> Given:
    of_x = {"bias": seen.images(bias), "residual": seen.images(residual)}
    return (seen.images(dy), seen.weights(w)), {**options, **of_x}


def _wgrad(seen: _Seen, x: Any, dy: Any, *, w_shape: tuple[int, ...], **options: Any) -> Given:
    *kernel, c, o = w_shape
    return (seen.images(x), seen.images(dy)), {**options, "w_shape": (*kernel, 2 * c, 2 * o)}


def _sum(seen: _Seen, dy: Any) -> Given:
    return (seen.images(dy),), {}


def _joined(y: Array) -> Array:
    """(..., 2 C) real -> (..., C) complex."""
    return _dense(y).view(_COMPLEX[dtype_name(y.dtype)])


def _folded(dw: Array) -> Array:
    """The gradient in u and v, of which each stands twice in the matrix."""
    *kernel, c, o = dw.shape
    rows = _dense(dw).reshape(*kernel, c // 2, 2, o)

    def make() -> Any:
        parts = namespace(dw).empty_like(rows[..., 0, :], order="C")
        parts[..., ::2] = rows[..., 0, ::2] + rows[..., 1, 1::2]
        parts[..., 1::2] = rows[..., 0, 1::2] - rows[..., 1, ::2]
        return _joined(parts)

    return made(make)


_DIRECTIONS: dict[str, tuple[Callable[..., Given], Callable[[Array], Array]]] = {
    "conv_fprop": (_fprop, _joined),
    "conv_dgrad": (_dgrad, _joined),
    "conv_wgrad": (_wgrad, _folded),
    "bias_grad": (_sum, _joined),
}
_DIFFERENT = "has borders of complex numbers only where real and imaginary parts are the same"
_CHANNELWISE = {"avg_pool", "adaptive_avg_pool", "pad", "resize"}


def _direction(primitive: Primitive, given: Callable[..., Given], answer: Callable[[Array], Array]) -> Primitive:
    """A plain function of arrays whose dtype is the first one's."""

    def run(*arrays: Any, **options: Any) -> Any:
        seen = _Values()
        real, its_options = given(seen, *arrays, **options)
        with offering(seen.matrices):
            return answer(primitive.run(*real, **its_options))

    def declines(*arrays: Any, **options: Any) -> str | None:
        return _asked(primitive, arrays[0], lambda: given(_Stand, *arrays, **options))

    def describe(*arrays: Any, **options: Any) -> str:
        assert primitive.describe is not None
        real, its_options = given(_Stand, *arrays, **options)
        return f"as real numbers, of twice the channels: {primitive.describe(*real, **its_options)}"

    return Primitive(run, declines=declines, describe=describe if primitive.describe is not None else None)


def _channelwise(primitive: Primitive) -> Primitive:
    """What does the same to each channel of its one array."""

    def run(x: Any, needs: Needs, **options: Any) -> tuple[Any, Any]:
        y, residuals = primitive.run(_Values.images(x), needs=needs, **_of_parts(options))
        return _joined(y), residuals

    def backward(residuals: Any, dy: Any, needs: Needs) -> tuple[Any, ...]:
        assert primitive.backward is not None
        grads = primitive.backward(residuals, _Values.images(dy), needs)
        return tuple(None if dx is None else _joined(dx) for dx in grads)

    def declines(x: Any, **options: Any) -> str | None:
        if any(isinstance(given, complex) and given.real != given.imag for given in options.values()):
            return _DIFFERENT if dtype_kind(x.dtype) == "c" else ""
        return _asked(primitive, x, lambda: ((_Stand.images(x),), _of_parts(options)))

    return Primitive(run, backward, declines)


def _of_parts(options: dict[str, Any]) -> dict[str, Any]:
    """Numbers for real and imaginary parts alike, where they are the same."""
    return {name: given.real if isinstance(given, complex) else given for name, given in options.items()}


def _asked(primitive: Primitive, x: Any, given: Callable[[], Given]) -> str | None:
    """Why it declines a complex x as a real one; of any other x, declined already, there is no more to say."""
    if dtype_name(x.dtype) not in PARTS:
        return ""
    arrays, options = given()
    return primitive.declines(*arrays, **options) if primitive.declines is not None else None


def _dense(x: Any) -> Any:
    return x if x.flags.c_contiguous else made(lambda: x.copy(order="C"))
