"""The rows of ``xpconv bench``: shapes that were published, operations and bytes counted, rows chosen."""

from __future__ import annotations

import pytest
from benches import CONV, TINY

from xpconv.bench import architectures, sets
from xpconv.bench.case import Case


def test_the_convolutions_of_the_networks_are_those_published():
    resnet, mobile = architectures.resnet50(), architectures.mobilenet_v2()
    assert (len(resnet), len(mobile)) == (23, 30)
    assert len({conv.name for conv in resnet}) == 23
    assert resnet[0] == (224, 3, 64, 7, 2, 1)
    assert {conv.size for conv in resnet} == {224, 56, 28, 14, 7}
    assert (7, 2048, 512, 1, 1, 1) in resnet
    assert (56, 256, 512, 1, 2, 1) in resnet
    assert mobile[-1] == (7, 320, 1280, 1, 1, 1)
    assert (112, 96, 96, 3, 2, 96) in mobile
    assert all(conv.groups in (1, conv.channels) for conv in mobile)


def test_multiply_adds_of_resnet50_are_those_published():
    every = list(architectures.every_resnet50())
    assert len(every) == 53
    total = sum((c.size // c.stride) ** 2 * c.kernel**2 * c.channels * c.out // c.groups for c in every)
    assert total == pytest.approx(4.09e9, rel=0.01)  # torchvision's table, without the last linear layer


def test_every_set_has_rows_of_distinct_names():
    for name, make in sets.SETS.items():
        layers = make()
        assert layers, name
        assert len({(layer.set, layer.name) for layer in layers}) == len(layers)
    assert len(sets.quick()) == len(sets._QUICK)


def test_flops_count_two_for_each_multiply_add():
    forward, backward = (Case(CONV, 2, d).flops for d in ("forward", "backward"))
    assert forward == 2 * (2 * 5 * 5 * 4) * (3 * 3 * 3)
    assert backward == 2 * forward
    assert Case(TINY[1], 3, "forward").flops == 2 * (3 * 3 * 3 * 40) * (3 * 3 * 2)
    assert Case(TINY[7], 2, "forward").flops is None


def test_flops_of_networks_are_those_of_their_steps_a_third_forward():
    (step,), (answer,) = (sets.chosen([name], [4], only="lenet 28") for name in ("steps", "inference"))
    assert answer.flops == step.flops / 3 > 0
    assert answer.bytes is None


def test_traffic_counts_each_array_once():
    assert Case(TINY[7], 2, "forward").bytes == 4 * (2 * 2 * 4 * 4 * 20 + 2 * 20)
    x, y, w = 2 * 5 * 5 * 3, 2 * 5 * 5 * 4, 3 * 3 * 3 * 4 + 4
    assert Case(CONV, 2, "forward").bytes == 4 * (x + y + w)
    assert Case(CONV, 2, "backward").bytes == 4 * (2 * x + y + 2 * w)


def test_choosing_rows(tiny):
    assert [case.name for case in sets.chosen(["tiny"])] == [
        "tiny: 5² 3→4 3×3, batch 2, forward",
        "tiny: grouped, batch 3, forward",
        "tiny: 5² 3→4 3×3, batch 2, backward",
        "tiny: grouped, batch 3, backward",
    ]
    assert [case.batch for case in sets.chosen(["tiny"], [1, 7], ["forward"], "grouped")] == [1, 7]
    assert {case.direction for case in sets.chosen(["steps"])} == {"step"}
    assert [case.batch for case in sets.chosen(["inference"])] == [1, 1, 1, 1, 1]
    apart = {"inference", "large_steps"}
    assert not apart & {case.layer.set for case in sets.chosen(["quick", "all"])}
    assert len(sets.chosen(["tiny", "quick"])) == 4  # a row that is in two sets comes once
