"""Networks as ONNX files: ONNX Runtime and the reader give what the network gives."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime as runtime
from nets import images
from onnx import numpy_helper

import xpconv
from xpconv import exchange, nn, ops


class Own(nn.Layer):
    """A layer of one's own that applies one op."""

    def __init__(self, op, *args, **options):
        self.op, self.args, self.options = op, args, options

    def bind(self, x, training):
        return self.op, (x, *self.args), self.options


class Scale(nn.Layer):
    """One with a parameter."""

    def __init__(self):
        self.slope = nn.Parameter((None,), nn.init.ones)

    def bind(self, x, training):
        return ops.prelu, (x, self.slope), {}


class Twice(nn.Module):
    """One without an op."""

    def vjp(self, x, training=True, needs_input=True):
        return x + x, lambda dy: dy + dy


class Backwards(nn.Sequential):
    """A container that does something else than its kind."""

    def __call__(self, x):
        return super().__call__(-x)


ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.HardSwish, nn.HardSigmoid]
OF_IMAGES = {
    "conv": lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1, activation="relu"),
    "conv same": lambda: nn.Conv2d(3, 8, (2, 4), padding="same", dilation=2, bias=False),
    "conv same_lower": lambda: nn.Conv2d(3, 6, 4, padding="same_lower", groups=3, activation="hard_swish"),
    "conv one-sided": lambda: nn.Conv2d(3, 4, 3, padding=((0, 1), (2, 0)), activation="silu"),
    "conv transposed": lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
    "conv transposed same": lambda: nn.ConvTranspose2d(3, 6, 4, stride=2, padding="same", groups=3),
    "max pool": lambda: nn.MaxPool2d(3, 2, padding=1),
    "max pool ceil": lambda: nn.MaxPool2d(2, 2, ceil_mode=True, dilation=2),
    "avg pool": lambda: nn.AvgPool2d(3, 2, padding=1),
    "avg pool uncounted": lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "avg pool ceil": lambda: nn.AvgPool2d(3, 3, padding=1, ceil_mode=True, count_include_pad=False),
    "avg pool divisor": lambda: nn.AvgPool2d(2, divisor_override=3),
    "adaptive pool": lambda: nn.AdaptiveAvgPool2d((3, 1)),
    "adaptive max pool": lambda: nn.AdaptiveMaxPool2d((3, 1)),
    "global pool": lambda: nn.Sequential(nn.GlobalAvgPool(), nn.Flatten(), nn.Linear(None, 4)),
    "batch norm": lambda: nn.BatchNorm(3, activation="relu6"),
    "batch norm bare": lambda: nn.BatchNorm(3, affine=False, eps=0.1),
    "layer norm": lambda: nn.LayerNorm(3),
    "layer norm of images": lambda: nn.LayerNorm((9, 7, 3)),
    "group norm": lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(2)),
    "linear of channels": lambda: nn.Sequential(nn.Linear(3, 5, activation="tanh"), nn.Conv2d(5, 2, 3)),
    "flatten": lambda: nn.Sequential(nn.Flatten(), nn.Linear(None, 4), nn.Softmax()),
    "softmax": lambda: nn.Softmax(),
    "softmax along rows": lambda: nn.Softmax(2),
    "prelu": lambda: nn.PReLU(3, init=0.3),
    "prelu one": lambda: nn.PReLU(),
    "leaky": lambda: nn.LeakyReLU(0.2),
    "elu": lambda: nn.ELU(0.7),
    "gelu": lambda: nn.GELU(),
    "gelu tanh": lambda: nn.GELU("tanh"),
    **{kind.__name__: kind for kind in ACTIVATIONS},
    "residual": lambda: nn.Residual(nn.Conv2d(3, 3, 3, padding=1), activation="relu"),
    "shortcut": lambda: nn.Residual(nn.Conv2d(3, 5, 3, 2, padding=1), nn.IdentityShortcut(5, 2)),
    "parallel": lambda: nn.Parallel(nn.Conv2d(3, 2, 1), nn.Sequential(nn.LayerNorm(3), nn.Identity()), nn.Dropout()),
    "own": lambda: Scale(),
    "instance norm": lambda: nn.InstanceNorm(3, affine=True),
    "response norm": lambda: nn.LocalResponseNorm(3, alpha=0.1),
    "lp pool": lambda: nn.LpPool2d(3, 2),
    "global max pool": lambda: nn.GlobalMaxPool(),
    "pad": lambda: nn.Pad(((1, 0), (2, 1)), value=0.5),
    "pad reflect": lambda: nn.Pad(1, "reflect"),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "nearest-exact": lambda: nn.Upsample((5, 11), mode="nearest-exact"),
    "bilinear": lambda: nn.Upsample((7, 20), mode="bilinear"),
    "bilinear to corners": lambda: nn.Upsample((13, 1), mode="bilinear", align_corners=True),
    "clip": lambda: Own(ops.clip, -0.5),
    "log softmax": lambda: nn.LogSoftmax(1),
}


