"""Winograd's minimal filtering as tables: sums of products that give a few outputs of a filter by fewer products.

A form of one axis takes some taps g and a patch of cells x to a few outputs y, `step` cells apart, as a sum of terms

    y = Σ over terms  outputs · (cells · x) · (taps · g)

where terms with the same outputs are added before they are sent there: they share a *plane* of products, as one long
sum. Forms of images are outer products of three axes. No term that an output is made of reads a cell outside the
output's window (of two outputs at a time), so that infinities stay where they are.

A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016 (arXiv:1509.09308) has F(2, 3) and
F(4, 3); longer filters are sums of short ones, and those of a step the sum of one for each phase of the cells.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

Row = tuple[float, ...]
Matrix = tuple[Row, ...]


class Term(NamedTuple):
    """One product, and the outputs that it is added to."""

    cells: Row
    taps: Row
    outputs: Row


# Two outputs of one to three taps, by interpolation at 0, 1, -1 and infinity where there are so many.
_SHORT = {
    1: (
        Term((1, 0), (1,), (1, 0)),
        Term((0, 1), (-1,), (0, -1)),
    ),
    2: (
        Term((1, -1, 0), (1, 0), (1, 0)),
        Term((0, 1, 0), (1, 1), (1, 1)),
        Term((0, 1, -1), (0, 1), (0, -1)),
    ),
    3: (
        Term((1, 0, -1, 0), (1, 0, 0), (1, 0)),
        Term((0, 1, 1, 0), (1 / 2, 1 / 2, 1 / 2), (1, 1)),
        Term((0, -1, 1, 0), (1 / 2, -1 / 2, 1 / 2), (1, -1)),
        Term((0, 1, 0, -1), (0, 0, 1), (0, -1)),
    ),
}
# Four outputs of three taps, by interpolation at 0, ±1, ±2 and infinity.
_LARGE = (
    Term((4, 0, -5, 0, 1, 0), (1 / 4, 0, 0), (1, 0, 0, 0)),
    Term((0, -4, -4, 1, 1, 0), (-1 / 6, -1 / 6, -1 / 6), (1, 1, 1, 1)),
    Term((0, 4, -4, -1, 1, 0), (-1 / 6, 1 / 6, -1 / 6), (1, -1, 1, -1)),
    Term((0, -2, -1, 2, 1, 0), (1 / 24, 1 / 12, 1 / 6), (1, 2, 4, 8)),
    Term((0, 2, -1, -2, 1, 0), (1 / 24, -1 / 12, 1 / 6), (1, -2, 4, -8)),
    Term((0, 4, 0, -5, 0, 1), (0, 0, 1), (0, 0, 0, 1)),
)


class Axis(NamedTuple):
    """A form of one axis: 1, 2 or 4 outputs at a time."""

    outputs: int
    taps: int
    step: int  # cells from output to output

    @property
    def cells(self) -> int:
        return (self.outputs - 1) * self.step + self.taps

    def terms(self) -> tuple[Term, ...]:
        """One output is the plain sum, whose terms are the taps; two are made of short filters."""
        if self.outputs == 4:
            return _LARGE
        if self.outputs == 1:
            return tuple(Term(_unit(tap, self.taps), _unit(tap, self.taps), (1,)) for tap in range(self.taps))
        terms = []
        for first, short in _parts(self.taps, self.step):
            for cells, taps, outputs in _SHORT[short]:
                cells = _spread(cells, first, self.step, self.cells)
                terms.append(Term(cells, _spread(taps, first, self.step, self.taps), outputs))
        return tuple(terms)


def _parts(taps: int, step: int) -> list[tuple[int, int]]:
    """The short filters that every step-th tap is cut into, for each phase: the first tap, and how many."""
    parts = []
    for phase in range(step):
        left = len(range(phase, taps, step))
        first = phase
        while left:
            short = 2 if left in (2, 4) else min(left, 3)
            parts.append((first, short))
            first, left = first + short * step, left - short
    return parts


def _unit(at: int, count: int) -> Row:
    return _spread((1,), at, 1, count)


def _spread(row: Row, first: int, step: int, count: int) -> Row:
    """Numbers put at every step-th place from the first one on, among zeros."""
    wide = [0.0] * count
    for i, number in enumerate(row):
        if number:
            wide[first + i * step] = number
    return tuple(wide)


@dataclass(frozen=True)
class Form:
    """The outer product of three axes. Terms are numbered so that those of a plane follow one another."""

    axes: tuple[Axis, Axis, Axis]

    @staticmethod
    def parse(code: str) -> Form:
        """What `code` tells."""
        first, second, third = (Axis(*map(int, axis.split("x"))) for axis in code.split("."))
        return Form((first, second, third))

    @functools.cached_property
    def code(self) -> str:
        """A name that kernels are made and kept by."""
        return ".".join("x".join(map(str, axis)) for axis in self.axes)

    def name(self, rank: int) -> str:
        """As the literature has it, for so many spatial axes."""
        outputs, taps, steps = ("×".join(map(str, part)) for part in zip(*self.axes[-rank:], strict=True))
        step = steps.partition("×")[0]
        equal = all(axis.step == self.axes[-1].step for axis in self.axes[-rank:])
        return f"F({outputs}, {taps}{'' if steps.strip('1×') == '' else f' /{step if equal else steps}'})"

    @functools.cached_property
    def outputs(self) -> int:
        return math.prod(axis.outputs for axis in self.axes)

    @functools.cached_property
    def cells(self) -> int:
        return math.prod(axis.cells for axis in self.axes)

    @functools.cached_property
    def taps(self) -> int:
        return math.prod(axis.taps for axis in self.axes)

    @functools.cached_property
    def terms(self) -> int:
        return len(self.plane_of)

    @functools.cached_property
    def planes(self) -> int:
        return self.plane_of[-1] + 1

    @functools.cached_property
    def of_cells(self) -> tuple[Matrix, ...]:
        """For each axis the rows over cells: Bᵀ."""
        return tuple(tuple(term.cells for term in axis.terms()) for axis in self.axes)

    @functools.cached_property
    def of_taps(self) -> tuple[Matrix, ...]:
        """For each axis the rows over taps: G."""
        return tuple(tuple(term.taps for term in axis.terms()) for axis in self.axes)

    @functools.cached_property
    def of_planes(self) -> tuple[Matrix, ...]:
        """For each axis the rows over planes: Aᵀ."""
        return tuple(transposed(_columns(axis)) for axis in self.axes)

    @functools.cached_property
    def _numbering(self) -> tuple[list[int], list[int]]:
        """The outer product's terms in order of their planes, and these planes."""
        counts = [len(_columns(axis)) for axis in self.axes]
        on_axes = [[_columns(axis).index(term.outputs) for term in axis.terms()] for axis in self.axes]
        planes = [(a * counts[1] + b) * counts[2] + c for a, b, c in itertools.product(*on_axes)]
        order = sorted(range(len(planes)), key=planes.__getitem__)
        return order, [planes[term] for term in order]

    @functools.cached_property
    def numbers(self) -> tuple[int, ...]:
        """The number of each term, in the order in which the outer product has them."""
        order, _ = self._numbering
        return tuple(order.index(term) for term in range(len(order)))

    @functools.cached_property
    def plane_of(self) -> tuple[int, ...]:
        """The plane of each term, by its number."""
        return tuple(self._numbering[1])

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """The first term of each plane, and how many terms there are."""
        return (*(self.plane_of.index(plane) for plane in range(self.planes)), self.terms)

    @functools.cached_property
    def first_outputs(self) -> tuple[tuple[int, int, int], ...]:
        """The first output on each axis that each plane is added to."""
        a, b, c = ([_first(column) for column in _columns(axis)] for axis in self.axes)
        return tuple(itertools.product(a, b, c))

    @functools.cached_property
    def most(self) -> int:
        """The most terms that a plane has."""
        return max(b - a for a, b in itertools.pairwise(self.starts))


def saves(taps: int, step: int) -> bool:
    """Whether two outputs of so many taps take fewer products by a form than by the plain sum."""
    return len(Axis(2, taps, step).terms()) < 2 * taps


def products(axis: Axis, count: int) -> int:
    """How many products so many outputs of an axis take; the last ones alone need not all terms of a tile."""
    whole, left = divmod(count, axis.outputs)
    return whole * len(axis.terms()) + sum(_first(term.outputs) < left for term in axis.terms())


def _first(outputs: Row) -> int:
    """The first output that a term is added to."""
    return next(i for i, factor in enumerate(outputs) if factor)


def transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _columns(axis: Axis) -> Matrix:
    """What terms are added to, each once: the planes of an axis."""
    return tuple(dict.fromkeys(term.outputs for term in axis.terms()))


def additions(matrices: tuple[Matrix, ...]) -> int:
    """How many additions it takes to apply matrices along three axes, one after another."""
    total = 0
    for axis, matrix in enumerate(matrices):
        others = math.prod(len(m) if i < axis else len(m[0]) for i, m in enumerate(matrices) if i != axis)
        total += others * sum(sum(factor != 0 for factor in row) - 1 for row in matrix)
    return total
