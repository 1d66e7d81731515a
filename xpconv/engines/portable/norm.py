"""Normalisations by mean and variance, which differ in the axes they average over.

Variances come from two passes: the mean first, then the squares of what is left when it is taken away. What the
rounding of the mean leaves behind (the drift) is measured in the second pass and taken away as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from xpconv.backend import Array, namespace
from xpconv.dispatch import Needs, Primitive
from xpconv.engines.portable.activation import FROM_OUTPUT, activate, derivative
from xpconv.engines.portable.memory import Box
from xpconv.engines.portable.pieces import cut
from xpconv.engines.portable.sums import RunningSum, as_rows, axes_sum, within

Shape = tuple[int, ...]
Axes = tuple[int, ...]


class _Moments(NamedTuple):
    """What x is normalised by: (x - mean - drift) · rstd; axes that were averaged over have size 1."""

    mean: Array
    drift: Array  # true mean minus its rounding
    var: Array  # biased
    rstd: Array  # 1 / sqrt(var + eps)

    def normalised(self, x: Array, box: Box) -> Array:
        """x̂ on a box of x."""
        at = within(self.mean, box)
        hat = x[box] - self.mean[at]
        hat -= self.drift[at]
        hat *= self.rstd[at]
        return hat

    def scaled(self, x: Array, box: Box, gamma: Array | None, beta: Array | None) -> Array:
        """x̂ · gamma + beta on a box, both with as many axes as x."""
        part = self.normalised(x, box)
        if gamma is not None:
            part *= gamma[within(gamma, box)]
        if beta is not None:
            part += beta[within(beta, box)]
        return part

    def result(
        self,
        x: Array,
        gamma: Array | None,
        beta: Array | None,
        residual: Array | None = None,
        activation: str | None = None,
    ) -> Array:
        """activation(x̂ · gamma + beta + residual)."""
        y = namespace(x).empty(tuple(x.shape), dtype=x.dtype, device=x.device)
        for box in cut(x):
            part = self.scaled(x, box, gamma, beta)
            if residual is not None:
                part += residual[box]
            y[box] = part if activation is None else activate(activation, part)
        return y


def _over(shape: Shape, axes: Axes) -> tuple[Shape, float]:
    """The shape once summed over ``axes``, and how many terms each sum has (at least 1)."""
    summed = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    return summed, float(max(math.prod(shape[axis] for axis in axes), 1))


def _moments(x: Array, axes: Axes, eps: float) -> _Moments:
    """Mean and biased variance of x over ``axes``."""
    xp = namespace(x)
    shape, count = _over(tuple(x.shape), axes)
    mean = axes_sum(x, axes) / count
    first, second = RunningSum(x, shape), RunningSum(x, shape)
    for box in cut(x):
        rest = x[box] - mean[within(mean, box)]
        first.add(box, axes_sum(rest, axes))
        rest *= rest
        second.add(box, axes_sum(rest, axes))
    drift = first.total / count
    var = xp.maximum(second.total / count - drift * drift, 0.0)
    return _Moments(mean, drift, var, 1.0 / xp.sqrt(var + eps))


def _in_shape(v: Array | None, shape: Shape) -> Array | None:
    return None if v is None else namespace(v).reshape(v, shape)


# -- batch normalisation -----------------------------------------------------------------------------------------------


def _batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Any,
    var: Any,
    residual: Array | None,
    *,
    needs: Needs,
    eps: float,
    return_stats: bool,
    activation: str | None,
) -> tuple[Any, Any]:
    """y = activation(x̂ · gamma + beta + residual): (..., C), (C,), ... -> (..., C), or (y, mean, var)."""
    xp, rows, one_row = namespace(x), as_rows(x), (1, x.shape[-1])
    side = None if residual is None else as_rows(residual)
    if mean is None:
        stats = _moments(rows, (0,), eps)
    else:
        mean, var = xp.reshape(mean, one_row), xp.reshape(var, one_row)
        stats = _Moments(mean, xp.zeros_like(mean), var, 1.0 / xp.sqrt(var + eps))
    gamma, beta = _in_shape(gamma, one_row), _in_shape(beta, one_row)
    y = xp.reshape(stats.result(rows, gamma, beta, side, activation), tuple(x.shape))
    kept = _kept(y, residual, activation)
    residuals = (x, gamma, beta, stats, mean is not None, activation, *kept) if any(needs) else None
    if not return_stats:
        return y, residuals
    return (y, (stats.mean + stats.drift)[0, :], stats.var[0, :] + 0.0), residuals


def _kept(y: Array, residual: Array | None, activation: str | None) -> tuple[Array | None, Array | None]:
    """What an activation of a sum with a residual keeps: y, if its derivative follows from it, or the residual."""
    if residual is None or activation is None:
        return None, None
    return (y, None) if activation in FROM_OUTPUT else (None, residual)


def _batch_norm_backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """With s = gamma · rstd: dx = s (dz - mean(dz) - x̂ mean(dz x̂)), the means falling away where they were given."""
    *_, activation, y, side = residuals
    if y is None and side is None:
        return _norm_backward(residuals, dy, needs, dy)
    x, gamma, beta, stats = residuals[:4]
    rows, dy_rows = as_rows(x), as_rows(dy)
    kept = as_rows(side if y is None else y)
    dz = namespace(x).empty(tuple(rows.shape), dtype=x.dtype, device=x.device)
    for box in cut(rows):
        part = kept[box] if side is None else stats.scaled(rows, box, gamma, beta) + kept[box]
        dz[box] = derivative(activation, part, dy_rows[box])
    dz = namespace(x).reshape(dz, tuple(x.shape))
    return _norm_backward((x, gamma, beta, stats, residuals[4], None), dz, needs, dz)


def _norm_backward(residuals: Any, dy: Array, needs: Needs, side: Array) -> tuple[Array | None, ...]:
    """As `_batch_norm_backward`, where no residual came before the activation; ``side`` is the gradient of one."""
    x, gamma, beta, stats, given, activation, *_ = residuals
    xp = namespace(x)
    rows, dy_rows = as_rows(x), as_rows(dy)
    scale = stats.rstd if gamma is None else stats.rstd * gamma
    shape, count = _over(tuple(rows.shape), (0,))
    plain, weighted = RunningSum(rows, shape), RunningSum(rows, shape)  # the sums of dz and of dz x̂

    def before(box: Box) -> Array:
        """dz, dy taken back through the activation, whose input is computed again."""
        if activation is None:
            return dy_rows[box]
        z = stats.scaled(rows, box, gamma, beta)
        return derivative(activation, activate(activation, z) if activation in FROM_OUTPUT else z, dy_rows[box])

    if not given or any(needs[1:5]):
        for box in cut(rows):
            dz = before(box)
            plain.add(box, axes_sum(dz, (0,)))
            if not given or needs[1] or needs[4]:
                weighted.add(box, axes_sum(dz * stats.normalised(rows, box), (0,)))
    dx: Any = xp.empty(tuple(rows.shape), dtype=x.dtype, device=x.device) if needs[0] else None
    for box in cut(rows) if needs[0] else ():
        at = within(scale, box)
        if given:
            dx[box] = before(box) * scale[at]
            continue
        part = stats.normalised(rows, box)
        part *= weighted.total[at] / -count
        part += before(box)
        part -= plain.total[at] / count
        part *= scale[at]
        dx[box] = part
    return (
        xp.reshape(dx, tuple(x.shape)) if needs[0] else None,
        weighted.total[0, :] if needs[1] else None,
        plain.total[0, :] if needs[2] else None,
        (-scale * plain.total)[0, :] if needs[3] else None,
        (-0.5 * scale * stats.rstd * weighted.total)[0, :] if needs[4] else None,
        side if needs[5] else None,
    )


# -- normalisation of each sample --------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """How a normalisation sees its arrays."""

    shape: Shape  # of x
    axes: Axes  # that are averaged over
    parameters: Shape  # of gamma and beta, for broadcasting


def _layer(shape: Shape, *, axes: Axes) -> _Layout:
    return _Layout(shape, axes, tuple(n if axis in axes else 1 for axis, n in enumerate(shape)))


def _instance(shape: Shape) -> _Layout:
    n, *spatial, c = shape
    return _Layout((n, math.prod(spatial), c), (1,), (1, 1, c))


def _group(shape: Shape, *, num_groups: int) -> _Layout:
    n, *spatial, c = shape
    groups = (num_groups, c // num_groups)
    return _Layout((n, math.prod(spatial), *groups), (1, 3), (1, 1, *groups))


def _per_sample(layout_of: Callable[..., _Layout]) -> Primitive:
    """The primitive of x̂ · gamma + beta with the averages that the layout says."""

    def run(
        x: Array, gamma: Array | None, beta: Array | None, *, needs: Needs, eps: float, **options: Any
    ) -> tuple[Array, Any]:
        layout = layout_of(tuple(x.shape), **options)
        seen = namespace(x).reshape(x, layout.shape)
        stats = _moments(seen, layout.axes, eps)
        y = stats.result(seen, _in_shape(gamma, layout.parameters), _in_shape(beta, layout.parameters))
        given = next((tuple(v.shape) for v in (gamma, beta) if v is not None), ())
        return namespace(x).reshape(y, tuple(x.shape)), (x, gamma, given, stats, layout) if any(needs) else None

    return Primitive(run, _per_sample_backward)


def _per_sample_backward(residuals: Any, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
    """With g = dy · gamma: dx = rstd (g - mean(g) - x̂ mean(g x̂)); dgamma = Σ dy x̂, dbeta = Σ dy."""
    x, gamma, given, stats, layout = residuals
    xp, axes = namespace(x), layout.axes
    seen, dys = xp.reshape(x, layout.shape), xp.reshape(dy, layout.shape)
    gamma = _in_shape(gamma, layout.parameters)
    shape, count = _over(layout.shape, axes)
    plain, weighted = _sum_for(needs[0], x, shape), _sum_for(needs[0], x, shape)  # of g and of g x̂
    dgamma, dbeta = (_sum_for(need, x, layout.parameters) for need in needs[1:])
    others = tuple(axis for axis, n in enumerate(layout.parameters) if n == 1)
    for box in cut(seen):
        g, product = dys[box], dys[box] * stats.normalised(seen, box)
        if needs[1]:
            dgamma.add(box, axes_sum(product, others))
        if needs[2]:
            dbeta.add(box, axes_sum(g, others))
        if needs[0]:
            scale = 1.0 if gamma is None else gamma[within(gamma, box)]
            plain.add(box, axes_sum(g * scale, axes))
            weighted.add(box, axes_sum(product * scale, axes))
    dx: Any = xp.empty(layout.shape, dtype=x.dtype, device=x.device) if needs[0] else None
    for box in cut(seen) if needs[0] else ():
        at = within(stats.mean, box)
        part = stats.normalised(seen, box)
        part *= weighted.total[at] / -count
        part -= plain.total[at] / count
        part += dys[box] if gamma is None else dys[box] * gamma[within(gamma, box)]
        part *= stats.rstd[at]
        dx[box] = part
    return (
        xp.reshape(dx, tuple(x.shape)) if needs[0] else None,
        xp.reshape(dgamma.total, given) if needs[1] else None,
        xp.reshape(dbeta.total, given) if needs[2] else None,
    )


def _sum_for(need: bool, like: Array, shape: Shape) -> Any:
    return RunningSum(like, shape) if need else None


PRIMITIVES = {
    "batch_norm": Primitive(_batch_norm, _batch_norm_backward),
    "layer_norm": _per_sample(_layer),
    "instance_norm": _per_sample(_instance),
    "group_norm": _per_sample(_group),
}
