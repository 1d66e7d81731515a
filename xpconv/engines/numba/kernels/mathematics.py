"""Exponentials, logarithms and activations of vector registers, to an ulp or two.

Each function reduces its argument to a short interval around 0, where a polynomial of least greatest error serves
(coefficients from Remez exchanges in 60 digits), and puts the power of two back by way of the exponent's bits: J.-M.
Muller, "Elementary Functions: Algorithms and Implementation", 3rd edition, Birkhäuser, 2016, chapters 3 and 11.
Overflow gives inf, underflow a subnormal or 0, and nan stays nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xpconv.engines.numba.kernels.lanes import Lanes
from xpconv.engines.numba.kernels.memory import number_type
from xpconv.engines.numba.kernels.vectors import VectorType

# -- exponentials ------------------------------------------------------------------------------------------------------


def _reduced(x: Lanes, low: Lanes | None = None) -> tuple[Any, Lanes]:
    """n, an integer in its bits, and exp(r) - 1 with x (+ low, a rounding of it) = n ln 2 + r."""
    b, f = x.builder, x.format
    # Adding 1.5 · 2^fraction leaves the nearest integer in the lowest bits.
    shift = 1.5 * 2.0**f.fraction
    shifted = x.times_plus(1.0 / math.log(2.0), shift)
    n = shifted - shift
    r = n.times_plus(-f.ln2_low, n.times_plus(-f.ln2_high, x))
    r = r if low is None else r + low
    kind = x.integers()
    bits = b.sub(b.bitcast(shifted.value, kind), b.bitcast(x.of(x.kind, shift), kind))
    return bits, (r * r).times_plus(r.polynomial(f.exponential), r)


def _power_of_two(x: Lanes, n: Any) -> Lanes:
    """2 to the n, for normal results."""
    b, kind = x.builder, x.integers()
    bits = b.shl(b.add(n, x.of(kind, x.format.bias)), x.of(kind, x.format.fraction))
    return Lanes(b, b.bitcast(bits, x.kind))


def exp(x: Lanes) -> Lanes:
    x = x.at_least(x.format.least).at_most(x.format.most)
    n, rest = _reduced(x)
    # In two steps, since 2 to the n may be neither normal nor finite where the result is.
    half = x.builder.ashr(n, x.of(x.integers(), 1))
    return (1.0 + rest) * _power_of_two(x, half) * _power_of_two(x, x.builder.sub(n, half))


def exp_as_a_term(x: Lanes) -> Lanes:
    """exp(x) for x <= 0, in a sum that has a term of 1: what it then counts for is the least normal number or more."""
    x = x.at_least(x.format.least_normal)
    n, rest = _reduced(x)
    return (1.0 + rest) * _power_of_two(x, n)


def _exp_of_sum(x: Lanes, low: Lanes) -> Lanes:
    """exp(x + low), low being what x was rounded by, for normal results."""
    b, kind = x.builder, x.integers()
    n, rest = _reduced(x, low)
    bits = b.add(b.bitcast((1.0 + rest).value, kind), b.shl(n, x.of(kind, x.format.fraction)))
    return Lanes(b, b.bitcast(bits, x.kind))


def exp_minus_one(x: Lanes) -> Lanes:
    """exp(x) - 1 for x <= 0."""
    x = x.at_least(-x.format.flat)
    n, rest = _reduced(x)
    scale = _power_of_two(x, n)
    return scale.times_plus(rest, scale - 1.0)


# -- logarithms --------------------------------------------------------------------------------------------------------


def _near_one(f: Lanes) -> tuple[Lanes, Lanes]:
    """f²/2, and what log(1 + f) is more than f - f²/2."""
    s = f / (2.0 + f)
    z = s * s
    half = 0.5 * f * f
    return half, s * (half + z * z.polynomial(f.format.logarithm))


def log_one_plus(x: Lanes) -> Lanes:
    """log(1 + x) for 0 <= x <= 1."""
    far = x.compare(">", math.sqrt(2.0) - 1.0)
    f = far.choose(0.5 * (x - 1.0), x, x)  # 1 + x = 2 (1 + (x - 1) / 2)
    half, more = _near_one(f)
    high, low = far.choose(x.format.ln2_high, 0.0, x), far.choose(x.format.ln2_low, 0.0, x)
    return high + (f - (half - (more + low)))


def log(x: Lanes) -> Lanes:
    """The logarithm of what is normal, positive and finite; nan stays nan."""
    b, f, kind = x.builder, x.format, x.integers()
    bits = b.bitcast(x.value, kind)
    # Exponents are counted from sqrt(1/2), so that x = 2^n m with m in sqrt(1/2) .. sqrt(2).
    root = b.bitcast(x.of(x.kind, math.sqrt(0.5)), kind)
    n = b.ashr(b.sub(bits, root), x.of(kind, f.fraction))
    m = Lanes(b, b.bitcast(b.sub(bits, b.shl(n, x.of(kind, f.fraction))), x.kind)) - 1.0
    half, more = _near_one(m)
    whole = Lanes(b, b.sitofp(n, x.kind))
    value = whole.times_plus(f.ln2_high, m - (half - whole.times_plus(f.ln2_low, more)))
    return x.compare("==", x).choose(value, x, x)


# -- the normal distribution ------------------------------------------------------------------------------------------


def normal_cdf(x: Lanes) -> tuple[Lanes, Lanes]:
    """Φ(x), which keeps its digits in the tail, and exp(-x²/2) on the way.

    The tail, 1 - Φ(x) for x >= 0, is exp(-x²/2) times a function without zeros or poles nearby, for which a quotient of
    polynomials with positive coefficients serves, so that nothing cancels: W. J. Cody, "Rational Chebyshev
    approximations for the error function", Mathematics of Computation 23(107), 1969, with an interval and coefficients
    of our own. They interpolate at the Chebyshev nodes of (x - m) / (x + m), solved for in 60 digits; a test makes them
    again.
    """
    f, size = x.format, abs(x)
    half = -0.5 * size
    square = half * size
    bell = _exp_of_sum(square, half.times_plus(size, -square))  # what the square was rounded by counts far out
    tail = bell * size.polynomial(f.tail_above) / size.polynomial(f.tail_below)
    out = size.compare(">", f.far)
    tail, bell = out.choose(0.0, tail, x), out.choose(0.0, bell, x)
    return x.compare(">", 0.0).choose(1.0 - tail, tail, x), bell


# -- activations without parameters ------------------------------------------------------------------------------------


def relu(x: Lanes) -> Lanes:
    return x.at_least(0.0)


def relu6(x: Lanes) -> Lanes:
    return x.at_least(0.0).at_most(6.0)


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + exp(-x)), by exp of a number that is never positive."""
    e = exp(-abs(x))
    return x.compare(">=", 0.0).choose(1.0, e, x) / (1.0 + e)


