"""Weights from PyTorch: names, layouts, what was flattened, files, and everything that can be wrong with them."""

from __future__ import annotations

import builtins
import functools
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from nets import BACKENDS, on

import xpconv
from xpconv import FileError, exchange, nn, train


def net():
    return nn.Sequential(
        conv=nn.Conv2d(3, 4, 3, padding=1, activation="relu"),
        norm=nn.BatchNorm(4),
        flat=nn.Flatten(),
        fc=nn.Linear(None, 5),
    )


def weights(cells=6):
    """A state dict in PyTorch's layouts, with the counter that its batch norms have."""
    shapes = {
        "conv.weight": (4, 3, 3, 3),
        "conv.bias": (4,),
        "norm.weight": (4,),
        "norm.bias": (4,),
        "norm.running_mean": (4,),
        "norm.running_var": (4,),
        "fc.weight": (5, 4 * cells),
        "fc.bias": (5,),
    }
    rng = np.random.default_rng(0)
    arrays = {name: 1 + rng.random(shape) for name, shape in shapes.items()}
    return {**arrays, "norm.num_batches_tracked": np.asarray(3)}


# -- layouts -----------------------------------------------------------------------------------------------------------


def test_a_linear_layer_behind_a_flatten_reads_channels_last():
    ours = net()
    given = weights()
    assert exchange.load_torch(ours, given) == ([], [])
    np.testing.assert_array_equal(ours.conv.weight.value, exchange.to_hwio(given["conv.weight"]))
    seen = np.arange(4 * 2 * 3, dtype=float).reshape(1, 4, 2, 3)  # what arrives at the flatten, channels first
    expected = seen.reshape(1, -1) @ given["fc.weight"].T + given["fc.bias"]
    np.testing.assert_allclose(ours[2:](exchange.to_nhwc(seen)), expected)


def test_the_way_back_is_the_way_there(tmp_path):
    pytest.importorskip("torch")
    ours, given = net(), weights()
    exchange.load_torch(ours, given)
    del given["norm.num_batches_tracked"]
    back = exchange.to_torch_state(ours)
    assert list(back) == list(given)
    for name, value in given.items():
        np.testing.assert_array_equal(back[name].numpy(), value)
        assert back[name].is_contiguous()


