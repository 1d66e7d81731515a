"""Taking a network's values out and in, and moving them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from nets import BACKENDS, images, on, small
from targets import missing

import xpconv
from xpconv import nn


def test_a_state_dict_is_a_snapshot():
    net = small().initialize()
    net(images())
    before = net.state_dict()
    kept = before["conv.weight"].copy()
    net.conv.weight.assign(np.zeros_like(kept))
    np.testing.assert_array_equal(before["conv.weight"], kept)
    net.load_state_dict(before)
    np.testing.assert_array_equal(net.conv.weight.value, kept)


def test_a_state_of_values_not_made_is_refused():
    with pytest.raises(ValueError, match=r"head\.weight not made yet"):
        small().initialize().state_dict()


def test_all_that_does_not_fit_is_told_at_once_and_nothing_changes():
    net = small().initialize()
    net(images())
    state, before = net.state_dict(), net.state_dict()
    state["head.weight"] = state["head.weight"].T
    state["other"] = state.pop("conv.bias")
    state["conv.weight"] = np.ones_like(state["conv.weight"])
    with pytest.raises(ValueError, match="the state is not this network's") as error:
        net.load_state_dict(state)
    text = str(error.value)
    assert "head.weight (2, 100) should be (100, 2)" in text
    assert "conv.bias is missing" in text
    assert "other is unexpected" in text
    np.testing.assert_array_equal(net.conv.weight.value, before["conv.weight"])
    with pytest.raises(ValueError, match="should be"):
        net.load_state_dict(state, strict=False)
    del state["head.weight"]
    assert net.load_state_dict(state, strict=False) == (["conv.bias", "head.weight"], ["other"])
    assert np.all(net.conv.weight.value == 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_is_taken_from_any_library_to_where_the_network_is(backend):
    host = small().initialize(seed=3)
    host(images())
    with on(backend):
        net = small().initialize(seed=0)
        net(xpconv.asarray(images()))
        net.load_state_dict(host.to(dtype="float64").state_dict())
        y = net(xpconv.asarray(images()))
    np.testing.assert_allclose(xpconv.to_numpy(y), host(images(dtype="float64")), rtol=1e-4, atol=1e-5)
    unmade = small()
    unmade.load_state_dict(net.state_dict())
    assert isinstance(unmade.conv.weight.value, np.ndarray)


@pytest.mark.parametrize("backend", BACKENDS)
def test_moving_to_a_backend_and_back(backend):
    net = small().initialize(seed=1)
    y, pullback = net.vjp(images())
    pullback(y)
    state, grad = net.state_dict(), net.conv.weight.grad
    expected = net(images())
    with on(backend):
        x = xpconv.asarray(images())
    assert net.to(backend) is net
    assert net.conv.weight.value.device == net.conv.weight.grad.device == x.device
    np.testing.assert_allclose(xpconv.to_numpy(net(x)), expected, rtol=1e-4, atol=1e-5)
    net.to("numpy")
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    np.testing.assert_array_equal(net.conv.weight.grad, grad)


@pytest.mark.parametrize("dtype", ["float16", "float64", np.float64, np.dtype("float16")])
def test_moving_to_a_dtype(dtype):
    net = small().to(dtype=dtype).initialize()
    assert net.conv.weight.value.dtype == dtype
    assert net(images(dtype=dtype)).dtype == dtype
    net.to(dtype="float32")
    assert net(images()).dtype == np.float32
    with pytest.raises(TypeError, match="takes floating-point dtypes, not int32"):
        net.to(dtype="int32")


def test_a_copy_shares_nothing():
    net = small().initialize()
    net(images())
    twin = copy.deepcopy(net)
    twin.conv.weight.assign(np.zeros((3, 3, 3, 4), dtype="float32"))
    assert np.any(net.conv.weight.value)
    np.testing.assert_array_equal(copy.deepcopy(net)(images()), net(images()))


# -- all or nothing ----------------------------------------------------------------------------------------------------


def test_a_move_that_fails_changes_nothing():
    net = small().initialize()
    expected = net(images())
    with pytest.raises(TypeError, match="numpy has no dtype 'bfloat16'"):
        net.to(dtype="bfloat16")
    assert {state.dtype for state in net._states().values()} == {"float32"}
    np.testing.assert_array_equal(net(images()), expected)
    unmade = small()
    with pytest.raises(TypeError, match="numpy has no dtype 'bfloat16'"):
        unmade.to(dtype="bfloat16")
    np.testing.assert_array_equal(unmade(images()), expected)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (np.ma.masked_array(np.zeros(2), mask=[True, False]), "the mask would be lost"),
        (np.zeros(2, dtype="complex64"), "would lose their imaginary parts"),
        ([1j, 2j], "would lose their imaginary parts"),
    ],
)
def test_a_state_that_cannot_be_taken_changes_nothing(last, message):
    net = small().initialize()
    net(images())
    before = net.state_dict()
    with pytest.raises(TypeError, match=r"(?s)'head\.bias'.*" + message):
        net.load_state_dict({name: np.ones_like(value) for name, value in before.items()} | {"head.bias": last})
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_imaginary_parts_are_not_dropped_by_a_move():
    net = nn.Linear(3, 2).to(dtype="complex64").initialize()
    net.weight.assign(net.weight.value * 1j)
    with pytest.raises(TypeError, match="complex64 values in float32 would lose their imaginary parts"):
        net.to(dtype="float32")
    assert net.bias.dtype == "complex64"
    assert net.to(dtype="complex128").weight.value.dtype == np.complex128


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_move_is_a_new_version(backend):
    net = small().initialize()
    net.vjp(images())
    before = {name: state.version for name, state in net._states().items()}
    if not missing(backend):
        net.to(backend)
        assert {name: state.version for name, state in net._states().items()} == {n: v + 1 for n, v in before.items()}
    net.to(dtype="float64")
    assert all(state.version > before[name] for name, state in net._states().items())


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_statistics_go_on_elsewhere(backend):
    moved, stayed = nn.BatchNorm(3).initialize(), nn.BatchNorm(3).initialize()
    with on(backend):
        x = xpconv.asarray(images())
    moved.vjp(images())
    moved.to(backend).vjp(x)
    stayed.vjp(images())
    stayed.vjp(images())
    for name, buffer in moved.buffers().items():
        assert (type(buffer.value), buffer.value.device) == (type(x), x.device)
        np.testing.assert_allclose(xpconv.to_numpy(buffer.value), stayed.buffers()[name].value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_goes_on_counting_elsewhere(backend):
    with on(backend):
        x = xpconv.asarray(np.ones((4, 50), dtype="float32"))
    moved, stayed = nn.Dropout(0.5).initialize(), nn.Dropout(0.5).initialize()
    masks = [stayed.vjp(np.ones((4, 50), dtype="float32"))[0] for _ in range(3)]
    moved.vjp(np.ones((4, 50), dtype="float32"))
    for mask in masks[1:]:
        np.testing.assert_array_equal(xpconv.to_numpy(moved.vjp(x)[0]), mask)
    assert not np.array_equal(masks[0], masks[1])
