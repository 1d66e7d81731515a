"""The order of work: activations drawn into the convolutions before them, weights turned, and when to forget what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from xpconv.exchange.onnx.graph import Graph, Task
from xpconv.exchange.onnx.values import Constant

# Activations that ops apply as they store their sums.
_FUSED = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softplus": "softplus", "HardSwish": "hard_swish"}


@dataclass(frozen=True, slots=True)
class Work:
    """A task, where its inputs come from, and the values that nothing needs after it."""

    task: Task
    sources: tuple[str | Constant | None, ...]
    forget: tuple[str, ...]


class Plan(NamedTuple):
    """What is done in order, and the constants that are outputs."""

    works: list[Work]
    constants: dict[str, Constant]


def make(graph: Graph, replaced: Set[str] = frozenset()) -> Plan:
    """The plan of a graph, some of whose constants are given as inputs instead."""
    tasks = _fused(graph)
    constants = {name: Constant(value) for name, value in graph.constants.items() if name not in replaced}
    turned: dict[tuple[str, Any], Constant] = {}  # one copy of weights that several nodes share
    last_use = {name: i for i, task in enumerate(tasks) for name in task.node.inputs if name}
    works = []
    for i, task in enumerate(tasks):
        sources: list[str | Constant | None] = []
        for k, name in enumerate(task.node.inputs):
            if name not in constants:
                sources.append(name or None)
            elif k in task.step.convert:
                convert = task.step.convert[k]
                if (name, convert) not in turned:
                    turned[name, convert] = Constant(np.ascontiguousarray(convert(graph.constants[name])))
                sources.append(turned[name, convert])
            else:
                sources.append(constants[name])
        done = {name for name in (*task.node.inputs, *task.node.outputs) if name and last_use.get(name, i) == i}
        works.append(Work(task, tuple(sources), tuple(done - set(graph.outputs))))
    return Plan(works, {name: constants[name] for name in graph.outputs if name in constants})


def _fused(graph: Graph) -> list[Task]:
    """The tasks, each activation that alone follows a convolution or a matrix product drawn into it."""
    uses = Counter(name for task in graph.tasks for name in task.node.inputs)
    uses.update(graph.outputs)
    makers: Mapping[str, int] = {task.node.outputs[0]: i for i, task in enumerate(graph.tasks)}
    tasks: list[Task | None] = list(graph.tasks)
    for i, task in enumerate(graph.tasks):
        name = _FUSED.get(task.node.op)
        source = task.node.inputs[0] if name else ""
        maker = tasks[makers[source]] if source in makers and uses[source] == 1 else None
        if name and maker is not None and maker.step.activated is not None and len(maker.node.outputs) == 1:
            # In the activation's place: nothing lies between them that could need the sums.
            tasks[makers[source]] = None
            node = replace(maker.node, outputs=task.node.outputs)
            tasks[i] = Task(node, maker.operator, replace(maker.step.activated(name), activated=None))
    return [task for task in tasks if task is not None]