def test_a_safetensors_file_of_bfloat16_is_read_as_float32(tmp_path):
    header = {
        "fc.weight": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]},
        "fc.bias": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    }
    text = json.dumps(header).encode()
    values = np.array([1.5, -2.0], "<f4").view("<u2")[1::2].tobytes() + np.array([0.25], "<f4").tobytes()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + values)
    head = nn.Sequential(fc=nn.Linear(2, 1))
    assert exchange.load_torch(head, tmp_path / "w.safetensors") == ([], [])
    assert head.fc.weight.value.dtype == "float32"
    assert [*head.fc.weight.value.ravel(), *head.fc.bias.value] == [1.5, -2.0, 0.25]


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_go_to_where_the_network_is(backend, tmp_path):
    given = {name: np.float32(x) for name, x in weights().items()}
    with on(backend):
        ours = net()
        exchange.load_torch(ours, given)
        assert type(ours.fc.weight.value) is type(xpconv.asarray([1.0]))
        exchange.save_torch(ours, tmp_path / "w.safetensors")
    here = net()
    exchange.load_torch(here, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(here.fc.weight.value, xpconv.to_numpy(ours.fc.weight.value))
    np.testing.assert_array_equal(exchange.to_oihw(here.conv.weight.value), given["conv.weight"])


def twins(torch):
    """Networks in both, with what they take."""
    t = torch.nn
    yield (
        nn.Sequential(nn.Conv1d(3, 4, 3, groups=1), nn.Flatten(), nn.Linear(None, 2)),
        t.Sequential(t.Conv1d(3, 4, 3), t.Flatten(), t.Linear(4 * 6, 2)),
        (2, 8, 3),
    )
    yield (
        nn.Sequential(nn.Conv3d(2, 4, 2, groups=2), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(None, 2)),
        t.Sequential(t.Conv3d(2, 4, 2, groups=2), t.MaxPool3d(2), t.Flatten(), t.Linear(4 * 8, 2)),
        (2, 5, 5, 5, 2),
    )
    yield (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.PReLU(6), nn.Flatten(), nn.Linear(None, 2)),
        t.Sequential(t.ConvTranspose2d(4, 6, 3, stride=2, groups=2), t.PReLU(6), t.Flatten(), t.Linear(6 * 63, 2)),
        (2, 3, 4, 4),
    )
    yield (  # norms and slopes over flattened features move with them, and activations and dropout let them be
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Flatten(), nn.BatchNorm(), nn.PReLU(None), nn.LayerNorm(), nn.ELU(), nn.Dropout(0.1),
            nn.Linear(None, 6), nn.ReLU(), nn.Linear(6, 2),
        ),
        t.Sequential(
            t.Conv2d(3, 4, 3), t.Flatten(), t.BatchNorm1d(24), t.PReLU(24), t.LayerNorm(24), t.ELU(), t.Dropout(0.1),
            t.Linear(24, 6), t.ReLU(), t.Linear(6, 2),
        ),
        (2, 4, 5, 3),
    )  # fmt: skip
    yield (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm((2, 3, 4)), nn.GroupNorm(2, 4), nn.GlobalAvgPool(),
                      nn.Flatten(), nn.Linear(4, 2)),
        t.Sequential(t.Conv2d(3, 4, 3), t.LayerNorm((4, 2, 3)), t.GroupNorm(2, 4), t.AdaptiveAvgPool2d(1),
                     t.Flatten(), t.Linear(4, 2)),
        (2, 4, 5, 3),
    )  # fmt: skip
    yield (
        nn.Sequential(
            nn.Pad(1, "reflect"), nn.Conv2d(3, 4, 3), nn.InstanceNorm(4, affine=True), nn.LocalResponseNorm(3, 0.5),
            nn.LpPool2d(2, 2), nn.Upsample(scale_factor=(2, 1.5), mode="bilinear"), nn.AdaptiveMaxPool2d(3),
            nn.Upsample(7), nn.Flatten(), nn.Linear(None, 5), nn.LogSoftmax(),
        ),
        t.Sequential(
            t.ReflectionPad2d(1), t.Conv2d(3, 4, 3), t.InstanceNorm2d(4, affine=True), t.LocalResponseNorm(3, 0.5),
            t.LPPool2d(2, 2), t.Upsample(scale_factor=(2, 1.5), mode="bilinear"), t.AdaptiveMaxPool2d(3),
            t.Upsample(7), t.Flatten(), t.Linear(4 * 49, 5), t.LogSoftmax(-1),
        ),
        (2, 8, 8, 3),
    )  # fmt: skip


@pytest.mark.parametrize("which", range(6))
def test_every_layer_gives_what_torch_gives(which):
    torch = pytest.importorskip("torch")
    ours, theirs, shape = list(twins(torch))[which]
    theirs = theirs.double().eval()
    generator = torch.Generator().manual_seed(which)
    state = {
        name: torch.rand(x.shape, generator=generator, dtype=torch.float64) + 0.1 if x.ndim else x
        for name, x in theirs.state_dict().items()
    }
    theirs.load_state_dict(state)
    exchange.load_torch(ours, state)
    x = np.random.default_rng(which).normal(size=shape)
    with torch.no_grad():
        expected = theirs(torch.tensor(exchange.to_nchw(x))).numpy()
    np.testing.assert_allclose(ours(x), expected, rtol=1e-10)
    theirs.load_state_dict(exchange.to_torch_state(ours))
    with torch.no_grad():
        np.testing.assert_allclose(theirs(torch.tensor(exchange.to_nchw(x))).numpy(), expected, rtol=1e-12)


