"""Plans: how the library would run a problem. Found once, kept for as long as they are used, shared by all threads.

A plan is what the heuristics rank first among those that keep to the notes and the workspace that the settings allow.
With `autotune` the candidates are timed at the first call, and the choice is kept on disk. The frontend holds Python's
lock while it runs, so that threads may share plans; handles they may not share (`library.handle`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import cudnn
import cupy

from xpconv.backend import Array
from xpconv.engines.cudnn import library, tune
from xpconv.engines.cudnn.graph import drawn, refused_notes
from xpconv.engines.cudnn.problem import Problem

MOST_PLANS = 1024
_CANDIDATES = 12  # plans that are timed against one another


class Plan:
    """One way to run a problem: an index into the plans of its graph."""

    __slots__ = ("graph", "index", "problem", "tuned", "workspace")

    def __init__(self, problem: Problem, graph: Any, index: int, workspace: int, tuned: bool) -> None:
        self.problem, self.graph = problem, graph
        self.index, self.workspace, self.tuned = index, workspace, tuned

    def run(self, *operands: Array) -> None:
        """Put the work into the current stream; operands in the order of the graph's numbers, outputs last."""
        if library.capturing():
            _captured.add(self)
        elif not self.tuned:
            self._tune(operands)
        self._launch(self.index, self.workspace, operands)

    def _launch(self, index: int, workspace: int, operands: tuple[Array, ...]) -> None:
        scratch = cupy.cuda.alloc(workspace) if workspace else None
        pointers = {i: x.data.ptr for i, x in enumerate(operands, 1)}
        handle = library.handle(self.problem.device)
        library.execute(self.graph, pointers, scratch.ptr if scratch is not None else 0, index, handle)

    def _tune(self, operands: tuple[Array, ...]) -> None:
        """Time the candidates on these operands, take the fastest, and keep its name."""
        self.tuned = True  # before, so that another thread runs on rather than times too
        options = list(islice(_fitting(self.graph, self.problem), _CANDIDATES))
        times = [_seconds(partial(self._launch, *option, operands)) for option in options]
        best = min(range(len(options)), key=times.__getitem__)
        if math.isfinite(times[best]):
            self.index, self.workspace = options[best]
            tune.keep(self.problem, self.name)

    @property
    def name(self) -> str:
        """The library's name for it: an engine and its knobs."""
        return self.graph.get_plan_name_at_index(self.index)


def _seconds(run: Callable[[], None]) -> float:
    """The time that a candidate takes, endless for one that does not run: for want of memory, say."""
    try:
        return tune.seconds(run)
    except (RuntimeError, MemoryError):
        return math.inf


# Plans that a CUDA graph has captured: it launches kernels that are a plan's own, compiled for what is fused, and that
# would be unloaded with it; how long the graph lives nobody tells. Its workspace is the graph's as all its memory is.
_captured: set[Plan] = set()


@lru_cache(maxsize=MOST_PLANS)
def find(problem: Problem) -> Plan | str:
    """The plan for a problem, or the library's reason why there is none."""
    library.outside_capture("plan a convolution")
    with cupy.cuda.Device(problem.device):
        return _best(problem, library.place(problem.device))


def _best(problem: Problem, place: dict[str, Any]) -> Plan | str:
    try:
        graph = planned(problem, place)
    except library.Refusal as error:
        return f"refuses it: {_reason(error)}"
    chosen = tune.known(problem) if problem.autotune else None
    if chosen is not None:
        for index, workspace in _fitting(graph, problem):
            if graph.get_plan_name_at_index(index) == chosen:
                return Plan(problem, graph, index, workspace, tuned=True)
    refusals: list[str] = []
    for index, workspace in _fitting(graph, problem, refusals):
        return Plan(problem, graph, index, workspace, tuned=not problem.autotune)
    most = max(set(refusals), key=refusals.count) if refusals else "it proposes none"
    return f"has no plan under these settings: {most}"


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


def _fitting(graph: Any, problem: Problem, refusals: list[str] | None = None) -> Iterator[tuple[int, int]]:
    """Index and workspace of each plan that can be built and fits the limit, best first."""
    for index in range(graph.get_execution_plan_count()):
        try:
            graph.build_plan_at_index(index)
            workspace = graph.get_workspace_size_plan_at_index(index)
        except library.Refusal as error:
            reason = _reason(error)
        else:
            if workspace <= problem.workspace_limit:
                yield index, workspace
                continue
            reason = "its plans need more workspace than workspace_limit allows"
        if refusals is not None:
            refusals.append(reason)


def _reason(error: Exception) -> str:
    """What the library says in the end, without its nested warnings."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ()")]
    told = [line.partition("Reason: ")[2] for line in lines if "Reason: " in line]
    return (next((line for line in told if "finalize" not in line), "") or (lines[0] if lines else repr(error)))[:200]
