"""Parameters, and how gradients arrive in them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from nets import BACKENDS, images, on, small

import xpconv
from xpconv import exchange, nn

# -- parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_assigning_writes_into_the_buffer_that_is_there(backend):
    with on(backend):
        values = xpconv.asarray(np.arange(6.0).reshape(2, 3))
        parameter = nn.Parameter(xpconv.asarray(np.zeros((2, 3))))
        buffer = parameter.value
        parameter.assign(values)
        assert parameter.value is buffer
        assert parameter.version == 2
        values[0, 0] = 7.0
        np.testing.assert_array_equal(xpconv.to_numpy(buffer), np.arange(6.0).reshape(2, 3))
        parameter.assign(xpconv.asarray(np.ones((2, 3)), "float32"))
        assert parameter.value is not buffer
        assert (parameter.dtype, parameter.version) == ("float32", 3)


def test_values_are_kept_in_c_order_in_which_all_are_updated_at_once():
    turned = np.arange(24.0).reshape(4, 3, 2).transpose(1, 2, 0)
    parameter = nn.Parameter(turned)
    for again in (parameter, copy.copy(parameter), pickle.loads(pickle.dumps(parameter))):
        assert again.value.flags.c_contiguous
        np.testing.assert_array_equal(again.value, turned)
    net = nn.Conv2d(2, 3, 3, bias=False)
    exchange.load_torch(net, {"weight": np.zeros((3, 2, 3, 3))})
    assert net.weight.value.flags.c_contiguous


def test_what_cannot_be_assigned():
    parameter = nn.Parameter((2, None))
    parameter.assign(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"Parameter: has shape \(2, 5\)"):
        parameter.assign(np.zeros((2, 6)))
    with pytest.raises(TypeError, match="not a plain array"):
        parameter.assign([[1.0] * 5] * 2)
    with pytest.raises(TypeError, match=r"^Parameter: a size in the shape must be an integer, not 3\.0"):
        nn.Parameter((2, 3.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_neither_written_to_nor_kept(backend):
    with on(backend):
        parameter = nn.Parameter(xpconv.asarray(np.zeros(3)))
        dy = xpconv.asarray(np.ones(3))
        parameter.accumulate(dy)
        dy[0] = 9.0
        np.testing.assert_array_equal(xpconv.to_numpy(parameter.grad), np.ones(3))
        dy[0] = 1.0
        parameter.accumulate(dy)
        parameter.accumulate(dy)
        np.testing.assert_array_equal(xpconv.to_numpy(dy), np.ones(3))
        first = parameter.grad
        dy[...] = xpconv.asarray(np.full(3, 9.0))
        np.testing.assert_array_equal(xpconv.to_numpy(parameter.grad), np.full(3, 3.0))
        parameter.accumulate(dy)
        np.testing.assert_array_equal(xpconv.to_numpy(first), np.full(3, 3.0))


def test_a_gradient_must_fit_its_value():
    parameter = nn.Parameter(np.zeros(3))
    for grad in (np.zeros(4), np.zeros(3, dtype="float32")):
        with pytest.raises(ValueError, match="a gradient must have the shape, dtype"):
            parameter.accumulate(grad)
    with pytest.raises(ValueError, match="a gradient must have the shape"):
        nn.Parameter((3,)).accumulate(np.zeros(3))


def test_a_parameter_that_is_not_trainable_takes_no_gradient():
    parameter = nn.Parameter(np.zeros(3), trainable=False)
    parameter.accumulate(np.ones(3))
    assert parameter.grad is None


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_gradients_add_up_over_steps_and_calls_of_a_pullback():
    net = small().initialize()
    y, pullback = net.vjp(images(), training=False)
    dy = np.ones_like(y)
    pullback(dy)
    once = {name: parameter.grad.copy() for name, parameter in net.parameters().items()}
    pullback(dy)
    for name, parameter in net.parameters().items():
        np.testing.assert_allclose(parameter.grad, 2 * once[name], rtol=1e-6)
    net.vjp(images(), training=False)[1](dy)
    for name, parameter in net.parameters().items():
        np.testing.assert_allclose(parameter.grad, 3 * once[name], rtol=1e-5)
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters().values())


def test_inputs_and_dy_are_left_alone():
    net, x = small().initialize(), images()
    x.flags.writeable = False
    y, pullback = net.vjp(x)
    dy = np.ones_like(y)
    dy.flags.writeable = False
    dx = pullback(dy)
    np.testing.assert_array_equal(pullback(dy), dx)


@pytest.fixture
def asked(monkeypatch):
    """What ops are asked for: (name, needs) of every `xpconv.vjp` that a layer makes."""
    calls = []
    original = xpconv.derivatives.vjp

    def vjp(op, *args, needs, **options):
        calls.append((op.__name__, needs))
        return original(op, *args, needs=needs, **options)

    monkeypatch.setattr(xpconv.derivatives, "vjp", vjp)
    return calls


def test_an_op_is_asked_only_for_the_gradients_that_are_needed(asked):
    net = nn.Conv2d(3, 4, 3).initialize()
    net.weight.trainable = False
    y, pullback = net.vjp(images(), needs_input=False)
    pullback(y)
    assert asked == [("conv", (False, False, True))]
    assert net.weight.grad is None
    assert net.bias.grad is not None


def test_nothing_is_computed_below_the_first_layer_that_learns(asked):
    net = small().initialize()
    net.conv.freeze()
    net.norm.freeze()
    y, pullback = net.vjp(images(), needs_input=False)
    assert pullback(np.ones_like(y)) is None
    assert asked == [("conv", (False,) * 3), ("batch_norm", (False,) * 3), ("linear", (False, True, True))]
    grads = {name: parameter.grad for name, parameter in net.parameters().items()}
    assert [name for name, grad in grads.items() if grad is not None] == ["head.weight", "head.bias"]


def test_gradients_flow_through_a_frozen_layer():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)).initialize()
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    y, pullback = net.vjp(x)
    dx = pullback(np.ones_like(y))
    wanted = net[0].weight.grad
    net.zero_grad()
    net[1].freeze()
    np.testing.assert_array_equal(net.vjp(x)[1](np.ones_like(y)), dx)
    np.testing.assert_array_equal(net[0].weight.grad, wanted)
    assert net[1].weight.grad is None
    net.unfreeze()
    assert all(parameter.trainable for parameter in net.parameters().values())


def test_a_fresh_gradient_is_kept_and_never_written_to():
    parameter = nn.Parameter(np.ones(3))
    first = np.ones(3)
    parameter.accumulate(first, fresh=True)
    assert parameter.grad is first
    parameter.accumulate(np.ones(3), fresh=True)
    assert first.tolist() == [1, 1, 1]
    assert parameter.grad.tolist() == [2, 2, 2]


@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_layer_whose_parameter_shares_its_gradient_copies_it(activation):
    class Offset(nn.Layer):
        def __init__(self):
            self.offset = nn.Parameter(np.ones((2, 3)))

        def bind(self, x, training):
            return xpconv.ops.add, (x, self.offset), {"activation": activation}

    layer, dy = Offset(), np.ones((2, 3))
    _, pullback = layer.vjp(np.ones((2, 3)))
    dx = pullback(dy)
    assert not np.shares_memory(layer.offset.grad, dy)
    assert not np.shares_memory(layer.offset.grad, dx)


def test_a_value_that_is_set_keeps_its_dtype_and_numpy_sees_it():
    parameter = nn.Parameter(np.ones((2, 3), dtype="float32"))
    parameter.value = parameter.value - np.float64(0.5)  # which is float64
    assert (parameter.version, parameter.value.dtype) == (2, np.float32)
    assert float(np.linalg.norm(parameter)) == pytest.approx(1.5**0.5)
    with pytest.raises(ValueError, match=r"Parameter: has shape \(2, 3\)"):
        parameter.value = np.ones(3)
    with pytest.raises(TypeError, match=r"(?s)has no NumPy array as its value.*parameter\.value"):
        np.asarray(nn.Parameter((2, 3)))
    with pytest.raises(TypeError, match=r"Parameter: the value is a int, not a plain array"):
        nn.Parameter(3)
