"""Saving and loading: round trips, what cannot be saved, and paths."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from nets import BACKENDS, assorted, images, on

import xpconv
from xpconv import FileError, exchange, nn
from xpconv.exchange import architecture

# -- round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_saved_is_what_is_loaded_on_any_backend(learned, path, backend):
    exchange.save(learned, path)
    with on(backend):
        net = exchange.load(str(path))
        x = xpconv.asarray(images())
        y = net(x)
        again = path.with_name("again.safetensors")
        exchange.save(net, again)
    assert repr(net) == repr(learned)
    assert net.stem.weight.value.device == x.device
    np.testing.assert_allclose(xpconv.to_numpy(y), learned(images()), rtol=1e-4, atol=1e-5)
    assert again.read_bytes() == path.read_bytes()
    for name, value in learned.state_dict().items():
        np.testing.assert_array_equal(xpconv.to_numpy(net.state_dict()[name]), value)


@pytest.mark.parametrize("name", ["lenet", "resnet20", "mobilenet_v2"])
def test_models_survive(name, path):
    net, x = nn.models.MODELS[name]().initialize(), images()
    expected = net(x)
    exchange.save(net, path)
    np.testing.assert_array_equal(exchange.load(path)(x), expected)


@pytest.mark.parametrize("make", nn.models.MODELS.values(), ids=nn.models.MODELS)
def test_what_every_model_is_made_of_survives(make):
    """Without its weights, of which some have more than a test should write."""
    net = make(in_channels=3)
    again = architecture.build(json.loads(json.dumps(architecture.describe(net))), {}, "test")
    assert {k: p.shape for k, p in again.parameters().items()} == {k: p.shape for k, p in net.parameters().items()}


def test_files_of_before_flags_were_judged_hold_numbers_for_them():
    def layer(kind, *args, **kwargs):
        return {"layer": kind, "args": [*args], "kwargs": kwargs}

    old = layer("Sequential", layer("Conv2d", 3, 8, 3, bias=0), layer("InstanceNorm", 8, 1e-5, 0.1))
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.InstanceNorm(8, 1e-5, True))
    assert repr(architecture.build(old, {}, "test")) == repr(net)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_dtypes_are_kept(path, dtype):
    with on("torch"):
        net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(dtype=dtype).initialize()
        exchange.save(net, path)
        back = exchange.load(path)
        for name, value in net.state_dict().items():
            assert back.state_dict()[name].dtype == value.dtype
            assert (back.state_dict()[name] == value).all()
    on_host = exchange.load(path)["0"].weight
    assert on_host.dtype == ("float32" if dtype == "bfloat16" else dtype)
    np.testing.assert_array_equal(on_host.value, xpconv.to_numpy(net[0].weight.value))
    with on("array_api_strict"):
        strict = exchange.load(path)["0"].weight
        assert strict.dtype == ("float32" if dtype in ("float16", "bfloat16") else dtype)


def test_the_format_is_read_by_its_own_package(learned, path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    exchange.save(learned, path)
    found = load_file(path)
    for name, value in learned.state_dict().items():
        np.testing.assert_array_equal(found[name], value)
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["xpconv"])["net"]["layer"] == "Sequential"


def test_a_shared_layer_stays_shared(path):
    shared = nn.Linear(4, 4, activation="relu")
    net = nn.Sequential(shared, nn.Residual(shared), nn.Linear(4, 2)).initialize()
    exchange.save(net, path)
    back = exchange.load(path)
    assert back[0] is back[1].body
    assert list(back.parameters()) == list(net.parameters())
    x = images(channels=4)[:, 0, 0]
    np.testing.assert_array_equal(back(x), net(x))


def test_what_is_frozen_stays_frozen(learned, path):
    learned.stem.freeze()
    learned.head.bias.trainable = False
    exchange.save(learned, path)
    frozen = [name for name, p in exchange.load(path).parameters().items() if not p.trainable]
    assert frozen == ["stem.weight", "head.bias"]


def test_a_head_that_was_replaced_is_saved(learned, path):
    learned["head"] = nn.Linear(None, 9)
    learned.block.body["norm"] = nn.GroupNorm(2)
    expected = learned(images())
    exchange.save(learned, path)
    np.testing.assert_array_equal(exchange.load(path)(images()), expected)


class Scaled(nn.Module):
    """A layer of one's own with arguments of every kind."""

    def __init__(self, body, *others, factors=(1.0, 2.0), names=None, table=None):
        self.body, self.others = body, list(others)
        self.factors, self.names, self.table = factors, names, table

    def vjp(self, x, training=True, needs_input=True):
        y, pullback = self.body.vjp(x, training=training, needs_input=needs_input)
        return y * self.factors[0], lambda dy: pullback(dy * self.factors[0])


