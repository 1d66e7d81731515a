"""Layers of one's own, and what a user sees of the package."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
from nets import images

import xpconv
from xpconv import nn, ops


class Scale(nn.Module):
    """A layer with a parameter for each channel, as a user would write it."""

    def __init__(self, channels=None):
        self.scale = nn.Parameter((channels,), nn.init.ones)

    def adapt(self, x):
        self.scale.settle(x.shape[-1])

    def vjp(self, x, training=True, needs_input=True):
        scale = self.scale.value

        def pullback(dy):
            self.scale.accumulate((x * dy).sum(axis=tuple(range(x.ndim - 1))))
            return dy * scale if needs_input else None

        return x * scale, pullback


class Squeeze(nn.Module):
    """A network as a class: a squeeze-and-excitation block, which multiplies its input."""

    def __init__(self, channels):
        self.gate = nn.Sequential(nn.GlobalAvgPool(), nn.Linear(channels, channels, activation="sigmoid"))

    def vjp(self, x, training=True, needs_input=True):
        gate, gate_back = self.gate.vjp(x, training=training, needs_input=needs_input)

        def pullback(dy):
            dx = gate_back((x * dy).sum(axis=(1, 2), keepdims=True))
            return dx + dy * gate if needs_input else None

        return x * gate, pullback


def test_a_layer_of_ones_own():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), Scale(), Squeeze(4)).initialize(seed=2)
    x = images()
    y = net(x)
    assert list(net.parameters())[2:] == ["1.scale", "2.gate.1.weight", "2.gate.1.bias"]
    trained, pullback = net.vjp(x)
    np.testing.assert_array_equal(trained, y)
    assert pullback(y).shape == x.shape
    assert net[1].scale.grad.shape == (4,)
    np.testing.assert_array_equal(Scale()(np.full((1, 2), 3.0)), [[3.0, 3.0]])


def test_a_layer_of_one_op_of_ones_own():
    class Power(nn.Layer):
        def bind(self, x, training):
            return ops.lp_pool, (x, 2), {"p": 4}

    x = np.random.default_rng(0).uniform(1, 2, size=(1, 4, 4, 2))
    y, pullback = nn.Sequential(Power()).vjp(x)
    expected, back = xpconv.vjp(ops.lp_pool, x, 2, p=4)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(pullback(y), back(y)[0])


def test_a_layer_without_a_vjp_says_so():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty: a layer of one's own must write vjp"):
        Empty()(np.zeros(3))


@pytest.mark.parametrize("n", [2, 3])
def test_a_vjp_that_returns_no_pair_is_refused_not_taken_apart(n):
    class Doubled(nn.Module):
        def vjp(self, x, training=True, needs_input=True):
            return 2 * x

    for net in (Doubled(), nn.Sequential(Doubled())):
        for run in (net, net.vjp):
            with pytest.raises(TypeError, match=r"Doubled: vjp must return \(y, pullback\).*\n.*it returned ndarray"):
                run(np.ones((n, 4), "float32"))


@pytest.mark.parametrize(
    ("given", "told"),
    [((np.tanh, (1,), {}), "tanh"), (np.ones(3), "ndarray"), ((ops.relu, ()), "tuple"), (([], (), {}), r"\[\]")],
)
def test_a_bind_that_names_no_op_is_refused(given, told):
    class Bound(nn.Layer):
        def bind(self, x, training):
            return given

    for run in (Bound(), Bound().vjp):
        with pytest.raises(
            TypeError, match=rf"(?s)Bound: bind must return \(op, arguments, options\).*returned {told}"
        ):
            run(np.ones((2, 4), "float32"))


def test_an_error_says_in_which_layer_it_was_met():
    net = nn.Sequential(conv=nn.Conv2d(1, 2, 3), rest=nn.Sequential(flat=nn.Flatten(), head=nn.Linear(18, 2)))
    net(np.ones((1, 5, 5, 1), "float32"))
    for run in (net, net.vjp):
        with pytest.raises(ValueError, match="w expects 18 inputs") as caught:
            run(np.ones((1, 6, 6, 1), "float32"))
        given = "of a Sequential that was given x (N=1, H=6, W=6, C=1) float32"
        assert caught.value.__notes__ == ["in layer 'rest.head', Linear", given]


@pytest.mark.parametrize("around", [lambda layers: layers, nn.Residual], ids=["chain", "residual"])
def test_an_error_of_layers_that_run_together_names_the_first(around):
    """At inference a convolution runs with what is behind it, past its own gate."""
    net = nn.Sequential(a=nn.ReLU(), b=around(nn.Sequential(c=nn.Tanh(), d=nn.Conv2d(2, 1, 7), e=nn.BatchNorm())))
    net.initialize(seed=0)(np.ones((1, 7, 7, 2), "float32")) if around is not nn.Residual else net.initialize(seed=0)
    where = "in layer 'b.body.d', Conv2d" if around is nn.Residual else "in layer 'b.d', Conv2d"
    for shape in ((1, 7, 7, 3), (1, 5, 5, 2)):  # of other channels, and too small
        for run in (net, net.vjp):
            with pytest.raises(ValueError, match=r"^conv: ") as caught:
                run(np.ones(shape, "float32"))
            assert caught.value.__notes__[0] == where


def test_a_class_written_as_pytorchs_are_is_told_what_to_write():
    class Chain(nn.Module):
        def forward(self, x):
            return x

    class One(nn.Layer):
        def forward(self, x):
            return x

    for kind, said in (
        (Chain, r"must write vjp\(x, training, needs_input\)"),
        (One, r"must write bind\(x, training\)"),
    ):
        with pytest.raises(NotImplementedError, match=rf"{said}.*\n  it has a forward, which nothing here calls\.\n"):
            kind()(np.ones((1, 2), "float32"))


def test_an_input_that_is_no_array_is_told_by_the_first_layer():
    for net in (nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Residual(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)))):
        net(np.ones((1, 5, 5, 1), "float32"))
        with pytest.raises(TypeError, match=r"x is a list, not a plain array"):
            net([[[[1.0]]]])


def test_xpconv_vjp_points_to_the_method():
    with pytest.raises(TypeError, match=r"a vjp\(x\) method of its own"):
        xpconv.vjp(nn.ReLU(), np.zeros(3))


def test_signatures_and_docstrings_survive():
    assert list(inspect.signature(nn.Conv2d).parameters)[:4] == ["in_channels", "out_channels", "kernel_size", "stride"]
    for name in nn.__all__:
        thing = getattr(nn, name)
        assert thing.__doc__, name
        if isinstance(thing, type):
            for attribute, value in vars(thing).items():
                assert attribute.startswith("_") or not callable(value) or value.__doc__, f"{name}.{attribute}"


def test_importing_layers_is_light():
    heavy = ("torch", "array_api_compat", "safetensors", "matplotlib", "rich")
    code = f"import sys, xpconv.nn, xpconv.exchange; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


class Scaled(nn.Module):
    """x times a; with a gradient that is told to be wrong."""

    def __init__(self, wrong=""):
        self.a = nn.Parameter(np.array([2.0, -1.0]))
        self.wrong = wrong

    def vjp(self, x, training=True, needs_input=True):
        def pullback(dy):
            if self.wrong != "a":
                self.a.accumulate((x * dy).sum(axis=(0, 1, 2)))
            return dy if self.wrong == "x" else self.a.value * dy

        return x * self.a.value, pullback


def test_gradients_of_layers_are_checked_by_differences():
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype("float32")
    net = nn.Sequential(
        nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm(2), Scaled(), nn.Dropout(0.3), nn.Tanh()
    ).initialize(0)
    before = net.state_dict()
    for training in (True, False):
        report = xpconv.check_gradients(net, x, training=training)
        assert (report.checked, report.skipped) == (96 + 36 + 2 + 4 + 2, 0)
    assert all(np.array_equal(before[name], value) for name, value in net.state_dict().items())
    assert net[0].weight.dtype == "float32"
    for wrong in ("x", "a"):
        with pytest.raises(xpconv.GradientError, match=rf"Scaled: d{wrong}: the gradient disagrees"):
            xpconv.check_gradients(Scaled(wrong), x)


def test_a_pullback_whose_parameters_have_changed_is_refused():
    net, x = nn.Sequential(nn.Linear(2, 2)).initialize(0), np.ones((1, 2), "float32")
    y, pullback = net.vjp(x)
    net[0].weight.assign(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"Linear: a pullback was called after its parameters had changed"):
        pullback(y)
