"""GELU, x · Φ(x): the array API has no error function, so the normal distribution function Φ is made here.

The tail Q(x) = 1 - Φ(x), x >= 0, is exp(-x²/2) g(t) / (1 + 5x/4) with t = (x - 4) / (x + 4), where g is smooth on the
whole half-line and one Chebyshev series serves it: M. M. Shepherd and J. G. Laframboise, "Chebyshev approximation of
(1 + 2x) exp(x²) erfc(x) in 0 <= x < ∞", Mathematics of Computation 36(153), 1981, with constants of our own.
"""

from __future__ import annotations

import math

from xpconv.backend import Array, cast, namespace
from xpconv.engines.portable.activation import parametric, sigmoid, sigmoid_slope

# Chebyshev coefficients of g, computed with 40 digits; float32 needs the first dozen.
_SERIES = (
    0.5399111992146648,
    -0.023007621427826867,
    -0.03341147576856588,
    0.020891554097538814,
    -0.007015147561529198,
    0.001465894420353981,
    -0.00015083432006869084,
    -1.0706731921877815e-05,
    5.329976550297769e-06,
    -2.0915613986619632e-07,
    -1.5099750680956177e-07,
    1.4641419507208657e-08,
    4.89265710748247e-09,
    -6.137430072581771e-10,
    -1.9387024147862513e-10,
    2.1783886247203717e-11,
    8.989852476330854e-12,
    -5.675644705173359e-13,
    -4.4656244648342415e-13,
    -3.501005312312459e-15,
    2.1662206735842084e-14,
    2.1179926330963953e-15,
    -9.155788763503825e-16,
    -2.126147293366471e-16,
)
_SHORT = 12

_FAR = 40.0  # Q, exp(-x²/2) and the approximation's tail are 0 from here on, in float64


def _bell(size: Array) -> Array:
    """exp(-x²/2) for x >= 0; x is split so that no rounding of x² is magnified (W. J. Cody, 1969)."""
    xp = namespace(size)
    short = xp.trunc(size * 16.0) * (1 / 16)  # its square is exact
    return xp.exp(-0.5 * short * short) * xp.exp(-0.5 * (size - short) * (size + short))


def _tail(size: Array, bell: Array) -> Array:
    """Q(x) for x >= 0, by Clenshaw's recurrence."""
    xp = namespace(size)
    series = _SERIES if size.dtype == xp.float64 else _SERIES[:_SHORT]
    t = (size - 4.0) / (size + 4.0)
    t2 = 2.0 * t
    one, two = xp.zeros_like(t), xp.zeros_like(t)
    for c in reversed(series[1:]):
        one, two = t2 * one - two + c, one
    return (t * one - two + series[0]) * bell / (1.0 + 1.25 * size)


def normal_cdf(x: Array) -> tuple[Array, Array]:
    """Φ(x), and exp(-x²/2) on the way."""
    xp = namespace(x)
    size = xp.minimum(xp.abs(x), _FAR)
    bell = _bell(size)
    tail = _tail(size, bell)
    return tail + cast(x > 0.0, x.dtype) * (1.0 - 2.0 * tail), bell


def _gelu(x: Array, *, approximate: str) -> Array:
    return x * (normal_cdf(x)[0] if approximate == "none" else sigmoid(2.0 * _inner(_near(x))))


def _gelu_grad(x: Array, dy: Array, *, approximate: str) -> Array:
    if approximate == "none":
        cdf, bell = normal_cdf(x)
        return dy * (cdf + x * bell * (1.0 / math.sqrt(2.0 * math.pi)))
    near = _near(x)
    twice = 2.0 * _inner(near)
    slope = 2.0 * math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * _CUBIC * near * near)
    return dy * (sigmoid(twice) + near * slope * sigmoid_slope(twice))


_CUBIC = 0.044715


def _near(x: Array) -> Array:
    """x where the approximation still changes, else the end of that range: its cube would overflow far out."""
    xp = namespace(x)
    return xp.minimum(xp.maximum(x, -_FAR), _FAR)


def _inner(x: Array) -> Array:
    """u of the approximation x (1 + tanh u) / 2, which is x · sigmoid(2u)."""
    return math.sqrt(2.0 / math.pi) * x * (1.0 + _CUBIC * x * x)


PRIMITIVES = {"gelu": parametric(_gelu, _gelu_grad)}
