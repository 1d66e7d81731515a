"""Which algorithm does a convolution, by what each would cost; `conv` and `linear` run the choice, `explain` tells it.

Costs are in multiply-adds of the direct sum, whose register tiles count the lanes that they leave empty. What else
Winograd's tiles cost was fitted to times of ResNet-50's and ResNet-20's layers on two cores of Zen 4, what addresses
and copies of few channels cost to layers of 1 and 3 on one. Weights that are packed, or transformed, are scratch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from xpconv.engines.numba import bands, columns, depthwise, direct, outer, winograd, winograd_outer
from xpconv.engines.numba.forms import Form, additions
from xpconv.engines.numba.machine import machine
from xpconv.engines.numba.plan import Pass, input_passes, joint_pass, output_pass
from xpconv.engines.numba.tiling import Channels, Room, Work, channels
from xpconv.errors import counted
from xpconv.window import Window

# What a load, a store or an addition of a transform costs, and one of patches that do not fit the registers.
_TRANSFORM, _LARGE_TRANSFORM, _FEW = 2, 5, 32
# Of each transformed weight, or sum that is one: where all of them stay in a core's cache, and where they do not.
_NEAR, _FAR, _CACHE = 4, 70, 2**21
# Of the address of each run of cells under a pixel, some of which are copied; of each number that is copied to have
# pixels in the lanes; and of each output that is turned then.
_ADDRESS, _COPY, _TURN = 60, 16, 8


class Choice(NamedTuple):
    """An algorithm for a pass, and how its launcher cuts it."""

    name: str
    run: Callable[..., None]
    cut: Any
    tile: str  # of registers
    cost: int
    multiply_adds: int  # by the definition
    threads: int
    scratch: int  # bytes


class Problem(NamedTuple):
    """A convolution, as far as its shape goes."""

    dtype: str
    images: int
    in_channels: int  # of a group, as are the outputs
    out_channels: int
    groups: int
    window: Window
    runs: bool  # whether neighbouring kernel cells may be taken together

    @property
    def ways(self) -> tuple[bool, ...]:
        """Whether neighbouring cells are taken together, the better way of a direct sum first."""
        return (True, False) if self.runs else (False,)

    def work(self, p: Pass) -> Work:
        """A pass over the input."""
        return Work(self.dtype, self.images, p, self.in_channels, self.out_channels, self.groups)

    def work_back(self, p: Pass) -> Work:
        """A pass over the gradient of the output."""
        return Work(self.dtype, self.images, p, self.out_channels, self.in_channels, self.groups, True)


class Step(NamedTuple):
    """One pass of a direction, and the algorithm for it."""

    p: Pass
    choice: Choice


def _cost(step: Step) -> int:
    return step.choice.cost


@lru_cache(maxsize=1024)
def output_step(problem: Problem, room: Room, kept: bool) -> Step:
    """How the output is computed; ``kept``: what is made of the weights outlives the call."""
    passes = (output_pass(problem.window, problem.in_channels, runs) for runs in problem.ways)
    ways = [(problem.work(p), of_pass(problem.work(p), room, kept)) for p in passes]
    first, _ = ways[0]
    ways += [(first, option) for option in _banded(first, room)]
    work, chosen = min(ways, key=lambda way: _with_addresses(way[1], way[0]))
    return Step(work.p, chosen)


@lru_cache(maxsize=1024)
def input_steps(problem: Problem, room: Room, kept: bool, plain: bool) -> tuple[Step, ...]:
    """How the input gradient is computed; ``plain``: without a bias."""
    p = output_pass(problem.window, problem.in_channels, False)
    work = problem.work(p)
    packed = work.weights * work.item
    if plain and columns.suits(work, problem.window):
        whole = _columns(work, problem.window, room, packed)
        if whole.scratch <= room.scratch:
            return (Step(p, whole),)
    if _is_depthwise(work):
        joint = joint_pass(problem.window, problem.out_channels)
        if joint is not None and depthwise.suits(joint):
            return (Step(joint, of_pass(problem.work_back(joint), room, kept, packed)),)
    ways = problem.ways if problem.window.stride[-1] == 1 else (False,)
    passes = zip(*(input_passes(problem.window, problem.out_channels, runs) for runs in ways), strict=True)
    steps = ([Step(p, of_pass(problem.work_back(p), room, kept, packed)) for p in each] for each in passes)
    return tuple(min(ways, key=_cost) for ways in steps)


@lru_cache(maxsize=1024)
def weight_step(problem: Problem, room: Room) -> Step:
    """How the weight gradient is computed."""
    passes = (output_pass(problem.window, problem.in_channels, runs) for runs in problem.ways)
    return min((Step(p, of_sum(problem.work(p), room)) for p in passes), key=_cost)


@lru_cache(maxsize=1024)
def of_pass(work: Work, room: Room, kept: bool, packed: int = 0) -> Choice:
    """The cheapest way to do a pass that there is scratch for; ``packed``: bytes of turned weights, for those that want
    them."""
    if _is_depthwise(work):
        cut = depthwise.cut(work, room.without(packed))
        tile = tile_text(cut.split._replace(rows=cut.lines * cut.split.rows), "pixels")
        return _chosen("depthwise sum", depthwise.depthwise, cut, tile, work, work.multiply_adds, cut.threads, packed)
    options = [_direct(work, room)]
    forms = (winograd.form_of(work, large) for large in ((False, True) if room.fast else (False,)))
    options += [_winograd(work, form, room, kept) for form in forms if form is not None]
    return _cheapest(options, room)


@lru_cache(maxsize=1024)
def of_sum(work: Work, room: Room) -> Choice:
    """The cheapest way to sum over the pixels of a pass that there is scratch for."""
    if _is_depthwise(work):
        cut = depthwise.outer_cut(work, room)
        tile = tile_text(cut.split, "pixels")
        run = depthwise.depthwise_outer
        return _chosen("depthwise sum", run, cut, tile, work, work.multiply_adds, cut.slabs.threads)
    options = [_outer(work, room)]
    form = winograd.form_of(work)
    if form is not None:
        options.append(_winograd_outer(work, form, room))
    return _cheapest(options, room)


def _is_depthwise(work: Work) -> bool:
    return work.groups > 1 and work.in_channels == work.out_channels == 1


def _cheapest(options: list[Choice], room: Room) -> Choice:
    """The first option needs the least scratch."""
    return min((options[0], *(o for o in options[1:] if o.scratch <= room.scratch)), key=lambda option: option.cost)


def _chosen(
    name: str, run: Callable[..., None], cut: Any, tile: str, work: Work, cost: int, threads: int, packed: int = 0
) -> Choice:
    return Choice(name, run, cut, tile, cost, work.multiply_adds, threads, cut.scratch + packed)


def _filled(work: Work) -> int:
    """Output channels, with those of empty lanes."""
    lanes = channels(work.dtype, work.out_channels).lanes
    return -(-work.out_channels // lanes) * lanes


def _direct(work: Work, room: Room) -> Choice:
    cut = direct.cut(work, room)
    cost = work.pixels * work.p.cells * work.in_channels * _filled(work) * work.groups
    tile = tile_text(cut.split, "pixels")
    return _chosen("direct sum", direct.direct, cut, tile, work, cost, cut.threads)


def _banded(work: Work, room: Room) -> list[Choice]:
    """The ways to do a pass from copied rows that there is scratch for."""
    options = [_pixels(work, room)] if bands.suits_pixels(work) else []
    options += [_lines(work, room)] if bands.suits_lines(work) else []
    return [option for option in options if option.scratch <= room.scratch]


def _with_addresses(option: Choice, work: Work) -> int:
    """The cost of an option, and of looking up where its cells are."""
    return option.cost + (_ADDRESS * work.pixels * len(work.p.taps) if option.run is direct.direct else 0)


def _pixels(work: Work, room: Room) -> Choice:
    cut, (_, lines, across) = bands.pixels_cut(work, room), work.p.count
    outputs = work.images * lines * -(-across // cut.lanes) * cut.lanes * work.out_channels
    cost = outputs * (cut.offsets.size + _TURN) + cut.copied * cut.tasks * _COPY * work.p.step[2]
    tile = f"tiles of {counted(cut.rows, 'line')} × {counted(cut.vectors, 'vector')} of {cut.lanes} pixels"
    return _chosen("sum with pixels in the lanes", bands.banded, cut, tile, work, cost, cut.threads)


def _lines(work: Work, room: Room) -> Choice:
    cut, (_, lines, across) = bands.lines_cut(work, room), work.p.count
    pixels = work.images * lines * -(-across // cut.rows) * cut.rows
    cost = pixels * work.out_channels * work.p.cells * work.in_channels + cut.copied * cut.tasks
    tile = tile_text(Channels(cut.rows, cut.vectors, 0, cut.lanes, False), "pixels")
    return _chosen("sum along copied lines", bands.banded, cut, tile, work, cost, cut.threads)


def _columns(work: Work, window: Window, room: Room, packed: int) -> Choice:
    cut = columns.cut(work, window, room.without(packed))
    lanes = machine().lanes(work.dtype)
    cost = work.pixels * -(-math.prod(window.kernel) * work.in_channels // lanes) * lanes * work.out_channels
    tile = tile_text(cut.split, "pixels")
    return _chosen("columns of kernel cells", columns.columns, cut, tile, work, cost, cut.threads, packed)


def _transforms(form: Form) -> tuple[int, int]:
    """What the transforms of a tile cost, for each input and each output channel."""
    price = _TRANSFORM if form.cells <= _FEW else _LARGE_TRANSFORM
    of_input = form.cells + additions(form.of_cells) + form.terms
    return price * of_input, price * (form.planes + additions(form.of_planes) + form.outputs)


def _weighing(numbers: int, work: Work) -> int:
    """What it costs to make so many transformed weights, or to turn their gradients back."""
    return numbers * (_NEAR if numbers * work.item <= _CACHE else _FAR)


def _winograd(work: Work, form: Form, room: Room, kept: bool) -> Choice:
    c, o, weights = work.in_channels, work.out_channels, winograd.transformed(work, form)
    left = room.without(weights * work.item)
    cut, alone = (winograd.cut(work, form, space) for space in (left, left._replace(threads=1)))
    # The price must not depend on the threads, nor therefore the choice: answers are the same for any number of them.
    tiles, (of_c, of_o), panels = winograd.tiles_of(work, form), _transforms(form), -(-o // alone.panel)
    cost = winograd.products_of(work, form) * c * o + tiles * (of_c * c * panels + of_o * o)
    cost += 0 if kept else _weighing(weights, work)
    name, tile = f"Winograd {form.name(work.p.rank)}", tile_text(cut.split, "pixels")
    return _chosen(name, winograd.winograd, cut, tile, work, cost, cut.threads, weights * work.item)


def _outer(work: Work, room: Room) -> Choice:
    cut = outer.cut(work, room)
    cost = work.pixels * work.p.cells * work.in_channels * _filled(work) * work.groups
    tile = tile_text(cut.split, "input channels")
    return _chosen("sum of outer products", outer.outer, cut, tile, work, cost, cut.slabs.threads)


def _winograd_outer(work: Work, form: Form, room: Room) -> Choice:
    c, o = work.in_channels, work.out_channels
    cut = winograd_outer.cut(work, form, room)
    tiles, (of_c, of_o), panels = winograd.tiles_of(work, form), _transforms(form), -(-o // cut.panel)
    cost = tiles * (form.terms * c * o + of_c * c * panels + of_o * o) + _weighing(form.terms * c * o, work)
    name, tile = f"Winograd {form.name(work.p.rank)}", tile_text(cut.split, "input channels")
    return _chosen(name, winograd_outer.winograd_outer, cut, tile, work, cost, cut.slabs.threads)


def tile_text(split: Channels, rows: str) -> str:
    """The register tile in words."""
    vectors = split.vectors or split.tail
    return f"tiles of {split.rows} {rows} × {counted(vectors, 'vector')} of {split.lanes}"


def told(choices: list[Choice]) -> str:
    """Passes that are done one after another, in words for `explain`."""
    if not choices:
        return "nothing to do"
    first = max(choices, key=lambda choice: choice.cost)
    cost, plain = (sum(getattr(choice, part) for choice in choices) for part in ("cost", "multiply_adds"))
    threads, scratch = (max(getattr(choice, part) for choice in choices) for part in ("threads", "scratch"))
    passes = f" in {len(choices)} passes" if len(choices) > 1 else ""
    paid = "" if cost == plain else f" at the cost of {_amount(cost, 1000)}"
    return (
        f"{first.name}{passes}, {first.tile}, {counted(threads, 'thread')}, "
        f"{_amount(plain, 1000)} multiply-adds{paid}, {_amount(scratch, 1024)}B scratch"
    )


def _amount(number: float, unit: int) -> str:
    """``1.9 G``, or ``5.2 Mi`` in units of 1024."""
    prefixes = ("", "k", "M", "G", "T") if unit == 1000 else ("", "Ki", "Mi", "Gi", "Ti")
    size = 0
    while number >= unit and size < len(prefixes) - 1:
        number, size = number / unit, size + 1
    return f"{number:.3g} {prefixes[size]}" if size else f"{number:.0f} "
