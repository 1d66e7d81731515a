"""Weights from Keras: documented layouts without it, and a model of it where it is installed."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest

from xpconv import FileError, exchange, nn, ops


def net():
    return nn.Sequential(
        stem=nn.Conv2d(None, 4, 3, activation="relu"),
        norm=nn.BatchNorm(eps=1e-3),
        dw=nn.Conv2d(4, 8, 3, groups=4),
        up=nn.ConvTranspose2d(8, 5, 3, stride=2),
        slope=nn.PReLU(5),
        flat=nn.Flatten(),
        head=nn.Linear(None, 3),
    )


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras")  # Keras' own

SHAPES = {
    "stem/kernel": (3, 3, 3, 4),
    "stem/bias": (4,),
    "norm/gamma": (4,),
    "norm/beta": (4,),
    "norm/moving_mean": (4,),
    "norm/moving_variance": (4,),
    "dw/kernel": (3, 3, 4, 2),
    "dw/bias": (8,),
    "up/kernel": (3, 3, 5, 8),
    "up/bias": (5,),
    "slope/alpha": (1, 1, 5),
    "head/kernel": (405, 3),
    "head/bias": (3,),
}


def weights():
    rng = np.random.default_rng(0)
    return {name: 0.2 + rng.random(shape) for name, shape in SHAPES.items()}


def values(network):
    return [*network.state_dict().values()]


def test_a_grouped_kernel_is_no_depthwise_one_where_a_group_has_as_many_channels_as_there_are_groups():
    kernel = np.random.default_rng(0).random((3, 3, 4, 16))
    net = nn.Sequential(conv=nn.Conv2d(16, 16, 3, groups=4, bias=False))
    assert exchange.load_keras(net, {"conv/kernel": kernel}) == ([], [])
    assert np.array_equal(net.conv.weight.value, kernel)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("affine", "count"), [(True, 3), (False, 4)])
def test_a_norm_by_places_must_have_as_many_arrays(strict, affine, count):
    net = nn.Sequential(norm=nn.BatchNorm(4, affine=affine))
    with pytest.raises(ValueError, match=f"{count} arrays of a norm that has {4 if affine else 2}"):
        exchange.load_keras(net, {f"norm/{i}": np.full(4, 1.0 + i) for i in range(count)}, strict=strict)


def test_lists_and_names_give_the_same():
    given = weights()
    by_list, by_name, by_path = net(), net(), net()
    exchange.load_keras(by_list, list(given.values()))
    assert exchange.load_keras(by_name, given) == ([], [])
    exchange.load_keras(by_path, {f"sequential/{name}": x for name, x in given.items()})
    for other in (by_name, by_path):
        for one, two in zip(values(by_list), values(other), strict=True):
            np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(by_name.stem.weight.value, given["stem/kernel"])
    np.testing.assert_array_equal(by_name.norm.running_var.value, given["norm/moving_variance"])
    np.testing.assert_array_equal(by_name.slope.weight.value, given["slope/alpha"][0, 0])


def test_depthwise_kernels_give_each_channel_its_outputs():
    """Output c · M + m of the documented DepthwiseConv2D is channel c by kernel [..., c, m]."""
    ours, given = net(), weights()
    exchange.load_keras(ours, given)
    x = np.random.default_rng(1).random((1, 6, 6, 4))
    y = ops.conv(x, ours.dw.weight.value, groups=4)
    for c in range(4):
        for m in range(2):
            alone = ops.conv(x[..., c : c + 1], np.ascontiguousarray(given["dw/kernel"][:, :, c : c + 1, m : m + 1]))
            np.testing.assert_allclose(y[..., 2 * c + m], alone[..., 0])


def test_the_older_name_of_a_depthwise_kernel():
    ours, given = net(), weights()
    given["dw/depthwise_kernel"] = given.pop("dw/kernel")
    assert exchange.load_keras(ours, given) == ([], [])


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_changed():
    ours, given = net(), weights()
    exchange.load_keras(ours, given)
    before = ours.stem.weight.version
    wrong = {**given, "head/kernel": np.ones((3, 405)), "other/kernel": np.ones(2)}
    del wrong["norm/beta"]
    with pytest.raises(ValueError, match="load_keras: the weights are not this network's") as error:
        exchange.load_keras(ours, wrong)
    for line in ("head/kernel (3, 405) should be (405, 3)", "norm/beta is missing", "other/kernel is unexpected"):
        assert line in str(error.value)
    with pytest.raises(ValueError, match="12 arrays for a network of 13"):
        exchange.load_keras(ours, list(given.values())[:-1])
    with pytest.raises(ValueError, match="two arrays are called 'stem/kernel'"):
        exchange.load_keras(ours, {**given, "other/stem/kernel": given["stem/kernel"]})
    with pytest.raises(TypeError, match="takes a network, not a list"):
        exchange.load_keras([], given)
    assert ours.stem.weight.version == before


def test_what_to_do_where_no_layer_is_called_as_in_keras_and_with_a_model():
    ours, given = nn.Sequential(nn.Linear(3, 2)), {"dense/kernel": np.ones((3, 2)), "dense/bias": np.ones(2)}
    with pytest.raises(ValueError, match=r"nn\.Sequential\(conv2d=.*model\.get_weights\(\)\) goes by their order"):
        exchange.load_keras(ours, given)

    class Model:
        def get_weights(self):
            return list(given.values())

    with pytest.raises(TypeError, match=r"given: a Model\n  .*load_keras\(net, model\.get_weights\(\)\)"):
        exchange.load_keras(ours, Model())
    assert exchange.load_keras(ours, Model().get_weights()) == ([], [])


def test_without_strictness_what_has_the_right_name_is_taken():
    ours = net().initialize()
    missing, unexpected = exchange.load_keras(ours, {"stem/bias": np.full(4, 7.0), "x/y": np.ones(1)}, strict=False)
    assert unexpected == ["x/y"]
    assert "head/kernel" in missing
    np.testing.assert_array_equal(ours.stem.bias.value, np.full(4, 7))


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip("torch", reason="Keras runs on torch here")
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def model(keras):
    make = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            make.Conv2D(4, 3, activation="relu", name="stem"),
            make.BatchNormalization(name="norm"),
            make.DepthwiseConv2D(3, depth_multiplier=2, name="dw"),
            make.Conv2DTranspose(5, 3, strides=2, name="up"),
            make.PReLU(shared_axes=[1, 2], name="slope"),
            make.Flatten(),
            make.Dense(3, name="head"),
        ]
    )
    model.set_weights(list(weights().values()))
    return model


@pytest.fixture(scope="module")
def expected(model):
    x = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype("float32")
    return x, np.asarray(model(x).detach().cpu())


def test_the_names_are_those_of_keras(model):
    assert {v.path.partition("/")[2]: tuple(v.shape) for v in model.weights} == SHAPES


def test_a_model_of_keras_gives_the_same(model, expected):
    ours, (x, y) = net(), expected
    exchange.load_keras(ours, model.get_weights())
    np.testing.assert_allclose(ours(x), y, rtol=1e-4)
    again = net()
    exchange.load_keras(again, {v.path: v.value for v in model.weights})
    np.testing.assert_array_equal(again(x), ours(x))


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_files_of_keras(model, expected, ending, tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / f"model{ending}"
    model.save(path) if ending == ".keras" else model.save_weights(path)
    ours, (x, y) = net(), expected
    assert exchange.load_keras(ours, path) == ([], [])
    np.testing.assert_allclose(ours(x), y, rtol=1e-4)


@pytest.fixture
def written(tmp_path):
    """Writes what a file of Keras' holds: of each group, the name of what owns it and its arrays."""
    h5py = pytest.importorskip("h5py")

    def write(groups):
        with h5py.File(tmp_path / "model.weights.h5", "w") as file:
            for where, (name, arrays) in groups.items():
                group = file.create_group(f"{where}/vars")
                group.attrs["name"] = name
                for i, x in enumerate(arrays):
                    group[f"{i}"] = x
        return tmp_path / "model.weights.h5"

    return write


