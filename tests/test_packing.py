"""What engines keep beside a parameter lives exactly as long as its values stay as they are."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

from xpconv import dispatch, nn, ops, train
from xpconv.dispatch import Primitive
from xpconv.packing import Place, offering, place_for


@pytest.fixture
def packed(monkeypatch):
    """An engine that packs w for two directions and computes with what it packed; the packings that it made."""
    made = []

    def weights(w, direction):
        place = place_for(w)
        if place is not None and direction in place:
            return place[direction]
        made.append(direction if place is not None else f"{direction}, not kept")
        copied = w.copy()
        if place is not None:
            place[direction] = copied
        return copied

    def fprop(x, w, **options):
        return portable["conv_fprop"].run(x, weights(w, "fprop"), **options)

    def dgrad(dy, w, **options):
        return portable["conv_dgrad"].run(dy, weights(w, "dgrad"), **options)

    def linear(x, w, b, **options):
        y, residuals = portable["linear"].run(x, weights(w, "linear"), b, **options)
        return y, (residuals, w)

    def linear_backward(kept, dy, needs):
        weights(kept[1], "linear, backward")
        return portable["linear"].backward(kept[0], dy, needs)

    portable = dict(dispatch.engine_primitives("portable"))
    table = {
        "conv_fprop": Primitive(fprop),
        "conv_dgrad": Primitive(dgrad),
        "linear": Primitive(linear, linear_backward),
    }
    monkeypatch.setattr(
        dispatch, "engine_primitives", lambda engine: {**portable, **table} if engine == "portable" else "is not here"
    )
    return made


X = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype("float32")


def layer():
    return nn.Conv2d(3, 4, 3, activation="silu").initialize()


def expected(conv, x=X):
    return ops.conv(x, conv.weight.value.copy(), conv.bias.value.copy(), activation="silu")


def test_weights_are_packed_once_for_each_direction(packed):
    conv = layer()
    for _ in range(3):
        y, pullback = conv.vjp(X)
        pullback(y)
        pullback(y)
        conv(X)
    assert packed == ["fprop", "dgrad"]
    head = nn.Linear(5, 2).initialize()
    for _ in range(2):
        y, pullback = head.vjp(X[..., 0])
        pullback(y)
    assert packed[2:] == ["linear", "linear, backward"]


def test_a_raw_array_is_packed_afresh_even_if_it_is_a_parameters(packed):
    conv = layer()
    conv(X)
    for _ in range(2):
        ops.conv(X, conv.weight.value)
    assert packed == ["fprop", "fprop, not kept", "fprop, not kept"]


def changes():
    def assigned(net):
        net.weight.assign(net.weight.value * 2)

    def another_shape_of_memory(net):
        net.weight.assign(np.asfortranarray(net.weight.value * 2))

    def loaded(net):
        net.load_state_dict({name: value + 1 for name, value in net.state_dict().items()})

    def stepped(net):
        y, pullback = net.vjp(X)
        pullback(y)
        train.SGD(0.1).step(net.parameters())

    def fitted(net):
        data = X, np.zeros((2, 3, 3, 4), "float32")
        train.fit(net, data, epochs=1, batch_size=2, optimizer=train.SGD(0.1), loss="mse", progress=False)

    def moved(net):
        net.to(dtype="float64").to(dtype="float32")

    def drawn_anew(net):
        net.initialize(seed=1)

    return assigned, another_shape_of_memory, loaded, stepped, fitted, moved, drawn_anew


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
def test_every_change_of_the_value_is_seen(packed, change):
    conv = layer()
    conv(X)
    place, version = conv.weight.packed, conv.weight.version
    change(conv)
    packed.clear()
    np.testing.assert_array_equal(conv(X), expected(conv))
    assert packed[0] == "fprop"
    assert conv.weight.packed is not place
    assert conv.weight.version > version


def test_a_write_that_is_interrupted_is_a_change_too():
    class Torn(np.ndarray):
        def __setitem__(self, key, value):
            super().__setitem__(0, value[0])
            raise KeyboardInterrupt

    weight = nn.Parameter(np.zeros((2, 3)))
    weight._value = np.zeros((2, 3)).view(Torn)
    place = weight.packed
    with pytest.raises(KeyboardInterrupt):
        weight.assign(np.ones((2, 3)))
    assert (weight.version, weight.packed is place) == (2, False)
    assert not weight.value.flags.writeable


def test_numpy_values_are_written_by_assign_alone():
    conv = layer()
    pickled = (pickle.loads(pickle.dumps(conv.weight, protocol)) for protocol in (4, 5))
    for weight in (conv.weight, copy.deepcopy(conv).weight, *pickled):
        with pytest.raises(ValueError, match="read-only"):
            weight.value[...] = 0
        weight.assign(np.zeros_like(weight.value))
        assert not weight.value.any()


def test_a_parameter_protects_and_writes_to_no_array_but_its_own():
    mine = np.zeros((1, 2), "float32")
    drawn = nn.Linear(1, 2)
    drawn.weight = nn.Parameter((1, 2), lambda rng, shape: mine)
    drawn.initialize()
    for parameter in (nn.Parameter(mine), drawn.weight):
        parameter.assign(np.ones((1, 2), "float32"))
        mine[...] = 0
        assert parameter.value.all()


def test_copies_of_a_network_pack_for_themselves(packed):
    conv = layer()
    conv(X)
    conv.weight.packed["a lock"] = threading.Lock()  # an engine may keep what cannot be copied
    twin = copy.deepcopy(conv)
    assert twin.weight.packed == {}
    twin.weight.assign(twin.weight.value * 2)
    np.testing.assert_array_equal(twin(X), expected(twin))
    np.testing.assert_array_equal(conv(X), expected(conv))


def test_a_pullback_in_another_thread_finds_the_place_too(packed):
    conv = layer()
    y, pullback = conv.vjp(X)
    pullback(y)
    thread = threading.Thread(target=pullback, args=(y,))
    thread.start()
    thread.join()
    assert packed == ["fprop", "dgrad"]


def test_an_old_value_is_never_kept_in_a_new_place():
    parameter = nn.Parameter(np.zeros(3))
    old = parameter.value
    with offering((parameter,)):
        assert place_for(old) is parameter.packed
        parameter.assign(np.zeros(3, "float32"))  # another buffer
        assert place_for(old) is None
        assert place_for(parameter.value) is parameter.packed
    assert place_for(parameter.value) is None
    assert isinstance(parameter.packed, Place)


def test_threads_that_call_while_another_assigns_end_up_with_the_last_values(packed):
    conv = layer()
    stop, failures = threading.Event(), []

    def call():
        while not stop.is_set():
            try:
                conv(X)
            except BaseException as error:
                failures.append(error)
                raise

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(50):
        conv.weight.assign(conv.weight.value * (1 + i % 2))
        conv.weight.assign(np.array(conv.weight.value, order="F"))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    np.testing.assert_array_equal(conv(X), expected(conv))