def input_of(shape, n=3):
    return np.random.default_rng(5).standard_normal((n, *shape), dtype=np.float32)


def first(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def moved(net, x):
    """The network with statistics that training has moved, and other scales than 1."""
    net.initialize(seed=3)
    net(x)
    rng = np.random.default_rng(4)
    for parameter in net.parameters().values():
        parameter.assign(parameter.value + 0.1 * rng.standard_normal(parameter.value.shape).astype("float32"))
    if any(isinstance(m, nn.BatchNorm) for m in net.modules().values()):
        net.vjp(x)
    return net


def check(net, path, shape, tolerance=2e-6):
    x = input_of(shape)
    moved(net, x)
    exchange.onnx.save(net, path, shape)
    expected = first(net(x))
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scale = np.abs(expected).max()
    for y in (session.run(["output"], {"input": first(x)})[0], exchange.onnx.load(path)(first(x))["output"]):
        assert y.shape == expected.shape
        assert y.dtype == expected.dtype
        assert np.abs(y - expected).max() <= tolerance * scale
    return onnx.load(path)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_layers_of_images(name, tmp_path):
    check(OF_IMAGES[name](), tmp_path / "net.onnx", (9, 7, 3))


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (lambda: nn.Sequential(nn.Conv1d(2, 4, 3, padding="causal"), nn.MaxPool1d(2), nn.AvgPool1d(2)), (12, 2)),
        (lambda: nn.Sequential(nn.ConvTranspose1d(2, 4, 3), nn.BatchNorm(4)), (5, 2)),
        (lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.MaxPool3d(2), nn.AvgPool3d(2, 1)), (6, 7, 8, 2)),
        (lambda: nn.Sequential(nn.ConvTranspose3d(2, 3, 2), nn.PReLU(3), nn.Flatten()), (2, 3, 4, 2)),
        (lambda: nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm(4), nn.LayerNorm(4), nn.PReLU(4)), (5,)),
        (lambda: nn.Residual(nn.Linear(5, 5), activation="sigmoid"), (5,)),
        (lambda: nn.Parallel(nn.Linear(5, 2), nn.Linear(5, 3)), (5,)),
    ],
)
def test_layers_of_other_ranks(net, shape, tmp_path):
    check(net(), tmp_path / "net.onnx", shape)


@pytest.mark.parametrize(("name", "shape"), [("lenet", (28, 28, 1)), ("resnet20", (32, 32, 3))])
def test_whole_networks(name, shape, tmp_path):
    model = check(getattr(nn.models, name)(), tmp_path / "net.onnx", shape)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Transpose") == (name == "lenet")  # before its Flatten of 7 × 7 cells
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_every_layer_has_a_sample():
    """All of `nn` that is a layer is in a network above."""
    made = {type(m) for make in OF_IMAGES.values() for m in make().modules().values()}
    others = {nn.Conv1d, nn.Conv3d, nn.MaxPool1d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool3d}
    others |= {nn.LpPool1d, nn.LpPool3d, nn.ConvTranspose1d, nn.ConvTranspose3d}
    others |= {nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool3d}
    public = [kind for name in nn.__all__ if isinstance(kind := getattr(nn, name), type)]
    layers = {kind for kind in public if issubclass(kind, nn.Module)} - {nn.Module, nn.Layer}
    assert layers - made == others


def test_names_and_values_of_parameters_stay(tmp_path):
    net = nn.Sequential(stem=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm(4), flat=nn.Flatten(), head=nn.Linear(None, 2))
    model = check(net, tmp_path / "net.onnx", (5, 5, 3))
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert set(tensors) == set(net.state_dict())
    assert np.array_equal(tensors["stem.weight"], exchange.to_oihw(net.stem.weight.value))
    assert np.array_equal(tensors["head.weight"], net.head.weight.value)