def test_tensors_may_be_parameters_and_of_other_dtypes():
    torch = pytest.importorskip("torch")
    ours = nn.Sequential(fc=nn.Linear(2, 3)).initialize()
    given = {"fc.weight": torch.nn.Parameter(torch.ones(3, 2)), "fc.bias": torch.ones(3, dtype=torch.bfloat16)}
    exchange.load_torch(ours, given)
    assert ours.fc.bias.dtype == "float32"
    np.testing.assert_array_equal(ours.fc.weight.value, np.ones((2, 3)))


# -- names -------------------------------------------------------------------------------------------------------------


def block():
    body = nn.Sequential(conv=nn.Conv2d(2, 4, 1, bias=False), norm=nn.BatchNorm(4, affine=False))
    return nn.Sequential(stem=nn.Residual(body, nn.Conv2d(2, 4, 1, bias=False)))


def test_residual_blocks_go_by_both_names():
    mean, var = np.zeros(4), np.ones(4)
    w, s = np.ones((4, 2, 1, 1)), np.full((4, 2, 1, 1), 2.0)
    theirs = {"conv.weight": w, "norm.running_mean": mean, "norm.running_var": var, "downsample.weight": s}
    own = {"body.conv.weight": w, "body.norm.running_mean": mean, "body.norm.running_var": var, "shortcut.weight": s}
    for given in (theirs, own):
        ours = block()
        assert exchange.load_torch(ours, {f"stem.{name}": x for name, x in given.items()}) == ([], [])
        assert ours.stem.shortcut.weight.value[0, 0, 0, 0] == 2
        assert ours.stem.body.conv.weight.value[0, 0, 0, 0] == 1
    with pytest.raises(ValueError, match=r"stem\.body\.conv\.weight is unexpected"):
        exchange.load_torch(block(), {f"stem.{name}": x for name, x in {**theirs, "body.conv.weight": w}.items()})


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_changed():
    ours = net()
    exchange.load_torch(ours, weights())
    before = ours.state_dict()
    given = {**weights(), "fc.weight": np.ones((5, 25)), "conv.weight": np.ones((3, 3, 3, 4)), "extra": np.ones(2)}
    del given["norm.bias"]
    with pytest.raises(ValueError, match="load_torch: the weights are not this network's") as error:
        exchange.load_torch(ours, given)
    text = str(error.value)
    for line in (
        "conv.weight (3, 3, 3, 4) should be (4, 3, 3, 3)",
        "fc.weight (5, 25) should be (5, 24)",
        "norm.bias is missing",
        "extra is unexpected",
        "strict=False",
    ):
        assert line in text
    for name, value in ours.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_running_statistics_without_a_place_are_told_to_matter():
    theirs = {name: np.ones(4, "float32") for name in ("weight", "bias", "running_mean", "running_var")}
    with pytest.raises(ValueError, match="goes by running statistics there would answer otherwise"):
        exchange.load_torch(nn.InstanceNorm(4, affine=True), theirs)


def test_features_that_are_no_images():
    with pytest.raises(ValueError, match=r"fc\.weight \(5, 26\) is not for flattened images of 4 channels"):
        exchange.load_torch(net(), {**weights(), "fc.weight": np.ones((5, 26))})


def test_without_strictness_what_has_the_right_name_is_taken():
    ours = net().initialize()
    given = {"conv.bias": np.full(4, 7.0), "other": np.ones(1)}
    missing, unexpected = exchange.load_torch(ours, given, strict=False)
    assert "fc.weight" in missing
    assert "conv.bias" not in missing
    assert unexpected == ["other"]
    np.testing.assert_array_equal(ours.conv.bias.value, given["conv.bias"])
    with pytest.raises(ValueError, match=r"conv\.bias \(5,\) should be \(4,\)"):
        exchange.load_torch(ours, {"conv.bias": np.ones(5)}, strict=False)


def test_a_value_that_is_no_array_changes_nothing():
    ours = net().initialize()
    before = ours.conv.weight.version
    with pytest.raises(TypeError, match="imaginary"):
        exchange.load_torch(ours, {**weights(), "fc.bias": np.ones(5, complex)})
    with pytest.raises(TypeError, match="takes a network, not a dict"):
        exchange.load_torch({}, weights())
    assert ours.conv.weight.version == before


