"""Plans: how the library would run a problem. Found once, kept for as long as they are used, shared by all threads.

A plan is what the heuristics rank first among those that keep to the notes and the workspace that the settings allow.
With `autotune` the candidates are timed at the first call, in each layout that may be worth it, and the choice is kept
on disk. The frontend holds Python's lock while it runs, so that threads may share plans; handles they may not share
(`library.handle`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from time import monotonic
from typing import Any

import cudnn
import cupy

from xpconv import notices
from xpconv.backend import Array
from xpconv.engines.cudnn import library, tune
from xpconv.engines.cudnn.graph import drawn, refused_notes
from xpconv.engines.cudnn.problem import Problem

MOST_PLANS = 1024
_CANDIDATES, _BUILDING = 12, 2.0  # plans of a layout that are timed, and seconds that building them may take


@dataclass(frozen=True, eq=False, slots=True)
class Way:
    """One of the plans that the library has for a graph."""

    problem: Problem  # that the graph was drawn for
    graph: Any
    index: int
    workspace: int

    @property
    def name(self) -> str:
        """The library's name for it: an engine and its knobs."""
        return self.graph.get_plan_name_at_index(self.index)

    @property
    def choice(self) -> str:
        """What it is remembered by: layout and name."""
        return f"{self.problem.layout} {self.name}"

    def run(self, *operands: Array) -> None:
        """Put the work into the current stream; operands in the order of the graph's numbers, outputs last."""
        scratch = cupy.cuda.alloc(self.workspace) if self.workspace else None
        pointers = {i: x.data.ptr for i, x in enumerate(operands, 1)}
        handle = library.handle(self.problem.device)
        library.execute(self.graph, pointers, scratch.ptr if scratch is not None else 0, self.index, handle)


class Plan:
    """How a problem is run: in the best way by rank or, once its first call has measured, by time."""

    __slots__ = ("problem", "tuned", "way")

    def __init__(self, problem: Problem, way: Way, tuned: bool) -> None:
        self.problem, self.way, self.tuned = problem, way, tuned

    def settled(self, call: Callable[[Way], Any]) -> Way:
        """The way to take for a call, which is timed in every way if that is still to be done."""
        if library.capturing():
            way = self.way
            _captured.add(way)
            return way
        if not self.tuned:
            self._tune(call)
        return self.way

    def _tune(self, call: Callable[[Way], Any]) -> None:
        """Time the call, with all copies that a layout asks for; take the fastest way, and keep its name."""
        self.tuned = True  # before, so that another thread runs on rather than times too
        notices.wait(f"timing plans of a convolution, {kept()} so far")
        tried = list(_candidates(self.way))
        failures: list[Exception] = []
        times = [_seconds(partial(call, way), failures) for way in tried]
        best = min(range(len(tried)), key=times.__getitem__)
        if math.isfinite(times[best]):
            self.way = tried[best]
            if not any(map(library.short_of_memory, failures)):  # another time there may be enough
                tune.keep(self.problem, self.way.choice)


def _seconds(run: Callable[[], None], failures: list[Exception]) -> float:
    """The time that a candidate takes, endless for one that does not run."""
    try:
        return tune.seconds(run)
    except (RuntimeError, MemoryError) as error:
        failures.append(error)
        return math.inf


# Ways that a CUDA graph has captured: it launches kernels that are a plan's own, compiled for what is fused, and that
# would be unloaded with it; how long the graph lives nobody tells. Its workspace is the graph's as all its memory is.
_captured: set[Way] = set()


@lru_cache(maxsize=MOST_PLANS)
def find(problem: Problem) -> Plan | str:
    """The plan for a problem, or the library's reason why there is none; a lack of memory is raised, not remembered."""
    library.outside_capture("plan a convolution")
    notices.wait(f"planning convolution {kept() + 1}")
    with cupy.cuda.Device(problem.device):
        return library.with_room(lambda: _best(problem, library.place(problem.device)))


