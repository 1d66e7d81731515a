"""A step for loops of one's own: what `fit` repeats, replayed, to the bits of the calls one by one."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
from nets import NETWORKS, examples, flat, images, made, on

import xpconv
from xpconv import nn, ops, train


def by_hand(net: nn.Module, optimizer: train.Optimizer, x: Any, labels: Any) -> tuple[Any, Any]:
    y, pullback = net.vjp(x, needs_input=False)
    loss, slope = xpconv.vjp(ops.softmax_cross_entropy, y, labels, needs=(True, False))
    pullback(slope(np.ones_like(loss))[0])
    optimizer.step(net.parameters())
    net.zero_grad()
    return loss, (y.argmax(axis=-1) == labels).sum()


def assert_alike(one: nn.Module, other: nn.Module) -> None:
    other_state = other.state_dict()
    for name, value in one.state_dict().items():
        assert value.tobytes() == other_state[name].tobytes(), name


@pytest.mark.parametrize("name", ["lenet", "side by side", "norms"])
def test_steps_are_those_of_a_loop_by_hand_to_the_bit(name):
    nets, optimizers = [made(name), made(name)], [train.Adam(1e-2), train.Adam(1e-2)]
    step = train.Step(nets[0], optimizers[0])
    for i, (x, labels) in enumerate(examples(NETWORKS[name][1], 8)):
        for optimizer in optimizers:
            optimizer.lr = 1e-2 / (1 + i)
        found, expected = step(x, labels), by_hand(nets[1], optimizers[1], x, labels)
        assert (found.loss.tobytes(), int(found.right)) == (expected[0].tobytes(), int(expected[1]))
        assert step.replays is (i >= 3)
        assert found.loss.item() == float(found.loss)
    assert step.refused == ""
    assert_alike(*nets)


def test_without_capture_and_on_other_libraries_steps_are_call_by_call():
    nets = [made("side by side") for _ in range(2)]
    steps = [train.Step(net, train.SGD(0.1), capture=capture) for net, capture in zip(nets, (True, False), strict=True)]
    for x, labels in examples((5, 5, 3), 6):
        losses = [step(x, labels).loss.tobytes() for step in steps]
        assert losses[0] == losses[1]
    assert [step.replays for step in steps] == [True, False]
    assert list(map(repr, steps)) == [
        "<Step of Sequential by SGD, replayed>",
        "<Step of Sequential by SGD, call by call>",
    ]
    with on("array_api_strict"):
        step = train.Step(nn.Sequential(nn.Flatten(), nn.Linear(None, 3)).initialize(seed=0), train.SGD(0.1))
        for x, labels in examples((5, 5, 3), 5):
            assert np.isfinite(xpconv.to_numpy(step(x, labels).loss))
    assert not step.replays


def test_shapes_dtypes_and_layers_that_change():
    """Progressive resizing, a head that is replaced, a network that is moved: what a loop of one's own may do."""

    def run(capture: bool) -> tuple[list[bytes], nn.Module, list[bool]]:
        net = flat(nn.Conv2d(3, 4, 3), nn.BatchNorm(), nn.GlobalAvgPool()).initialize(seed=0)
        step, losses, replays = train.Step(net, train.SGD(0.1, momentum=0.9), capture=capture), [], []
        for size in (6, 8, 10):
            for x, labels in examples((size, size, 3), 12):
                losses.append(step(x, labels).loss.tobytes())
                small = step(x[:2], labels[:2])  # as an epoch's last batch
                losses.append(small.loss.tobytes())
            for x, labels in examples((size, size, 3), 12):
                losses.append(step(x, labels).loss.tobytes())
            replays.append(step.replays)
        net[4] = nn.Linear(4, 3, bias=False)
        for x, labels in examples((6, 6, 3), 12):
            losses.append(step(x, labels).loss.tobytes())
        replays.append(step.replays)
        net.to(dtype="float64")
        for x, labels in examples((6, 6, 3), 12):
            losses.append(step(x, labels).loss.tobytes())
        replays.append(step.replays)
        return losses, net, replays

    replayed, usual = run(True), run(False)
    assert replayed[2] == [True] * 5
    assert replayed[0] == usual[0]
    assert_alike(replayed[1], usual[1])