def tanh(x: Lanes) -> Lanes:
    e = exp_minus_one(-2.0 * abs(x))
    return (e / (-2.0 - e)).with_sign_of(x)


def softplus(x: Lanes) -> Lanes:
    return x.at_least(0.0) + log_one_plus(exp(-abs(x)))


def silu(x: Lanes) -> Lanes:
    return x * sigmoid(x)


def hard_swish(x: Lanes) -> Lanes:
    return x * (relu6(x + 3.0) * (1 / 6))


def gelu(x: Lanes) -> Lanes:
    return x * normal_cdf(x)[0]


def gelu_grad(x: Lanes, dy: Lanes) -> Lanes:
    cdf, bell = normal_cdf(x)
    return dy * (x * bell).times_plus(1.0 / math.sqrt(2.0 * math.pi), cdf)


_STEEP = 2.0 * math.sqrt(2.0 / math.pi)  # of 2u = _STEEP (x + _CUBIC x³), where x (1 + tanh u) / 2 = x sigmoid(2u)
_CUBIC = 0.044715


def _near(x: Lanes) -> tuple[Lanes, Lanes]:
    """x as far as its sigmoid still changes, since its cube would overflow, and its square."""
    near = x.at_least(-40.0).at_most(40.0)
    return near, near * near


def gelu_tanh(x: Lanes) -> Lanes:
    near, square = _near(x)
    return x * sigmoid(near * square.times_plus(_STEEP * _CUBIC, _STEEP))