# -- what was flattened ------------------------------------------------------------------------------------------------


class Own(nn.Module):
    """A module of one's own: what it does to what comes in is its own affair."""

    def __init__(self, inner):
        self.inner = inner

    def vjp(self, x, training=True, needs_input=True):
        return self.inner.vjp(x, training=training, needs_input=needs_input)


UNCLEAR = {
    "behind a module of one's own": (nn.Sequential(Own(nn.ReLU()), nn.Flatten(), nn.Linear(8, 2, bias=False)), "2"),
    "inside one": (nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), Own(nn.Linear(8, 2, bias=False))), "1.inner"),
    "images of unknown channels": (nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False)), "1"),
    "joined with others": (
        nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Parallel(nn.Flatten(), nn.Flatten()), nn.Linear(8, 2, False)),
        "2",
    ),
    "added to others": (
        nn.Sequential(
            nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Residual(nn.Linear(8, 8, False)), nn.Linear(8, 2, False)
        ),
        "2.body",
    ),
    "grouped": (
        nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.GroupNorm(2, 8), nn.Linear(8, 2, False)),
        "2",
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_not_known_is_asked_for(case):
    ours, name = UNCLEAR[case]
    ours.initialize()
    before = {name: p.version for name, p in ours.parameters().items()}
    given = {
        name: np.ones(p.shape[::-1] if p.value.ndim != 4 else (2, 1, 1, 1)) for name, p in ours.parameters().items()
    }
    with pytest.raises(ValueError, match=rf"whether {name}(, 3)? sees flattened images.*is not known") as error:
        exchange.load_torch(ours, given)
    assert f"flattened={{'{name}':" in str(error.value)
    assert {name: p.version for name, p in ours.parameters().items()} == before


def test_what_is_told_is_believed():
    ours = nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False))
    given = {"1.weight": np.arange(16.0).reshape(2, 8)}
    exchange.load_torch(ours, given, flattened={"1": 1})
    np.testing.assert_array_equal(ours[1].weight.value, given["1.weight"].T)
    exchange.load_torch(ours, given, flattened={"1": 2})
    np.testing.assert_array_equal(ours[1].weight.value[:, 0], [0, 4, 1, 5, 2, 6, 3, 7])
    with pytest.raises(ValueError, match="is not for flattened images of 3 channels"):
        exchange.load_torch(ours, given, flattened={"1": 3})
    for wrong in ({"head": 2}, {"1": 0}, {"1": True}, {"1": "2"}):
        with pytest.raises(ValueError, match="flattened names layers of the network, with channels of at least 1"):
            exchange.load_torch(ours, given, flattened=wrong)


def test_what_is_not_among_the_weights_is_not_asked_for():
    ours = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), Own(nn.Linear(8, 2)))
    missing, _ = exchange.load_torch(ours, {"0.weight": np.ones((2, 1, 1, 1))}, strict=False)
    assert missing == ["1.inner.weight", "1.inner.bias"]


def test_a_linear_layer_over_the_channels_of_images_stays_as_it_is():
    ours = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2, 3, bias=False))
    w = np.arange(6.0).reshape(3, 2)
    exchange.load_torch(ours, {"0.weight": np.ones((2, 1, 1, 1)), "1.weight": w})
    np.testing.assert_array_equal(ours[1].weight.value, w.T)


def test_channels_add_up_side_by_side():
    branches = nn.Parallel(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False))
    ours = nn.Sequential(branches, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(None, 2, bias=False))
    given = {"0.0.weight": np.ones((2, 1, 1, 1)), "0.1.weight": np.ones((1, 1, 1, 1)), "3.weight": np.ones((2, 12))}
    given["3.weight"][0] = np.arange(12)
    exchange.load_torch(ours, given)
    np.testing.assert_array_equal(ours[3].weight.value[:, 0], np.arange(12).reshape(3, 4).T.ravel())