def test_losses_and_targets_of_all_kinds():
    x, numbers = images(4), np.random.default_rng(0).integers(0, 2, (4, 3))
    for loss, targets, right in (
        ("mse", numbers, None),
        ("binary_cross_entropy_with_logits", numbers.astype("float64"), None),
        ("softmax_cross_entropy", [0, 1, 2, 0], 0),
        (lambda y, t: ((y * t).mean(), t / y.size), numbers.astype("float32"), None),
    ):
        step = train.Step(flat(nn.ReLU()).initialize(seed=0), train.SGD(0.01), loss)
        first, *_, last = [step(x.astype("float64"), targets) for _ in range(6)]
        assert (first.right is None) is (right is None)
        assert last.loss < first.loss


def test_what_does_not_fit_is_said():
    net, x = made("side by side"), images(4)
    with pytest.raises(TypeError, match=r"optimizer must be an optimizer.*\n.*\n.*call the class: SGD"):
        train.Step(net, train.SGD)
    with pytest.raises(TypeError, match="the network must be an"):
        train.Step(lambda x: x, train.SGD(0.1))
    with pytest.raises(ValueError, match="is not known"):
        train.Step(net, train.SGD(0.1), "crossentropy")
    step = train.Step(net, train.SGD(0.1))
    for _ in range(5):
        step(x, [0, 1, 2, 3])