def gelu_tanh_grad(x: Lanes, dy: Lanes) -> Lanes:
    near, square = _near(x)
    value, slope = _sigmoid_and_slope(near * square.times_plus(_STEEP * _CUBIC, _STEEP))
    return dy * (near * square.times_plus(3.0 * _STEEP * _CUBIC, _STEEP)).times_plus(slope, value)


VALUES: dict[str, Callable[[Lanes], Lanes]] = {
    function.__name__: function for function in (relu, relu6, sigmoid, tanh, softplus, silu, hard_swish)
}


def _relu_grad(y: Lanes, dy: Lanes) -> Lanes:
    return y.compare(">", 0.0).choose(dy, 0.0, dy)


def _relu6_grad(y: Lanes, dy: Lanes) -> Lanes:
    return _relu_grad(y, y.compare("<", 6.0).choose(dy, 0.0, dy))


def _sigmoid_and_slope(x: Lanes) -> tuple[Lanes, Lanes]:
    """σ(x), and σ(x) (1 - σ(x)) without the cancellation."""
    e = exp(-abs(x))
    share = 1.0 / (1.0 + e)
    return x.compare(">=", 0.0).choose(1.0, e, x) * share, e * share * share


def _silu_grad(x: Lanes, dy: Lanes) -> Lanes:
    value, slope = _sigmoid_and_slope(x)
    return dy * (value + x * slope)


def _hard_swish_grad(x: Lanes, dy: Lanes) -> Lanes:
    inside = abs(x).compare("<", 3.0).choose((x + 1.5) * (1 / 3), 0.0, x)
    return dy * x.compare(">=", 3.0).choose(1.0, inside, x)


# dz from the output, or for the others from the input.
SLOPES: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "relu": _relu_grad,
    "relu6": _relu6_grad,
    "sigmoid": lambda y, dy: dy * (y * (1.0 - y)),
    "tanh": lambda y, dy: dy * ((1.0 - y) * (1.0 + y)),
    "softplus": lambda y, dy: dy * -exp_minus_one(-y),  # sigmoid(x) = 1 - exp(-softplus(x))
    "silu": _silu_grad,
    "hard_swish": _hard_swish_grad,
}


# -- as functions that kernels call ------------------------------------------------------------------------------------


def unary(emit: Callable[[Lanes], Lanes], dtype: str, lanes: int) -> Callable[..., Any]:
    """The function vector -> vector that the instructions compute."""
    kind = VectorType(number_type(dtype), lanes)

    @intrinsic
    def function(typing_context, x):
        def codegen(context, builder, signature, args):
            return emit(Lanes(builder, args[0])).value

        return kind(kind), codegen

    return function


def binary(emit: Callable[[Lanes, Lanes], Lanes], dtype: str, lanes: int) -> Callable[..., Any]:
    """The function (vector, vector) -> vector that the instructions compute."""
    kind = VectorType(number_type(dtype), lanes)

    @intrinsic
    def function(typing_context, x, y):
        def codegen(context, builder, signature, args):
            return emit(*(Lanes(builder, arg) for arg in args)).value

        return kind(kind, kind), codegen

    return function


def activate(name: str, dtype: str, lanes: int) -> Callable[..., Any]:
    """The activation of that name, as a function vector -> vector."""
    return unary(VALUES[name], dtype, lanes)


def root(dtype: str, lanes: int) -> Callable[..., Any]:
    """The square root, rounded as IEEE 754 says."""
    return unary(Lanes.root, dtype, lanes)


def slope(name: str, dtype: str, lanes: int) -> Callable[..., Any]:
    """Its derivative times dy, a function (kept, dy) -> dz of vectors; kept is y of those in `FROM_OUTPUT`, else x."""
    return binary(SLOPES[name], dtype, lanes)


@intrinsic
def real(typing_context, word):
    """The double-precision number whose bits a word of a kernel's arguments holds."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen
