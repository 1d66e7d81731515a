"""LLVM instructions written as Python expressions on vectors, and what is known of their floating-point formats."""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils


class Format(NamedTuple):
    """What the functions need to know of a floating-point format."""

    integer: Any  # of the same width
    fraction: int  # bits
    bias: int  # of the exponent
    least: float  # exp is 0 below
    least_normal: float  # and subnormal below
    most: float  # and inf above
    flat: float  # exp(-x) is nothing beside 1 from here on
    ln2_high: float  # so few bits that its product with an exponent is exact
    ln2_low: float
    exponential: tuple[float, ...]  # (exp(r) - 1 - r) / r², |r| <= ln 2 / 2
    logarithm: tuple[float, ...]  # (2 artanh(s) / s - 2) / s² in s², |s| <= tan²(π / 8)
    far: float  # the normal distribution's tail is subnormal from here on
    tail_above: tuple[float, ...]  # the quotient of these two is exp(x²/2) times the tail, 0 <= x <= far
    tail_below: tuple[float, ...]


FORMATS = {
    ir.FloatType(): Format(
        integer=ir.IntType(32),
        fraction=23,
        bias=127,
        least=-104.0,
        least_normal=-87.0,
        most=89.0,
        flat=20.0,
        ln2_high=0.693115234375,
        ln2_low=3.1946184945309417232e-05,
        exponential=(0.5000000028558334, 0.16666573362064535, 0.041666363614407384, 0.0083637761409913345,
                     0.0013942150232029495),
        logarithm=(0.66666685379475741, 0.399886727674854326, 0.295841296891803269),
        far=13.1,
        tail_above=(50.37063868, 43.74669315, 18.15381089, 3.989419487, 0.3989483363),
        tail_below=(100.741277, 167.8733217, 119.8801912, 46.48759015, 10.00076829, 1.0),
    ),
    ir.DoubleType(): Format(
        integer=ir.IntType(64),
        fraction=52,
        bias=1023,
        least=-746.0,
        least_normal=-708.0,
        most=710.0,
        flat=40.0,
        ln2_high=0.6931471803691238164901733,
        ln2_low=1.9082149292705878161e-10,
        exponential=(0.500000000000000113, 0.166666666666666754, 0.0416666666666206361, 0.00833333333332128752,
                     0.00138888889189397147, 0.000198412698893639285, 2.48015186409478224e-05, 2.75572392448359647e-06,
                     2.76213388166984342e-07, 2.51111991414449731e-08),
        logarithm=(0.666666666666666977, 0.399999999998972632, 0.285714286269339254, 0.222222109858125211,
                   0.181828995417845643, 0.153313873221433972, 0.146204578338558227),
        far=37.6,
        tail_above=(9.268385302935090701e+5, 1.529916440830090645e+6, 1.252205609267921818e+6,
                    6.564917779046522538e+5, 2.418386521028425901e+5, 6.510680836278244208e+4,
                    1.295406160852493182e+4, 1.883060829601959497e+3, 192.0969509181437466, 12.50288779376661532,
                    0.398942280401544173),
        tail_below=(1.85367706058701814e+6, 4.538853189017000828e+6, 5.199053571509843378e+6,
                    3.684808305914536747e+6, 1.799652837106476711e+6, 6.377175743328754284e+5,
                    1.67856020648909885e+5, 3.295053272910710122e+4, 4.751473610817879742e+3,
                    482.5156486350997721, 31.34009205845834867, 1.0),
    ),
}  # fmt: skip


class Lanes:
    """A vector, or one number, while instructions are written for it; beside it Python numbers are constants."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @property
    def kind(self) -> Any:
        return self.value.type

    @property
    def format(self) -> Format:
        return FORMATS[getattr(self.kind, "element", self.kind)]

    def of(self, kind: Any, number: Any) -> Any:
        """A constant in all lanes of a type."""
        return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)

    def integers(self) -> Any:
        """The type of as many integers of the same width."""
        width = self.format.integer
        return ir.VectorType(width, self.kind.count) if isinstance(self.kind, ir.VectorType) else width

    def _emit(self, instruction: str, *operands: Any, first: tuple[Any, ...] = ()) -> Lanes:
        values = (x.value if isinstance(x, Lanes) else self.of(self.kind, float(x)) for x in operands)
        return Lanes(self.builder, getattr(self.builder, instruction)(*first, *values))

    def _call(self, name: str, *operands: Any) -> Lanes:
        """One of LLVM's own functions from vectors to a vector."""
        element = getattr(self.kind, "element", self.kind)
        bits = f"f{64 if element == ir.DoubleType() else 32}"
        suffix = f"v{self.kind.count}{bits}" if isinstance(self.kind, ir.VectorType) else bits
        shape = ir.FunctionType(self.kind, [self.kind] * len(operands))
        function = cgutils.get_or_insert_function(self.builder.module, shape, f"llvm.{name}.{suffix}")
        values = [x.value if isinstance(x, Lanes) else self.of(self.kind, float(x)) for x in operands]
        return Lanes(self.builder, self.builder.call(function, values))

    def __add__(self, other: Any) -> Lanes:
        return self._emit("fadd", self, other)

    def __radd__(self, other: float) -> Lanes:
        return self._emit("fadd", other, self)

    def __sub__(self, other: Any) -> Lanes:
        return self._emit("fsub", self, other)

    def __rsub__(self, other: float) -> Lanes:
        return self._emit("fsub", other, self)

    def __mul__(self, other: Any) -> Lanes:
        return self._emit("fmul", self, other)

    def __rmul__(self, other: float) -> Lanes:
        return self._emit("fmul", other, self)

    def __truediv__(self, other: Any) -> Lanes:
        return self._emit("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Lanes:
        return self._emit("fdiv", other, self)

    def __neg__(self) -> Lanes:
        return Lanes(self.builder, self.builder.fneg(self.value))

    def __abs__(self) -> Lanes:
        return self._call("fabs", self)

    def compare(self, sign: str, other: Any) -> Lanes:
        """Where the comparison holds; with nan none does."""
        return self._emit("fcmp_ordered", self, other, first=(sign,))

    def choose(self, yes: Any, no: Any, like: Lanes) -> Lanes:
        """``yes`` where this mask holds, else ``no``, one of them perhaps a number for the lanes of ``like``."""
        return like._emit("select", yes, no, first=(self.value,))

    def at_least(self, bound: float) -> Lanes:
        """max(x, bound); nan stays."""
        return self.compare("<", bound).choose(bound, self, self)

    def at_most(self, bound: float) -> Lanes:
        """min(x, bound); nan stays."""
        return self.compare(">", bound).choose(bound, self, self)

    def times_plus(self, factor: Any, term: Any) -> Lanes:
        """self · factor + term, rounded once where the CPU can."""
        return self._call("fmuladd", self, factor, term)

    def polynomial(self, coefficients: tuple[float, ...]) -> Lanes:
        """The sum of coefficients[i] · x to the i, by Horner's rule."""
        total: Any = coefficients[-1]
        for c in reversed(coefficients[:-1]):
            total = self.times_plus(total, c)
        return total

    def root(self) -> Lanes:
        return self._call("sqrt", self)

    def with_sign_of(self, other: Lanes) -> Lanes:
        return self._call("copysign", self, other)