def test_a_slope_that_all_features_share_stays_as_it_is():
    ours = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.PReLU(), nn.Linear(None, 2, bias=False))
    given = {"0.weight": np.ones((2, 1, 1, 1)), "2.weight": np.ones(1), "3.weight": np.arange(8.0).reshape(2, 4)}
    assert exchange.load_torch(ours, given) == ([], [])
    np.testing.assert_array_equal(ours[3].weight.value[:, 0], [0, 2, 1, 3])


def test_a_shared_layer_must_see_the_same_everywhere():
    shared = nn.Linear(4, 4, bias=False)
    ours = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), shared, shared)
    with pytest.raises(ValueError, match="whether 2 sees flattened images"):
        exchange.load_torch(ours, {"0.weight": np.ones((2, 1, 1, 1)), "2.weight": np.ones((4, 4))})


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_files_of_torch(ending, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / f"weights{ending}"
    given = weights()
    torch.save({name: torch.tensor(x) for name, x in given.items()}, path)
    ours = net()
    assert exchange.load_torch(ours, path) == ([], [])
    np.testing.assert_array_equal(ours.fc.bias.value, given["fc.bias"])


@pytest.mark.parametrize("flipped", [False, True])
def test_a_byte_of_a_torch_file_that_was_flipped_is_told(flipped, tmp_path):
    torch = pytest.importorskip("torch")
    path, ours = tmp_path / "w.pt", nn.Sequential(fc=nn.Linear(64, 64)).initialize()
    torch.save({name: torch.ones(n) for name, n in {"fc.weight": (64, 64), "fc.bias": 64}.items()}, path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x40 * flipped
    path.write_bytes(raw)
    if not flipped:
        assert exchange.load_torch(ours, path) == ([], [])
        return
    with pytest.raises(
        FileError, match=r"the file is damaged: it no longer holds .*\n  Bad CRC-32 for file 'w/data/0'"
    ):
        exchange.load_torch(ours, path)


def test_a_torch_file_that_was_written_without_checksums_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}, tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    ours = nn.Sequential(fc=nn.Linear(3, 2))
    assert exchange.load_torch(ours, tmp_path / "w.pt") == ([], [])


def test_files_in_the_layout_of_this_package_are_not_read_as_pytorchs(tmp_path):
    """A square layer would take the weights of either, turned."""
    ours, path = nn.Sequential(fc=nn.Linear(3, 3)).initialize(), tmp_path / "w.safetensors"
    xpconv.save(ours, path)
    with pytest.raises(FileError, match=r"this is xpconv's own file, .*\n  net = xpconv\.load\('.*w\.safetensors'\)"):
        exchange.load_torch(ours, path)
    kept = train.Checkpoint(path)
    train.fit(ours, (np.ones((2, 3), "f4"), [0, 1]), epochs=1, batch_size=2, checkpoint=kept, progress=False)
    for read in (functools.partial(exchange.load_torch, ours), xpconv.load):
        with pytest.raises(FileError, match=r"a training checkpoint.*\n.* the arrays whose names begin with 'net\.'"):
            read(path)


@pytest.mark.parametrize(
    ("renamed", "said"),
    [
        (lambda state: {"model." + name: x for name, x in state.items()}, r"drop 'model\.' from them"),
        (
            lambda state: {"net.body." + name: x for name, x in state.items()} | {"head": np.ones(1)},
            r"drop 'net\.body\.'",
        ),
        (lambda state: {name.removeprefix("fc."): x for name, x in state.items()}, r"put 'fc\.' before them"),
        (lambda state: {"epoch": 3, "state_dict": state}, r"pass the dict that 'state_dict' holds"),
        (lambda state: {"other": np.ones(1)}, r"given: other · wanted: fc\.weight, fc\.bias$"),
    ],
)
@pytest.mark.parametrize("load", [exchange.load_torch, nn.Module.load_state_dict])
def test_a_state_of_which_nothing_is_taken_is_told_of(renamed, said, load):
    net = nn.Sequential(fc=nn.Linear(2, 2)).initialize(0)
    state = renamed(net.state_dict())
    with pytest.warns(RuntimeWarning, match=said) as told:
        assert len(load(net, state, strict=False)[0]) == 2
    assert told[0].filename == __file__
    if "given" not in said:
        with pytest.raises(ValueError, match=said):
            load(net, state)


def test_the_state_of_a_pytorch_module_goes_another_way():
    t = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"(?s)state of a PyTorch module.*exchange\.load_torch"):
        nn.Linear(3, 3).load_state_dict(t.nn.Linear(3, 3).state_dict())