BAD_TARGETS: dict[str, tuple[Any, str]] = {
    "too high": ([0, 1, 2, 99], r"labels must lie in 0\.\.4; found 99 at index 3\.\n  1 of 4 labels are outside"),
    "below 0": (np.array([0, -1, 2, 3], "int8"), r"labels must lie in 0\.\.4; found -1 at index 1"),
    "halves": ([0.5, 1, 2, 3], r"labels must be integers\.\n.*\n  number the classes from 0"),
    "floats": ([0.0, 1.0, 2.0, 3.0], r"labels must be integers\.\n.*\n  cast them"),
    "one-hot": (np.eye(5, dtype=int)[:4], r"labels must have shape \(4,\)\.\n.*\n  one-hot rows .*argmax\(axis=1\)"),
    "one-hot floats": (np.eye(5)[:4], r"labels must be integers\.\n.*\n  one-hot rows .*argmax\(axis=1\)"),
    "columns": (
        [[0], [1], [2], [3]],
        r"labels must have shape \(4,\)\.\n.*\n  an axis of 1 goes with labels\[\.\.\., 0\]",
    ),
    "too few": ([0, 1, 2], r"needs as many labels as images, and at least one"),
    "nothing": (None, r"needs as many labels as images"),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
@pytest.mark.parametrize("before", [0, 5])
def test_targets_that_do_not_fit_are_refused_before_anything_is_changed(case, before):
    """As `fit` does: by the first step, and by one that would be replayed."""
    targets, said = BAD_TARGETS[case]
    net, x = made("side by side"), images(4)
    step = train.Step(net, train.SGD(0.1, momentum=0.9))
    for _ in range(before):
        step(x, [0, 1, 2, 3])
    assert step.replays is (before == 5)
    state, steps = net.state_dict(), step.optimizer.steps
    with pytest.raises((TypeError, ValueError), match=rf"^Step: {said}"):
        step(x, targets)
    assert step.optimizer.steps == steps
    for name, value in net.state_dict().items():
        assert value.tobytes() == state[name].tobytes(), name


def test_a_batch_of_nothing_is_no_step():
    """Momentum would move the weights, and half of the rule of Adam."""
    step = train.Step(made("side by side"), train.SGD(0.1, momentum=0.9))
    step(images(4), [0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"^Step: needs as many labels as images, and at least one\.\n  images \(0, 5"):
        step(images(0), np.zeros(0, "int64"))


def test_targets_are_judged_by_what_the_network_gives_now():
    """The size of a map of labels follows an option, which may be set between steps."""
    net, x = nn.Sequential(nn.Conv2d(3, 2, 1)).initialize(seed=0), images(2, 6)
    step, bce = (train.Step(net, train.SGD(0.1), *loss) for loss in ((), ("binary_cross_entropy_with_logits",)))
    step(x, np.ones((2, 6, 6), int))
    net[0].stride = 2
    with pytest.raises(ValueError, match=r"logits \(2, 3, 3, 2\)"):
        step(x, np.ones((2, 6, 6), int))
    step(x, np.ones((2, 3, 3), int))
    with pytest.raises(ValueError, match=r"^Step: labels must have shape \(2, 3, 3\)"):
        step(x, np.ones((2, 6, 6), int))
    for targets, said in ((np.ones((2, 3, 3, 1)), "must have shape"), (np.full((2, 3, 3, 2), 255), r"lie in 0\.\.1")):
        with pytest.raises(ValueError, match=rf"^Step: targets .*{said}"):
            bce(x, targets)


def test_nothing_is_set_that_nobody_reads():
    step, predictor = train.Step(made("lenet"), train.SGD(0.1)), train.Predictor(made("lenet"))
    with pytest.raises(
        AttributeError, match=r"^Step: has no 'lr' to set\.\n.*\n  the optimizer has it: step\.optimizer\.lr"
    ):
        step.lr = 0.01
    with pytest.raises(
        AttributeError, match=r"^Step: net is not to be set\.\n  it has net, optimizer, refused, replays$"
    ):
        step.net = made("lenet")
    with pytest.raises(
        AttributeError, match=r"^Predictor: has no 'batch_size' to set\.\n  it has net, refused, replays$"
    ):
        predictor.batch_size = 3


def test_what_puts_a_recording_off_is_told():
    step = train.Step(made("side by side"), train.SGD(0.1, momentum=0.9))
    shown = []
    for i, (x, labels) in enumerate(examples((5, 5, 3), 13)):
        if i in (5, 9):
            step.optimizer.momentum = 0.5 + i / 100
        step(x, labels)
        shown.append(repr(step).removeprefix("<Step of Sequential by SGD, ").removesuffix(">"))
    lately = "call by call: weights, layers or settings have changed lately; to be recorded again"
    assert shown[2:6] == ["call by call so far", "replayed", "replayed", f"{lately} at the next call"]
    assert shown[8:10] == ["replayed", f"{lately} after 1 call more"]
    assert shown[12] == "replayed"


def test_a_copy_takes_steps_of_its_own():
    step = train.Step(made("side by side"), train.SGD(0.1), capture=True)
    batches = examples((5, 5, 3), 12)
    for x, labels in batches[:6]:
        step(x, labels)
    other = copy.deepcopy(step)
    assert other.net is not step.net
    for x, labels in batches[6:]:
        assert step(x, labels).loss.tobytes() == other(x, labels).loss.tobytes()
    assert other.replays
    assert_alike(step.net, other.net)


def test_gradients_from_elsewhere_are_in_no_step():
    nets, optimizers = [made("side by side") for _ in range(2)], [train.SGD(0.1) for _ in range(2)]
    step = train.Step(nets[0], optimizers[0])
    for x, labels in examples((5, 5, 3), 8):
        y, pullback = nets[0].vjp(x, training=False)
        pullback(y)
        assert step(x, labels).loss.tobytes() == by_hand(nets[1], optimizers[1], x, labels)[0].tobytes()
        assert_alike(*nets)
        assert all(parameter.grad is None for parameter in nets[0].parameters().values())
    assert step.replays


class Chain(nn.Module):
    """Layers in a list."""

    capturable = True

    def __init__(self) -> None:
        self.layers = [nn.Linear(3, 3) for _ in range(2)]

    def vjp(self, x, training=True, needs_input=True):
        pullbacks = []
        for layer in self.layers:
            x, pullback = layer.vjp(x, training=training)
            pullbacks.append(pullback)
        return x, lambda dy: [dy := pullback(dy) for pullback in reversed(pullbacks)][-1]


def test_a_layer_that_was_there_before_learns_at_once_where_it_comes_into_a_list():
    def run(replayed: bool) -> tuple[list[bytes], nn.Module]:
        net, optimizer = Chain().initialize(seed=0), train.SGD(0.1)
        spare, losses = nn.Linear(3, 3).initialize(seed=5), []
        step: Any = train.Step(net, optimizer) if replayed else functools.partial(by_hand, net, optimizer)
        for i, (x, labels) in enumerate(examples((3,), 16)):
            if i == 8:
                net.layers[0] = spare  # no attribute of any module is set by that
            losses.append(step(x, labels)[0].tobytes())
        assert not replayed or step.replays, step.refused
        return losses, net

    replayed, usual = run(True), run(False)
    assert replayed[0] == usual[0]
    assert_alike(replayed[1], usual[1])
