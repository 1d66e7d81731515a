"""Networks as trees: names, and first values."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from nets import BACKENDS, images, on, small

import xpconv
from xpconv import nn, ops

# -- names -------------------------------------------------------------------------------------------------------------


def test_names_follow_the_attributes():
    block = nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))
    net = nn.Sequential(stem=nn.Conv2d(3, 4, 1, bias=False), block=block, norm=nn.BatchNorm(4))
    assert list(net.parameters()) == [
        "stem.weight",
        "block.body.0.weight",
        "block.body.0.bias",
        "norm.weight",
        "norm.bias",
    ]
    assert list(net.buffers()) == ["norm.running_mean", "norm.running_var"]
    assert list(net.modules()) == ["", "stem", "block", "block.body", "block.body.0", "block.body.1", "norm"]
    assert list(net.children()) == ["stem", "block", "norm"]


def test_lists_tuples_and_dicts_of_layers_are_found():
    class Many(nn.Module):
        def __init__(self):
            self.blocks = [nn.Linear(3, 3), nn.Linear(3, 3)]
            self.pair = (nn.PReLU(),)
            self.heads = {"a": nn.Linear(3, 2), "b": nn.Parameter((5,))}

    names = ["blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias", "pair.0.weight"]
    assert list(Many().parameters()) == [*names, "heads.a.weight", "heads.a.bias", "heads.b"]


def test_a_shared_layer_has_one_name_and_gathers_all_gradients():
    shared = nn.Linear(3, 3, activation="tanh")
    net = nn.Sequential(first=shared, second=shared).initialize()
    assert list(net.parameters()) == ["first.weight", "first.bias"]
    assert list(net.modules()) == ["", "first"]
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    y, pullback = net.vjp(x)
    pullback(np.ones_like(y))

    w, b = shared.weight.value, shared.bias.value
    hidden, first = xpconv.vjp(ops.linear, x, w, b, activation="tanh")
    y2, second = xpconv.vjp(ops.linear, hidden, w, b, activation="tanh")
    dh, dw2, _ = second(np.ones_like(y2))
    np.testing.assert_allclose(shared.weight.grad, first(dh)[1] + dw2, rtol=1e-6)


def test_containers_by_position_name_and_slice():
    net = small()
    assert net.conv is net[0] is net["conv"]
    assert len(net) == 4
    assert [type(layer) for layer in net] == [nn.Conv2d, nn.BatchNorm, nn.Flatten, nn.Linear]
    trunk = net[:-1]
    assert isinstance(trunk, nn.Sequential)
    assert list(trunk.children()) == ["conv", "norm", "flat"]
    assert trunk.conv is net.conv
    net["head"] = nn.Linear(None, 7)
    net[0] = nn.Conv2d(3, 2, 1)
    assert "head.weight" in net.parameters()
    assert net.conv.weight.shape == (1, 1, 3, 2)


@pytest.mark.parametrize("name", ["a.b", "", "_hidden", "vjp", "parameters"])
def test_names_that_a_child_cannot_have(name):
    with pytest.raises(ValueError, match="cannot be called"):
        nn.Sequential(**{name: nn.ReLU()})


def test_children_must_be_layers():
    with pytest.raises(TypeError, match="child '0' is no layer"):
        nn.Sequential(ops.relu)
    with pytest.raises(TypeError, match=r"unpack the dict with \*\*: Sequential\(\*\*layers\)"):
        nn.Sequential({"act": nn.ReLU()})
    with pytest.raises(TypeError, match="by position or by name, not both"):
        nn.Sequential(nn.ReLU(), last=nn.ReLU())


def test_a_network_prints_as_a_tree():
    net = nn.Sequential(conv=nn.Conv2d(3, 8, 3, padding="same"), block=nn.Residual(nn.Sequential(nn.ReLU())))
    assert repr(net) == (
        "Sequential()\n"
        "  conv: Conv2d(3, 8, 3, padding='same')\n"
        "  block: Residual()\n"
        "    body: Sequential()\n"
        "      0: ReLU()"
    )


def test_what_does_not_learn_is_marked_where_it_begins():
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 2))
    net[0].freeze()
    net[1].bias.trainable = False
    lines = repr(net).splitlines()
    assert [line.strip() for line in lines if "frozen" in line] == [
        "0: Sequential() (frozen)",
        "1: Linear(3, 2) (bias frozen)",
    ]
    assert repr(net.freeze()).splitlines()[0] == "Sequential() (frozen)"
    assert repr(net).count("frozen") == 1
    assert "frozen" not in repr(net.unfreeze())


def test_what_is_shared_is_printed_once():
    block = nn.Sequential(nn.ReLU())
    assert repr(nn.Sequential(block, block)) == "Sequential()\n  0: Sequential()\n    0: ReLU()\n  1: Sequential()"


# -- first values ------------------------------------------------------------------------------------------------------


def test_first_values_depend_on_seed_and_name_alone():
    one = nn.Sequential(a=nn.Linear(3, 4), b=nn.Linear(4, 5)).initialize(seed=1).state_dict()
    other = nn.Sequential(b=nn.Linear(4, 5), a=nn.Linear(3, 4)).initialize(seed=1).state_dict()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    again = nn.Sequential(a=nn.Linear(3, 4), b=nn.Linear(4, 5)).initialize(seed=2).state_dict()
    assert not np.array_equal(one["a.weight"], again["a.weight"])
    twins = nn.Sequential(a=nn.Linear(3, 3), b=nn.Linear(3, 3)).initialize().state_dict()
    assert not np.array_equal(twins["a.weight"], twins["b.weight"])


def test_first_values_are_those_of_other_processes():
    code = (
        "from xpconv import nn; w = nn.Sequential(fc=nn.Linear(3, 2)).initialize(seed=7)['fc'].weight.value;"
        "print(w.tobytes().hex())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    here = nn.Sequential(fc=nn.Linear(3, 2)).initialize(seed=7)["fc"].weight.value
    assert runs == {f"{here.tobytes().hex()}\n".encode()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_gets_the_same_first_values(backend):
    host = small().initialize(seed=4)
    host(images())
    with on(backend):
        net = small().initialize(seed=4)
        net(xpconv.asarray(images()))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(xpconv.to_numpy(value), host.state_dict()[name])


def test_a_network_never_initialised_is_with_seed_0_at_its_first_input():
    lazy, eager = small(), small().initialize(seed=0)
    lazy(images())
    eager(images())
    for name, value in eager.state_dict().items():
        np.testing.assert_array_equal(lazy.state_dict()[name], value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_not_made_yet_follow_the_first_input(backend, dtype):
    net = small()
    with on(backend):
        x = xpconv.asarray(images(), dtype)
    y = net(x)
    assert type(y) is type(x)
    assert (y.dtype, y.device) == (x.dtype, x.device)
    assert all(p.value.device == x.device and p.dtype == dtype for p in net.parameters().values())
    reference = small().initialize().to(dtype=dtype)
    reference(images(dtype=dtype))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(xpconv.to_numpy(value), reference.state_dict()[name])


def test_a_layer_put_in_later_gets_a_name_and_a_key_of_its_own():
    net = small().initialize(seed=5)
    net(images())
    net["head"], net["extra"] = nn.Linear(None, 2), nn.Linear(None, 2)
    net(images())
    fresh = small().initialize(seed=5)
    fresh(images())
    np.testing.assert_array_equal(net.state_dict()["head.weight"], fresh.state_dict()["head.weight"])
    assert net["extra"].weight._key == (5, "extra.weight")


def test_what_a_layer_of_ones_own_gets_after_its_first_input_is_named_and_made():
    class Growing(nn.Module):
        def __init__(self):
            self.parts, self.by_name, self.scale = [nn.Linear(None, 3)], {"a": nn.Linear(None, 3)}, nn.Parameter((3,))

        def vjp(self, x, training=True, needs_input=True):
            for part in (*self.parts, *self.by_name.values()):
                x = part(x)
            return x * self.scale.value, None

    net, x = Growing().initialize(seed=5), np.ones((2, 3), "float32")
    net(x)
    net.parts.append(nn.Linear(None, 3))
    net.by_name["b"], net.scale = nn.Linear(None, 3), nn.Parameter((3,))
    net(x)
    assert {name: state._key for name, state in net.parameters().items()} == {
        name: (5, name) for name in net.parameters()
    }
    assert all(state.value is not None for state in net.parameters().values())


def test_initialising_again_draws_anew_and_forgets():
    net = small().initialize(seed=0)
    y, pullback = net.vjp(images())
    pullback(y)
    before = net.state_dict()
    net.initialize(seed=0)
    assert all(parameter.grad is None for parameter in net.parameters().values())
    assert not np.any(net.norm.running_mean.value)
    for name in ("conv.weight", "head.weight"):
        np.testing.assert_array_equal(net.state_dict()[name], before[name])


@pytest.mark.parametrize("seed", [1.0, "1", None, True])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(TypeError, match="seed must be an integer"):
        small().initialize(seed=seed)


def test_a_shape_left_open_is_named():
    class Forgetful(nn.Module):
        def __init__(self):
            self.w = nn.Parameter((None, 3))

        def vjp(self, x, training=True, needs_input=True):
            raise AssertionError

    with pytest.raises(ValueError, match=r"Forgetful: the shape \(None, 3\) of w is still open"):
        Forgetful()(np.zeros((2, 3)))