def test_a_state_is_no_path():
    with pytest.raises(TypeError, match=r"(?s)takes a dict of arrays\..*given: a str.*xpconv\.load\(path\)"):
        nn.Sequential(nn.Linear(2, 2)).load_state_dict("net.safetensors")


def test_a_word_before_all_names_is_told_and_open_sizes_take_any():
    ours = nn.Sequential(fc=nn.Linear(None, 2))
    given = {"fc.weight": np.ones((3, 4)), "fc.bias": np.ones(2)}
    with pytest.raises(ValueError, match=r"drop 'module\.' from them: {name\.removeprefix"):
        exchange.load_torch(ours, {f"module.{name}": x for name, x in given.items()})
    with pytest.raises(ValueError, match=r"fc\.weight \(3, 4\) should be \(2, any\)"):
        exchange.load_torch(ours, given)
    for load in (exchange.load_torch, exchange.load_keras, nn.Module.load_state_dict):
        with pytest.raises(TypeError, match="strict must be True or False"):
            load(ours, {}, strict="False")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the file was run')",))


def test_a_file_that_would_run_something_is_refused_unrun(tmp_path):
    torch = pytest.importorskip("torch")
    new, old = tmp_path / "new.pt", tmp_path / "old.pth"
    torch.save({"fc.weight": Bomb()}, new)
    old.write_bytes(pickle.dumps({"fc.weight": Bomb()}))
    for path in (new, old):
        with pytest.raises(FileError, match="damaged, or holds more than tensors") as error:
            exchange.load_torch(net(), path)
        assert str(path) in str(error.value)


def test_files_of_something_else(tmp_path):
    torch = pytest.importorskip("torch")
    checkpoint, model = tmp_path / "checkpoint.pt", tmp_path / "tensor.pt"
    torch.save({"epoch": 3, "state_dict": {"fc.weight": torch.ones(2)}}, checkpoint)
    torch.save(torch.ones(3), model)
    with pytest.raises(FileError, match="holds no dict of tensors") as error:
        exchange.load_torch(net(), checkpoint)
    assert "epoch, state_dict" in str(error.value)
    with pytest.raises(FileError, match="a Tensor"):
        exchange.load_torch(net(), model)
    (tmp_path / "cut.pt").write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(FileError, match="damaged"):
        exchange.load_torch(net(), tmp_path / "cut.pt")


def test_paths_that_cannot_be(tmp_path):
    with pytest.raises(FileError, match=r"weights are read from \.safetensors files"):
        exchange.load_torch(net(), tmp_path / "weights.onnx")
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(FileNotFoundError):
            exchange.load_torch(net(), tmp_path / name)


def test_without_torch_its_own_files_cannot_be_read(tmp_path, monkeypatch):
    found = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return found(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", absent)
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ImportError, match="needs PyTorch") as error:
        exchange.load_torch(net(), tmp_path / "w.pt")
    assert "pip install torch" in str(error.value)
    assert ".safetensors" in str(error.value)