def _best(problem: Problem, place: dict[str, Any]) -> Plan | str:
    if problem.autotune and (way := _remembered(problem, place)) is not None:
        return Plan(problem, way, tuned=True)
    try:
        graph = planned(problem, place)
    except library.Refusal as error:
        return f"refuses it: {_lasting(error)}"
    refusals: list[str] = []
    for way in _fitting(graph, problem, refusals):
        return Plan(problem, way, tuned=not problem.autotune)
    most = max(set(refusals), key=refusals.count) if refusals else "it proposes none"
    return f"has no plan under these settings: {most}"


def _remembered(problem: Problem, place: dict[str, Any]) -> Way | None:
    """The way that was fastest when it was measured; `None` if that never was, or it is there no longer."""
    layout, _, name = (tune.known(problem) or "").partition(" ")
    asked = next((asked for asked in problem.layouts if name and asked.layout == layout), None)
    return asked and next(_most_fused(asked, place, name), None)


def _candidates(first: Way) -> Iterator[Way]:
    """What is timed for a problem whose first way, in our layout, is known."""
    ours, *others = first.problem.layouts
    yield from _worth_timing(_fitting(first.graph, ours))
    for asked in others:
        yield from _worth_timing(_most_fused(asked, library.place(asked.device)))


def _worth_timing(ranked: Iterator[Way]) -> Iterator[Way]:
    """The first of some ways: fewer where the library compiles a kernel for each, half a second and more of waiting."""
    left = _BUILDING
    for _ in range(_CANDIDATES):
        started = monotonic()
        if left < 0 or (way := next(ranked, None)) is None:
            return
        left -= monotonic() - started
        yield way


def _most_fused(problem: Problem, place: dict[str, Any], name: str = "") -> Iterator[Way]:
    """The ways to run as much of a problem as the library fuses in its layout; what is left is done after it."""
    for asked in (problem, *problem.lesser):
        found = ways(asked, place, name)
        if (first := next(found, None)) is not None:
            yield first
            yield from found
            return


def ways(problem: Problem, place: dict[str, Any], name: str = "") -> Iterator[Way]:
    """The ways to run a problem, best by rank first, or that of a name; none where the library refuses it."""
    try:
        graph = planned(problem, place)
    except library.Refusal:
        return
    yield from _fitting(graph, problem, name=name)


def kept() -> int:
    """How many problems there are plans for."""
    return find.cache_info().currsize


def planned(problem: Problem, place: dict[str, Any]) -> Any:
    """The library's graph for a problem, with its plans ranked and those barred that numeric notes forbid."""
    graph = drawn(problem, place)
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    ranked = library.backend_graph(graph)
    ranked.deselect_numeric_notes(refused_notes(problem))
    return ranked


def _fitting(graph: Any, problem: Problem, refusals: list[str] | None = None, name: str = "") -> Iterator[Way]:
    """A way for each plan (of a name) that can be built and fits the limit with the copies it needs, best first.

    ``refusals`` are kept by who will remember them: a lack of memory is none, and raised.
    """
    for index in range(graph.get_execution_plan_count()):
        if name and graph.get_plan_name_at_index(index) != name:
            continue  # nor built: it may have to be compiled
        try:
            graph.build_plan_at_index(index)
            workspace = graph.get_workspace_size_plan_at_index(index)
        except library.Refusal as error:
            reason = _reason(error) if refusals is None else _lasting(error)
        else:
            if workspace + problem.copies <= problem.workspace_limit:
                yield Way(problem, graph, index, workspace)
                continue
            reason = "its plans need more workspace than workspace_limit allows"
        if refusals is not None:
            refusals.append(reason)


def _lasting(error: Exception) -> str:
    """The reason for a refusal, if it will be the same another time."""
    if library.short_of_memory(error):
        raise MemoryError(_reason(error)) from error
    return _reason(error)


def _reason(error: Exception) -> str:
    """What the library says in the end, without its nested warnings."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ()")]
    told = [line.partition("Reason: ")[2] for line in lines if "Reason: " in line]
    return (next((line for line in told if "finalize" not in line), "") or (lines[0] if lines else repr(error)))[:200]
