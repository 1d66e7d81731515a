"""What ``xpconv bench`` times is right: every side answers within the bound, and an answer that is off is found out.

The portable engine stands for all: the laws hold the others to their answers.
"""

from __future__ import annotations

from contextlib import ExitStack, closing

import numpy as np
import pytest
from benches import CASES, CONV

from xpconv import settings
from xpconv.bench import (
    process,
    shapes,
    sides,
    truth,
)
from xpconv.bench.case import Case
from xpconv.bench.layer import Layer
from xpconv.bench.sides import ours


def named(cases):
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.fixture(autouse=True)
def _portable():
    settings.use_engine("portable")


@pytest.fixture(scope="module")
def asked():
    """Ask a side in its own process, as a run does."""
    with ExitStack() as stack:
        started = {}

        def ask(name, order, *arguments):
            if name not in started:
                started[name] = stack.enter_context(closing(process.Process(name, settings.current())))
            return started[name].ask(order, *arguments)

        yield ask


def right_answers(case):
    """What xpconv answers, in this process."""
    return answers_to(case, case.arrays())


def answers_to(case, arrays):
    (candidate,) = ours.make(case, arrays)
    return candidate.answers()


@pytest.mark.parametrize("name", ["xpconv", "torch", "jax", "im2col"])
@pytest.mark.parametrize("case", named(CASES))
def test_every_side_answers_rightly(name, case, asked):
    if not sides.is_installed(name):
        pytest.skip(f"{name} is not installed")
    try:
        offered = asked(name, "prepare", case)
    except process.AbsentError as why:
        assert name in ("im2col", "jax")
        pytest.skip(str(why))
    for found in offered:
        assert truth.judge(case, case.arrays(), found["answers"]) <= 1


@pytest.mark.parametrize("case", named(CASES))
def test_an_answer_that_is_off_is_found_out(case):
    answers = right_answers(case)
    for name in answers:
        for spoil in (_off, _nothing, _shifted):
            spoiled = {**answers, name: spoil(answers[name])}
            assert truth.judge(case, case.arrays(), truth.extract(case, spoiled)) > 1, (name, spoil.__name__)


def _off(x):
    return x + np.float32(1e-2) * np.maximum(np.abs(x), np.float32(0.1))


def _nothing(x):
    return np.full_like(x, np.nan)


def _shifted(x):
    return x - np.float32(0.1)


@pytest.mark.parametrize("case", named([case for case in CASES if case.layer.op == "inference"]))
def test_a_network_that_leaves_out_any_bias_scale_or_statistic_is_found_out(case):
    arrays = case.arrays()
    assert {name.rpartition(".")[2] for name in arrays} == {"x", "weight", "bias", "running_mean", "running_var"}
    for name, value in arrays.items():
        if value.ndim == 1:
            left_out = np.full_like(value, name.endswith(("weight", "running_var")))
            answers = answers_to(case, {**arrays, name: left_out})
            assert truth.judge(case, arrays, truth.extract(case, answers)) > 1, name


def test_inference_is_replayed_where_kernels_are_compiled():
    pytest.importorskip("numba")
    case = Case(Layer("tiny", "LeNet's answer", "inference", (8, 8, 1), options={"model": "lenet"}), 2, "forward")
    arrays = case.arrays()
    with settings.use_engine("auto"):
        called, replayed = ours.make(case, arrays)
    assert (called.name, replayed.name) == ("numpy", "numpy, replay")
    assert called.note == "replay: inference of 2 images is recorded and replayed"
    with settings.use_engine("auto"):
        first, again = replayed.call(), replayed.call()
    assert first is not again
    assert truth.judge(case, arrays, truth.extract(case, {"y": again})) <= 1


def test_an_answer_that_is_missing_is_wrong():
    case = Case(CONV, 2, "backward")
    answers = right_answers(case)
    del answers["dw"]
    assert truth.judge(case, case.arrays(), truth.extract(case, answers)) == np.inf


def test_parts_hold_the_first_and_the_last():
    assert truth._spread(100, 4).tolist() == [0, 33, 66, 99]
    assert truth._spread(3, 16).tolist() == [0, 1, 2]
    (part,) = truth.parts(Case(shapes.resnet50()[-1], 32, "forward"))
    assert part.answers["y"][0].tolist() == [0, 31]
    assert part.answers["y"][-1][[0, -1]].tolist() == [0, 511]
