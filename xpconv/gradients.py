"""Checking an op's gradients against central differences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from xpconv.backend import Array, backend_of, to_numpy
from xpconv.derivatives import vjp
from xpconv.dispatch import registered
from xpconv.errors import GradientError, dtype_name, message

_STEP = 1e-5  # near the cube root of float64's roundoff, where truncation and rounding balance
_CELLS = 200  # cells tried per array; larger arrays are sampled


@dataclass(frozen=True, slots=True)
class GradientReport:
    """What `check_gradients` did: cells compared, cells skipped at a kink, and the largest error found.

    ``max_error`` is in units of the largest gradient of its array.
    """

    checked: int
    skipped: int
    max_error: float


def check_gradients(
    op: Callable[..., Any], /, *args: Any, tolerance: float = 1e-6, seed: int = 0, **options: Any
) -> GradientReport:
    """Compare the gradients of an op, or of a layer or network, with central differences, in float64.

    The scalar ``L = Re Σ conj(dy) · y`` with a random dy is differenced in up to 200 cells of each floating array.
    Where the one-sided differences disagree, the cell lies at or near a kink (a tie in a window, an activation's
    corner): it is skipped, and counted.

    Parameters
    ----------
    op, *args, **options
        As for `xpconv.vjp`; floating arrays are taken to float64. Or a module and its x, and ``training=False`` for the
        gradients of inference: those of x and of every trainable parameter are compared, on a copy in float64.
    tolerance : float
        Largest error that passes, in units of the largest gradient of the array.
    seed : int
        Of dy and of the cells chosen.

    Returns
    -------
    GradientReport

    Raises
    ------
    GradientError
        When a gradient disagrees; the message names the array, the cell and both values.

    Examples
    --------
    >>> import numpy as np, xpconv
    >>> from xpconv import ops
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.normal(size=(1, 4, 4, 2)), rng.normal(size=(3, 3, 2, 3))
    >>> xpconv.check_gradients(ops.conv, x, w).checked
    86
    >>> from xpconv import nn
    >>> xpconv.check_gradients(nn.Conv2d(2, 3, 3), x).checked
    89
    """
    if hasattr(op, "vjp") and hasattr(op, "parameters"):
        return _of_module(op, *args, tolerance=tolerance, seed=seed, **options)
    known = registered(op, "check_gradients")
    rng = np.random.default_rng(seed)
    args, options = tuple(_double(a) for a in args), {name: _double(a) for name, a in options.items()}
    y, pullback = vjp(op, *args, **options)
    first = y[0] if isinstance(y, tuple) else y
    dy = _normal(rng, first)
    grads = pullback(backend_of(first).asarray(dy))
    size = float(np.sum(np.abs(dy * to_numpy(first))))
    checked, skipped, worst = 0, 0, 0.0
    for name, at, gradient in zip(known.arrays, known.positions, grads, strict=False):
        if gradient is None:
            continue
        place = name if name in options else at

        def loss(x: np.ndarray, place: Any = place, gradient: Array = gradient) -> float:
            moved = backend_of(gradient).asarray(x)
            if isinstance(place, str):
                result = op(*args, **{**options, place: moved})
            else:
                result = op(*args[:place], moved, *args[place + 1 :], **options)
            result = result[0] if isinstance(result, tuple) else result
            return float(np.sum(np.conj(dy) * to_numpy(result)).real)

        x = np.array(to_numpy(options[place] if isinstance(place, str) else args[place]))
        compared, kinks, error = _compare(f"{known.name}: d{name}", loss, x, to_numpy(gradient), size, rng, tolerance)
        checked, skipped, worst = checked + compared, skipped + kinks, max(worst, error)
    return GradientReport(checked, skipped, worst)


def _of_module(module: Any, x: Array, *, tolerance: float, seed: int, training: bool = True) -> GradientReport:
    """As `check_gradients`; a gradient that did not arrive counts as 0."""
    rng, x, module = np.random.default_rng(seed), _double(x), copy.deepcopy(module)
    place = backend_of(x)
    module.to(dtype=dtype_name(x.dtype))

    def run(x: Array) -> tuple[Array, Any]:
        for part in module.modules().values():
            part.restart()  # so that all draw the same
        return module.vjp(x, training=training)

    y, pullback = run(x)
    dy = _normal(rng, y)
    module.zero_grad()
    dx, size = pullback(place.asarray(dy)), float(np.sum(np.abs(dy * to_numpy(y))))

    def loss(values: np.ndarray, parameter: Any = None) -> float:
        if parameter is not None:
            parameter.assign(place.asarray(values))
        result = run(x if parameter is not None else place.asarray(values))[0]
        return float(np.sum(np.conj(dy) * to_numpy(result)).real)

    parts = [("x", x, dx, loss)]
    for name, parameter in module.parameters().items():
        if parameter.trainable:
            parts.append((name, parameter.value, parameter.grad, partial(loss, parameter=parameter)))
    reports = []
    for name, value, gradient, of_part in parts:
        host = np.array(to_numpy(value))
        found = np.zeros_like(host) if gradient is None else to_numpy(gradient)
        subject = f"{type(module).__name__}: d{name}"
        reports.append(_compare(subject, of_part, np.array(host), found, size, rng, tolerance))
        of_part(host)  # for the next one, the values as they were
    checked, skipped, errors = zip(*reports, strict=True)
    return GradientReport(sum(checked), sum(skipped), max(errors))


def _compare(
    subject: str,
    loss: Callable[[np.ndarray], float],
    x: np.ndarray,
    gradient: np.ndarray,
    size: float,
    rng: Any,
    tolerance: float,
) -> tuple[int, int, float]:
    """Cells compared, cells skipped, and the largest error; ``size`` is that of what the loss adds up."""
    cells = np.arange(x.size) if x.size <= _CELLS else rng.choice(x.size, _CELLS, replace=False)
    here, tried = loss(x), []
    for where in (np.unravel_index(cell, x.shape) for cell in cells):
        for direction in (1.0, 1j) if x.dtype.kind == "c" else (1.0,):
            ahead, behind = _moved(loss, x, where, _STEP * direction), _moved(loss, x, where, -_STEP * direction)
            got = float((gradient[where] * np.conj(direction)).real)
            tried.append((where, got, (ahead - here) / _STEP, (here - behind) / _STEP))
    # Differences are no better than the roundoff of the loss over the step, ten times which must pass.
    least = 10 * float(np.finfo(np.float64).eps) * size / _STEP / tolerance
    unit = max(least, 1e-300, *(abs(number) for _, *numbers in tried for number in numbers))
    smooth = [entry for entry in tried if abs(entry[2] - entry[3]) <= 1e-2 * unit]
    worst = 0.0
    for where, got, forward, backward in smooth:
        expected = (forward + backward) / 2
        error = abs(got - expected) / unit
        worst = max(worst, error)
        if not error <= tolerance:
            raise GradientError(
                message(
                    subject,
                    "the gradient disagrees with central differences.",
                    f"cell {tuple(map(int, where))}: gradient {got:.9g} · differences {expected:.9g}",
                    f"the error {error:.3g} of the largest gradient, {unit:.3g}, is above {tolerance:g}.",
                )
            )
    return len(smooth), len(tried) - len(smooth), worst


def _moved(loss: Callable[[np.ndarray], float], x: np.ndarray, where: Any, step: complex) -> float:
    saved = x[where]
    x[where] = saved + (step if x.dtype.kind == "c" else step.real)
    value = loss(x)
    x[where] = saved
    return value


def _double(value: Any) -> Any:
    """Floating arrays in double precision on their own backend; anything else as it is."""
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        return value
    host = to_numpy(value)
    if host.dtype.kind not in "fc":
        return value
    return backend_of(value).asarray(host.astype("complex128" if host.dtype.kind == "c" else "float64"))


def _normal(rng: Any, like: Array) -> np.ndarray:
    host = to_numpy(like)
    dy = rng.standard_normal(host.shape)
    return dy + 1j * rng.standard_normal(host.shape) if host.dtype.kind == "c" else dy