def test_layers_of_ones_own(path):
    own = Scaled(
        nn.Linear(3, 2), nn.ReLU(), factors=(np.float64(3.0), 1), names=["a", None, True], table={"k": (1, [2])}
    )
    net = nn.Sequential(own, nn.ReLU()).initialize()
    exchange.save(net, path)
    back = exchange.load(path, layers={"Scaled": Scaled})
    assert (back[0].factors, back[0].names, back[0].table) == ((3.0, 1), ["a", None, True], {"k": (1, [2])})
    assert isinstance(back[0].others[0], nn.ReLU)
    x = images()[:, 0, 0]
    np.testing.assert_allclose(back(x), net(x), rtol=1e-6)
    with pytest.raises(FileError, match="no layer is called 'Scaled'") as error:
        exchange.load(path)
    assert "load(path, layers={'Scaled': Scaled})" in str(error.value)
    with pytest.raises(TypeError, match="layers is a dict of classes by name"):
        exchange.load(path, layers=[Scaled])


def test_a_layer_of_ones_own_may_have_the_name_of_another(path):
    class Linear(nn.Linear):
        def __call__(self, x):
            return -super().__call__(x)

    net, x = Linear(3, 2).initialize(), images()[:, 0, 0]
    exchange.save(net, path)
    with pytest.raises(FileError, match="no layer is called 'Linear'"):
        exchange.load(path)
    np.testing.assert_array_equal(exchange.load(path, layers={"Linear": Linear})(x), net(x))


def test_numbers_of_numpy_are_saved_as_pythons(path):
    net = nn.Sequential(nn.Conv2d(np.int64(3), 4, np.array([3, 3]), padding=np.array([[1, 1], [0, 2]]), bias=np.True_))
    exchange.save(net.initialize(), path)
    assert repr(exchange.load(path)) == repr(net)
    assert "Conv2d(3, 4, [3, 3], padding=[[1, 1], [0, 2]], bias=True)" in repr(net)


# -- what cannot be saved ----------------------------------------------------------------------------------------------


def test_values_that_are_not_made(path):
    with pytest.raises(ValueError, match=r"not made yet: stem\.weight"):
        exchange.save(assorted(), path)
    assert not path.exists()


def test_arguments_that_a_file_cannot_tell_of(path):
    net = nn.Sequential(Scaled(nn.Linear(3, 2), names=np.zeros(3))).initialize()
    with pytest.raises(FileError, match=r"Sequential\(0\)\(names=\) is a ndarray"):
        exchange.save(net, path)
    with pytest.raises(TypeError, match="takes a network, not a dict"):
        exchange.save({}, path)


def test_notes_that_json_cannot_say(learned, path):
    with pytest.raises(TypeError, match=r"^save: notes must be of what JSON has\.\n  Object of type set "):
        exchange.save(learned, path, notes={"seen": {1, 2}})
    with pytest.raises(TypeError, match=r"^save: notes must be a dict\."):
        exchange.save(learned, path, notes="of today")
    assert not path.exists()


def test_a_network_that_its_arguments_do_not_make(learned, path):
    learned.stem.stride = 2
    with pytest.raises(FileError, match="not what its constructors' arguments make") as error:
        exchange.save(learned, path)
    assert "stride of stem is 2, not 1" in str(error.value)
    learned.stem.stride = 1
    learned.block.extra = nn.ReLU()
    with pytest.raises(FileError, match=r"layers: block\.extra"):
        exchange.save(learned, path)


def test_a_dtype_that_the_format_lacks(path):
    net = nn.Linear(3, 2).to(dtype="complex128").initialize()
    with pytest.raises(FileError, match=r"does not have a dtype of this network.*\n.*complex128"):
        exchange.save(net, path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(learned, path, monkeypatch):
    exchange.save(learned, path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        exchange.save(learned.initialize(seed=9), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_saving_replaces_the_old_file(learned, path):
    path.write_bytes(b"old")
    exchange.save(learned, path)
    assert exchange.load(path).state_dict().keys() == learned.state_dict().keys()
    assert os.listdir(path.parent) == [path.name]


# -- paths -------------------------------------------------------------------------------------------------------------


def test_a_folder_is_no_file(learned, tmp_path):
    with pytest.raises(FileError, match="it is a folder"):
        exchange.load(tmp_path)
    with pytest.raises(IsADirectoryError) as error:
        exchange.save(learned, tmp_path)
    assert error.value.filename == str(tmp_path)
    with pytest.raises(ValueError, match="the path is empty"):
        exchange.save(learned, "")


def test_a_link_and_a_mode_stay(learned, path):
    link = path.with_name("latest")
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path.name)
    exchange.save(learned, link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert repr(exchange.load(path)) == repr(learned)


def test_the_systems_errors_name_the_path_that_was_given(learned, tmp_path):
    path = tmp_path / "nowhere" / "net.safetensors"
    with pytest.raises(FileNotFoundError) as error:
        exchange.save(learned, path)
    assert error.value.filename == str(path)
    assert error.value.strerror == "there is no folder for it"