def test_a_shared_layer_is_written_twice_with_one_set_of_weights(tmp_path):
    shared = nn.Conv2d(3, 3, 3, padding=1)
    model = check(nn.Sequential(shared, nn.ReLU(), shared), tmp_path / "net.onnx", (5, 5, 3))
    assert [t.name for t in model.graph.initializer] == ["0.weight", "0.bias"]


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, activation="relu6"), nn.AvgPool2d(2, divisor_override=3)).initialize()
    net.to(dtype=dtype)
    exchange.onnx.save(net, tmp_path / "net.onnx", (6, 6, 3))
    x = images(size=6, dtype=dtype)
    (y,), expected = exchange.onnx.load(tmp_path / "net.onnx")(first(x)), first(net(x))
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(dtype).eps)


def test_weights_of_another_backend(tmp_path):
    with xpconv.use_backend("array_api_strict"):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GlobalAvgPool()).initialize()
        exchange.onnx.save(net, tmp_path / "net.onnx", (6, 6, 3))
        expected = xpconv.to_numpy(net(xpconv.asarray(images(size=6))))
    y = exchange.onnx.load(tmp_path / "net.onnx")(first(images(size=6)))[0]
    np.testing.assert_allclose(y, first(expected), atol=1e-6)


def test_all_layers_without_a_form_are_named(tmp_path):
    net = nn.Sequential(
        nn.AdaptiveAvgPool2d(4),
        Twice(),
        Backwards(nn.ReLU()),
        Own(ops.local_response_norm, 2),
        Own(ops.dropout, 0.5, key=(0, 0)),
        nn.Conv2d(3, 2, 1),
    ).initialize()
    net(images())
    with pytest.raises(xpconv.FileError) as raised:
        exchange.onnx.save(net, tmp_path / "net.onnx", (5, 5, 3))
    lines = str(raised.value).splitlines()
    assert lines[0] == "onnx.save: 5 layers have no form in ONNX."
    with pytest.raises(xpconv.FileError, match=r"onnx\.save: 1 layer has no form in ONNX\."):
        exchange.onnx.save(Twice(), tmp_path / "net.onnx", (5, 5, 3))
    assert [line.split(":")[0].strip() for line in lines[1:6]] == [
        *("0 (AdaptiveAvgPool2d)", "1 (Twice)", "2 (Backwards)", "3 (Own)", "4 (Own)"),
    ]
    assert not list(tmp_path.iterdir())


def test_what_adds_a_residual_of_its_own_is_not_saved_without_it(tmp_path):
    class Plus(nn.Layer):
        """A layer whose op adds its input to the answer."""

        def __init__(self, op, shape):
            self.op, self.w = op, nn.Parameter(shape, nn.init.ones)

        def bind(self, x, training):
            """The op with x for its residual."""
            given = (None, self.w, self.w) if self.op is ops.batch_norm else ()
            return self.op, (x, self.w, *given), {"residual": x}

    layers = Plus(ops.conv, (1, 1, 3, 3)), Plus(ops.conv_transpose, (1, 1, 3, 3)), Plus(ops.batch_norm, (3,))
    net = nn.Sequential(*layers).initialize()
    with pytest.raises(xpconv.FileError) as raised:
        exchange.onnx.save(net, tmp_path / "net.onnx", (5, 5, 3))
    words = [line for line in str(raised.value).splitlines() if "with a residual of its own" in line]
    assert [line.split("(Plus): ")[1].split(" with")[0] for line in words] == [
        *("a convolution", "a transposed convolution", "a batch norm"),
    ]


def test_what_cannot_be_saved(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    with pytest.raises(TypeError, match="takes a network, not a int"):
        exchange.onnx.save(3, path, (5,))
    with pytest.raises(ValueError, match=r"not made yet: weight"):
        exchange.onnx.save(nn.Linear(None, 2), path, (5,))
    with pytest.raises(ValueError, match="w expects 4") as caught:
        exchange.onnx.save(nn.Linear(4, 2).initialize(), path, (5,))
    assert caught.value.__notes__ == ["in onnx.save(input_shape=(5,)), the shape of one example, (H, W, C)"]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"onnx.save: needs .*\n.*pip install 'xpconv\[onnx\]'"):
        exchange.onnx.save(nn.Linear(5, 2).initialize(), path, (5,))
    with pytest.raises(ImportError, match=r"onnx.load: needs .*\n.*pip install 'xpconv\[onnx\]'"):
        exchange.onnx.load(path)
    monkeypatch.undo()
    with pytest.raises(xpconv.FileError, match="one dtype"):
        exchange.onnx.save(nn.Linear(4, 2).initialize().to(dtype="complex64"), path, (4,))


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    net = nn.Linear(4, 2).initialize()
    exchange.onnx.save(net, path, (4,))
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        exchange.onnx.save(nn.Linear(4, 3).initialize(), path, (4,))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