def test_a_file_of_a_model_that_was_trained(written):
    head = np.arange(6.0).reshape(3, 2), np.ones(2)
    path = written(
        {
            "layers/dense": ("head", head),
            "layers/dropout/seed_generator": ("seed_generator_1", [np.zeros(2, "uint32")]),
            "optimizer": ("adam", [np.array(7), *head, *head]),
        }
    )
    ours = nn.Sequential(drop=nn.Dropout(0.5), head=nn.Linear(3, 2))
    assert exchange.load_keras(ours, path) == ([], [])
    np.testing.assert_array_equal(ours.head.weight.value, head[0])


def test_layers_of_one_name_in_a_file(written):
    path = written({f"layers/block{i}/layers/dense": ("head", [np.full((3, 2), i)]) for i in range(2)})
    for strict in (True, False):
        with pytest.raises(ValueError, match="two arrays are called 'head/0'"):
            exchange.load_keras(nn.Sequential(head=nn.Linear(3, 2, bias=False)), path, strict=strict)


def test_a_file_that_reaches_for_others(written, tmp_path):
    import h5py

    (tmp_path / "secret").write_bytes(bytes(48))
    path = written({"layers/dense": ("head", [])})
    with h5py.File(path, "a") as file:
        outside = [(str(tmp_path / "secret"), 0, 48)]
        file["layers/dense/vars"].create_dataset("0", (3, 2), "f8", external=outside)
    with pytest.raises(FileError, match="layers/dense/vars/0 lies in another file"):
        exchange.load_keras(nn.Sequential(head=nn.Linear(3, 2, bias=False)), path)


def test_files_of_something_else(tmp_path):
    h5py = pytest.importorskip("h5py")
    for name in ("text.weights.h5", "text.keras"):
        (tmp_path / name).write_bytes(b"text" * 100)
        with pytest.raises(FileError, match="damaged, or none that Keras 3 wrote") as error:
            exchange.load_keras(net(), tmp_path / name)
        assert name in str(error.value)
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("model.py", "print()")
    with pytest.raises(FileError, match="damaged, or none that Keras 3 wrote"):
        exchange.load_keras(net(), tmp_path / "other.keras")
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["model_weights/stem"] = np.ones(3)
    with pytest.raises(FileError, match="no layers' weights as Keras 3 writes them"):
        exchange.load_keras(net(), tmp_path / "old.h5")
    with pytest.raises(FileNotFoundError):
        exchange.load_keras(net(), tmp_path / "none.h5")
