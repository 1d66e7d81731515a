"""Steps that are taken call by call and replayed, and whether they are the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv import nn, train
from xpconv.backend import get
from xpconv.runtime import runtime_of
from xpconv.train.objective import Objective
from xpconv.train.replayed_step import ReplayedStep
from xpconv.train.usual import Usual


def stepped(
    net: nn.Module,
    batches: list[tuple[Any, Any]],
    capture: bool = True,
    optimizer: train.Optimizer | None = None,
    loss: Any = "softmax_cross_entropy",
    between: Any = lambda i: None,
) -> tuple[list[Any], dict[str, Any], str]:
    """The losses of steps, the weights they came to, and why they were not replayed."""
    optimizer = optimizer or train.SGD(0.01, momentum=0.9)
    step = Usual(net, net.parameters(), Objective("test", loss), optimizer, labelled=loss == "softmax_cross_entropy")
    replayed = ReplayedStep(step, runtime_of(get("numpy")), lambda text: None)
    found = []
    for i, batch in enumerate(batches):
        found.append([np.array(x) for x in (replayed if capture else step)(*batch) if x is not None])
        between(i)
    return found, net.state_dict(), replayed.refused


def assert_same(one: Any, two: Any) -> None:
    """Losses, accuracies and weights of two runs, to the bit."""
    assert [[x.tobytes() for x in found] for found in one[0]] == [[x.tobytes() for x in found] for found in two[0]]
    assert one[1].keys() == two[1].keys()
    for key, value in one[1].items():
        assert value.tobytes() == two[1][key].tobytes(), key
