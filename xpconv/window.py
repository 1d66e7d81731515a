"""The sliding window of a convolution or a pool: parsed once, for any rank, from every form a user may write.

Notation, per spatial axis: n input cells, kernel k, stride s, dilation d, padding (before, after).
Window i covers the cells ``i*s - before + j*d`` for j in 0..k-1. Engines read the numbers and parse nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xpconv.arguments import flag
from xpconv.errors import message

Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Window:
    """A window resolved against an input size; one entry per spatial axis in every field."""

    size: tuple[int, ...]  # input cells, n
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]  # (before, after) as the user means it
    out: tuple[int, ...]  # how many windows

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def padded(self) -> tuple[int, ...]:
        """Cells from the first window's first to the last window's last: what a padded copy must hold at least."""
        return tuple(
            max((o - 1) * s + d * (k - 1) + 1, 0)
            for o, s, d, k in zip(self.out, self.stride, self.dilation, self.kernel, strict=True)
        )


def conv_window(
    op: str,
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
) -> Window:
    """The window of a convolution over ``size`` with a kernel of the weights' own shape."""
    return _window(op, size, kernel, _key(stride), _key(padding), _key(dilation), False)


def pool_window(
    op: str,
    size: tuple[int, ...],
    kernel: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Window:
    """The window of a pool: stride defaults to the kernel, and every window must hold a real cell."""
    ceil_mode = flag(op, "ceil_mode", ceil_mode)
    return _pool_window(op, size, _key(kernel), _key(stride), _key(padding), _key(dilation), ceil_mode)


def transposed_window(
    op: str,
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    output_padding: Ints = 0,
) -> Window:
    """The window of the convolution whose input gradient a transposed convolution is: ``window.out == size``."""
    return _transposed_window(op, size, kernel, _key(stride), _key(padding), _key(dilation), _key(output_padding))


def _key(value: Any) -> Any:
    """A form of what the user wrote that the caches can hold: integers, strings, None, and tuples of these.

    Anything else is wrapped, so that 2.0 and True do not find what was cached for 2 and 1; `per_axis` refuses it.
    """
    if type(value) is int or type(value) is str or value is None:
        return value
    if isinstance(value, Sequence) or getattr(value, "ndim", 0) > 0:
        return tuple(_key(part) for part in value)
    if isinstance(value, (bool, float)) or not hasattr(value, "__index__"):
        return _Odd(value)
    return value.__index__()


class _Odd:
    """Something that is no size, equal to nothing else."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


# Of a pool, whose image is mostly one that others have shrunk before.
_SHRUNK = (
    "use larger images, fewer layers before this one that shrink them (a U-Net of a smaller depth), a smaller kernel, "
    "or more padding."
)


def _fail(op: str, rule: str, evidence: str = "", remedy: str = "") -> ValueError:
    return ValueError(message(op, rule, evidence, remedy))


def per_axis(op: str, name: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """An int for every axis, or one per axis; at least ``least``."""
    given = _key(value)
    values = given if isinstance(given, tuple) else (given,) * rank
    if len(values) != rank:
        raise _fail(op, f"{name} needs an int or {rank} of them, one per spatial axis.", f"given: {name}={value!r}")
    if not all(type(v) is int for v in values):
        raise TypeError(message(op, f"{name} must be integers.", f"given: {name}={value!r}"))
    if min(values, default=least) < least:
        raise _fail(op, f"{name} must be at least {least} on every axis.", f"given: {name}={value!r}")
    return values


def _pads(op: str, given: Any, size: Any, kernel: Any, stride: Any, dilation: Any) -> tuple[tuple[int, int], ...]:
    rank = len(size)
    reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    if isinstance(given, str):
        if given == "valid":
            return ((0, 0),) * rank
        if given in ("same", "same_lower"):
            totals = (max((-(-n // s) - 1) * s + r + 1 - n, 0) for n, s, r in zip(size, stride, reach, strict=True))
            halves = ((total // 2, total - total // 2) for total in totals)
            return tuple((b, a) if given == "same" else (a, b) for b, a in halves)
        if given == "causal" and op == "conv":
            if rank != 1:
                raise _fail(op, "padding='causal' is for one spatial axis.", f"given: {rank} spatial axes")
            return ((reach[0], 0),)
        causal = ", 'causal' (1-D)" if op == "conv" else ""
        raise _fail(
            op, f"padding {given!r} is not known.", "", f"known: 'valid', 'same', 'same_lower'{causal}, integers."
        )
    if isinstance(given, tuple) and any(isinstance(part, tuple) for part in given):
        if len(given) != rank or not all(isinstance(part, tuple) and len(part) == 2 for part in given):
            raise _fail(
                op,
                f"padding in pairs needs {rank} (before, after) pairs, one per spatial axis.",
                f"given: padding={given!r}",
                f"of np.pad's pairs leave out those of N and C: {given[1:-1]}." if len(given) == rank + 2 else "",
            )
        return tuple(per_axis(op, "padding", part, 2, least=0) for part in given)  # type: ignore[misc]
    if isinstance(given, tuple) and len(given) != rank and len(given) in (2, 4, 6):
        pairs = tuple(zip(given[::2], given[1::2], strict=True))[::-1]
        pairs = ((0, 0),) * (rank - len(pairs)) + pairs
        same = f"PyTorch's pairs, which begin with the last axis, are padding={pairs} here."
        rule = f"padding needs an int or {rank} of them, one per spatial axis, or pairs."
        raise _fail(op, rule, f"given: padding={given!r}", same if len(pairs) == rank else "")
    return tuple((p, p) for p in per_axis(op, "padding", given, rank, least=0))


@lru_cache(maxsize=4096)
def _window(op: str, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Window:
    rank = len(size)
    kernel = per_axis(op, "kernel_size", kernel, rank)
    stride = per_axis(op, "stride", stride, rank)
    dilation = per_axis(op, "dilation", dilation, rank)
    pads = _pads(op, padding, size, kernel, stride, dilation)
    out = []
    for n, k, s, d, (lo, hi) in zip(size, kernel, stride, dilation, pads, strict=True):
        room = n + lo + hi - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + lo:  # the last window would start in the end padding (PyTorch's rule)
            count -= 1
        if count < 1:
            raise _fail(
                op,
                "the kernel is larger than the padded input.",
                f"input {size} · kernel {kernel} · dilation {dilation} · padding {pads}",
                f"an axis of {n} cells padded to {n + lo + hi} cannot hold a window of {d * (k - 1) + 1}; "
                + (_SHRUNK if op.endswith("_pool") else "use a smaller kernel or dilation, or more padding."),
            )
        out.append(count)
    return Window(size, kernel, stride, dilation, pads, tuple(out))


@lru_cache(maxsize=4096)
def _pool_window(op: str, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Window:
    window = _window(op, size, kernel, kernel if stride is None else stride, padding, dilation, ceil_mode)
    for axis, (n, k, s, d) in enumerate(zip(size, window.kernel, window.stride, window.dilation, strict=True)):
        lo = window.padding[axis][0]
        for i in range(window.out[axis]):
            start = i * s - lo
            first = start if start >= 0 else start % d  # the first cell of the window at or after 0
            if not (first < n and first <= start + d * (k - 1)):
                raise _fail(
                    op,
                    "a window holds only padding.",
                    f"input {size} · kernel {window.kernel} · stride {window.stride} · dilation {window.dilation} "
                    f"· padding {window.padding}: window {i} of spatial axis {axis}",
                    "use less padding, or a larger kernel.",
                )
    return window


@lru_cache(maxsize=4096)
def _transposed_window(op: str, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, extra: Any) -> Window:
    rank = len(size)
    stride = per_axis(op, "stride", stride, rank)
    dilation = per_axis(op, "dilation", dilation, rank)
    extra = per_axis(op, "output_padding", extra, rank, least=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True) if e):
        raise _fail(
            op,
            "output_padding must be smaller than the stride or the dilation.",
            f"given: output_padding={extra} · stride={stride} · dilation={dilation}",
        )
    if isinstance(padding, str) and padding in ("same", "same_lower"):
        if any(extra):
            raise _fail(
                op,
                f"padding={padding!r} already fixes the output size at input * stride.",
                f"given: output_padding={extra}",
            )
        target = tuple(n * s for n, s in zip(size, stride, strict=True))
        pads = _pads(op, padding, target, kernel, stride, dilation)
    else:
        pads = _pads(op, padding, size, kernel, stride, dilation)
        target = tuple(
            (n - 1) * s + d * (k - 1) + 1 - sum(p) + e
            for n, s, d, k, p, e in zip(size, stride, dilation, kernel, pads, extra, strict=True)
        )
        if min(target) < 1:
            raise _fail(
                op, "the padding leaves no output.", f"input {size} · kernel {kernel} · padding {pads} -> {target}"
            )
    # `out` is the input's own size: output padding may leave room for a window more, which is not taken.
    return Window(target, kernel, stride, dilation, pads, size)