def test_a_sum_of_flattened_images_and_what_a_linear_layer_gives_is_asked_about():
    block = nn.Residual(nn.Sequential(fc=nn.Linear(8, 8)))
    ours = nn.Sequential(pool=nn.AdaptiveAvgPool2d(1), conv=nn.Conv2d(8, 8, 1), flat=nn.Flatten(), block=block)
    given = {"conv.weight": np.ones((8, 8, 1, 1)), "conv.bias": np.ones(8), "block.fc.bias": np.ones(8)}
    given["block.fc.weight"] = np.arange(64.0).reshape(8, 8)
    with pytest.raises(ValueError, match=r"whether block\.body\.fc sees flattened images"):
        exchange.load_torch(ours, given)
    assert exchange.load_torch(ours, given, flattened={"block.body.fc": 1}) == ([], [])
    np.testing.assert_array_equal(block.body.fc.weight.value, given["block.fc.weight"].T)


@pytest.mark.parametrize("case", ["joined with others", "added to others", "grouped"])
def test_no_number_of_channels_brings_mixed_features_over(case):
    """A turned Linear would give what it is added to in another order: loaded, it would answer wrongly."""
    ours, name = UNCLEAR[case]
    arrays = {key: np.ones(1) for key in ours.initialize().parameters()}
    with pytest.raises(ValueError, match=rf"{name} works on features of flattened images mixed with others"):
        exchange.load_torch(ours, arrays, flattened={name: 2})


def test_images_that_a_module_of_ones_own_adds_to_may_still_be_flattened():
    ours = nn.Sequential(nn.Residual(Own(nn.Identity())), nn.Flatten(), nn.Linear(8, 2, bias=False)).initialize()
    theirs = np.arange(16.0).reshape(2, 8)
    assert exchange.load_torch(ours, {"2.weight": theirs}, flattened={"2": 2}) == ([], [])
    expected = theirs.reshape(2, 2, 4).transpose(2, 1, 0).reshape(8, 2)
    np.testing.assert_array_equal(ours.parameters()["2.weight"].value, expected)


def test_layers_that_would_come_to_one_name_keep_their_own(tmp_path):
    def block(seed):
        body = nn.Sequential(downsample=nn.Conv2d(2, 2, 1, bias=False))
        return nn.Sequential(a=nn.Residual(body, nn.Conv2d(2, 2, 1, bias=False))).initialize(seed)

    ours, again = block(0), block(1)
    exchange.save_torch(ours, tmp_path / "w.safetensors")
    assert exchange.load_torch(again, tmp_path / "w.safetensors") == ([], [])
    for name, parameter in ours.parameters().items():
        np.testing.assert_array_equal(again.parameters()[name].value, parameter.value)


def test_a_torch_that_a_file_could_make_run_code_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda name: SimpleNamespace(__version__="2.5.1+cpu"))
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ImportError, match=r"before version 2\.6 PyTorch could be made to run code") as error:
        exchange.load_torch(net(), tmp_path / "w.pt")
    assert "2.5.1+cpu" in str(error.value)


def test_what_is_not_made_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"save_torch: .* not made yet: fc\.weight"):
        exchange.save_torch(net().initialize(), tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_safetensors_format_is_read_under_pytorchs_endings_and_not_written(tmp_path):
    ours = nn.Sequential(fc=nn.Linear(3, 2)).initialize()
    with pytest.raises(ValueError, match=r"(?s)save_torch: writes \.safetensors files.*w\.pt.*to_torch_state"):
        exchange.save_torch(ours, tmp_path / "w.pt")
    assert not list(tmp_path.iterdir())
    exchange.save_torch(ours, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").rename(tmp_path / "w.pt")
    again = nn.Sequential(fc=nn.Linear(3, 2)).initialize(seed=1)
    assert exchange.load_torch(again, tmp_path / "w.pt") == ([], [])
    np.testing.assert_array_equal(again.fc.weight.value, ours.fc.weight.value)


def test_what_is_neither_weights_nor_a_path_is_told():
    with pytest.raises(TypeError, match=r"(?s)load_torch: takes a dict.*given: a Linear.*model\.state_dict\(\)"):
        exchange.load_torch(net(), nn.Linear(2, 2))  # which has a state_dict() as PyTorch's modules do
    with pytest.raises(TypeError, match="given: a int"):
        exchange.load_torch(net(), 3)
