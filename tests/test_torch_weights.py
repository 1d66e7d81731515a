"""Weights from PyTorch: names and layouts, and everything that can be wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
from nets import BACKENDS, on
from torch_weights import net, weights

import xpconv
from xpconv import exchange, nn


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


def test_layers_that_would_come_to_one_name_keep_their_own(tmp_path):
    def block(seed):
        body = nn.Sequential(downsample=nn.Conv2d(2, 2, 1, bias=False))
        return nn.Sequential(a=nn.Residual(body, nn.Conv2d(2, 2, 1, bias=False))).initialize(seed)

    ours, again = block(0), block(1)
    exchange.save_torch(ours, tmp_path / "w.safetensors")
    assert exchange.load_torch(again, tmp_path / "w.safetensors") == ([], [])
    for name, parameter in ours.parameters().items():
        np.testing.assert_array_equal(again.parameters()[name].value, parameter.value)


def test_what_is_neither_weights_nor_a_path_is_told():
    with pytest.raises(TypeError, match=r"(?s)load_torch: takes a dict.*given: a Linear.*model\.state_dict\(\)"):
        exchange.load_torch(net(), nn.Linear(2, 2))  # which has a state_dict() as PyTorch's modules do
    with pytest.raises(TypeError, match="given: a int"):
        exchange.load_torch(net(), 3)
