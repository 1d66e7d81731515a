"""Layers that are run together give the answers that they give one by one, and are joined only where they do."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from joined import RNG, Doubled, X, calls_of, one_by_one, settled

import xpconv
from xpconv import nn, ops
from xpconv.nn import fusion

NETS = {
    "conv, norm": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm(6)),
    "conv without bias, norm with activation": lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm(6, activation="relu")
    ),
    "conv, norm, activation layer": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm(6), nn.SiLU()),
    "conv, norm without scale": lambda: nn.Sequential(nn.Conv2d(4, 6, (2, 3)), nn.BatchNorm(6, affine=False)),
    "grouped conv, norm": lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm(8)),
    "depthwise conv, norm, activation": lambda: nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm(4), nn.ReLU6()
    ),
    "conv, activation layer": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.Tanh(), nn.GlobalAvgPool()),
    "residual, norm": lambda: nn.Residual(
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm(4)), activation="relu"
    ),
    "residual, conv": lambda: nn.Residual(nn.Conv2d(4, 4, 3, padding=1), activation="silu"),
    "residual with a shortcut": lambda: nn.Residual(
        nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(5, 6, 1)),
        nn.Conv2d(4, 6, 1, stride=2),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETS)
def test_joined_layers_give_what_they_give_one_by_one(name, dtype, monkeypatch):
    net, x = settled(NETS[name](), dtype), X.astype(dtype)
    wide = copy.deepcopy(net).to(dtype="float64")
    truth = one_by_one(wide, X.astype(dtype).astype("float64"))
    u = np.finfo(dtype).eps
    for engine in ("auto", "portable"):
        with xpconv.use_engine(engine):
            np.testing.assert_allclose(net(x), truth, rtol=0, atol=40 * u * np.abs(truth).max())
    asked = calls_of(lambda: net(x), monkeypatch)
    convolutions = sum(isinstance(module, nn.conv.Conv) for module in net.modules().values())
    assert asked.count("conv_fprop") == convolutions
    assert not {"batch_norm", "relu", "relu6", "silu", "tanh"} & set(asked)


def folds(monkeypatch):
    """Count how often weights are folded: each fold makes two parameters."""
    made = []
    real = fusion.Parameter
    monkeypatch.setattr(fusion, "Parameter", lambda value: made.append(0) or real(value))
    return made


def test_weights_are_folded_once_and_again_when_anything_changes(monkeypatch):
    made = folds(monkeypatch)
    net, x = settled(NETS["conv, norm"]()), X.astype("float32")
    net(x), net(x)
    assert len(made) == 2
    changes = [state for name, state in {**net.parameters(), **net.buffers()}.items()]
    assert len(changes) == 6
    for count, state in enumerate(changes, 2):
        state.assign(np.abs(state.value) + 0.5)
        np.testing.assert_allclose(net(x), one_by_one(net, x), rtol=1e-4, atol=1e-5)
        assert len(made) == 2 * count
    net.vjp(x)  # moves the running statistics
    net(x)
    assert len(made) == 2 * (len(changes) + 2)


def test_packed_weights_of_a_folded_convolution_are_kept_too():
    net, x = settled(nn.Sequential(nn.Conv2d(4, 64, 3), nn.BatchNorm(64))), X.astype("float32")
    net(x)
    weight = fusion._joined(net[0], net[1]).weight
    place = weight.packed
    net(x)
    assert fusion._joined(net[0], net[1]).weight is weight
    assert weight.packed is place


def test_one_convolution_before_two_norms_is_folded_for_each():
    conv = nn.Conv2d(4, 6, 3)
    left, right = (settled(nn.Sequential(conv, nn.BatchNorm(6))) for _ in range(2))
    x = X.astype("float32")
    for net in (left, right, left):
        np.testing.assert_allclose(net(x), one_by_one(net, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NETS if "norm" in name])
def test_half_precision_applies_its_norms_to_sums_that_are_not_rounded(name, monkeypatch):
    """Within half an ulp of what float64 makes of the same numbers; one by one, the convolution is rounded too."""
    net, x = settled(NETS[name](), "float16"), X.astype("float16")
    truth = one_by_one(copy.deepcopy(net).to(dtype="float64"), x.astype("float64"))
    half_ulp = np.maximum(2.0**-11 * np.abs(truth), 2.0**-25) + 40 * 2.0**-24 * np.abs(truth).max()
    for engine in ("auto", "portable", "reference"):
        with xpconv.use_engine(engine):
            y = net(x)
        assert y.dtype == np.float16
        assert (np.abs(y - truth) <= half_ulp).all()
    assert (np.abs(one_by_one(net, x) - truth) > half_ulp).any()
    assert set(calls_of(lambda: net(x), monkeypatch)) == {"conv_fprop"}


def test_half_precision_on_another_library():
    pytest.importorskip("torch")
    net = settled(NETS["conv, norm, activation layer"]()).to(backend="torch", dtype="bfloat16")
    x = xpconv.backend.get("torch").asarray(X, "bfloat16")
    y, apart = net(x), one_by_one(net, x)
    assert str(y.dtype) == "torch.bfloat16"
    np.testing.assert_allclose(xpconv.to_numpy(y), xpconv.to_numpy(apart), rtol=2**-6, atol=2**-5)


def test_half_precision_sees_every_change_and_keeps_no_weights_of_its_own(monkeypatch):
    made = folds(monkeypatch)
    net, x = settled(NETS["conv, norm"](), "float16"), X.astype("float16")
    net(x), net(x)
    assert len(made) == 2
    assert fusion._joined(net[0], net[1]).weight is net[0].weight
    for state in (*net.parameters().values(), *net.buffers().values()):
        before = net(x)
        state.assign(np.abs(state.value) * 2 + state.value.dtype.type(0.5))
        assert not np.array_equal(net(x), before)
        np.testing.assert_allclose(net(x), one_by_one(net, x), rtol=1e-2, atol=2e-2)
    before = net(x)
    net.vjp(x)  # moves the running statistics
    assert not np.array_equal(net(x), before)
    assert len(made) == 2 * 8


def test_half_precision_trains_with_norms_of_their_own(monkeypatch):
    net, x = settled(NETS["conv, norm, activation layer"](), "float16"), X.astype("float16")
    assert calls_of(lambda: net.vjp(x), monkeypatch) == ["conv_fprop", "batch_norm", "silu"]


def test_half_precision_beside_a_norm_of_single_precision_still_raises_what_it_raises():
    net, x = settled(NETS["conv, norm"](), "float16"), X.astype("float16")
    net[1].to(dtype="float32")
    with pytest.raises(TypeError, match="dtype"):
        net(x)


class Halved(nn.BatchNorm):
    """Likewise."""

    def __call__(self, x):
        """Half the norm."""
        return super().__call__(x) / 2


@pytest.mark.parametrize("layers", [(Doubled(4, 6, 3), nn.BatchNorm(6)), (nn.Conv2d(4, 6, 3), Halved(6))])
def test_layers_of_ones_own_run_as_they_are(layers):
    conv, norm = layers
    settled(nn.Sequential(conv, norm))
    net, x = nn.Sequential(conv, norm), X.astype("float32")
    assert np.array_equal(net(x), norm(conv(x)))


def test_residual_of_a_layer_of_ones_own_runs_it():
    net, x = settled(nn.Residual(Doubled(4, 4, 3, padding=1), activation="relu")), X.astype("float32")
    assert np.array_equal(net(x), np.maximum(net.body(x) + x, 0))


def test_a_norm_of_other_channels_still_raises_what_it_raises():
    net = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm(5)).initialize()
    with pytest.raises(ValueError, match="BatchNorm: is made for an x whose last axes are"):
        net(X.astype("float32"))


def test_summary_shows_every_layer_also_after_inference():
    net = settled(NETS["conv, norm, activation layer"]())
    net(X.astype("float32"))
    assert [row.layer for row in net.summary((9, 8, 4)).rows] == ["Conv2d", "BatchNorm", "SiLU"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_summary_tells_what_is_computed_in_a_convolutions_pass(dtype):
    net = nn.Sequential(
        stem=nn.Sequential(conv=nn.Conv2d(None, 4, 3, padding=1), norm=nn.BatchNorm(None), act=nn.SiLU()),
        block=nn.Residual(nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1)), nn.BatchNorm(4)), activation="relu"),
        pool=nn.MaxPool2d(2),
        act=nn.ReLU(),
        own=Doubled(4, 4, 1),
        norm=nn.BatchNorm(4),
    ).to(dtype=dtype)
    summary = net.summary((8, 8, 3))
    assert {row.name: row.joins for row in summary.rows if row.joins} == {
        "stem.norm": "stem.conv",
        "stem.act": "stem.conv",
        "block.body.1": "block.body.0.0",
    }
    lines = str(summary).splitlines()
    assert lines[4].split()[:3] == ["stem.norm", "BatchNorm", "conv"]


def test_the_first_input_makes_what_was_left_open():
    net = nn.Residual(nn.Sequential(nn.Conv2d(None, 4, 3, padding=1), nn.BatchNorm(None)), activation="relu")
    x = X.astype("float32")
    np.testing.assert_allclose(net(x), net(x), rtol=1e-5, atol=1e-5)


def test_relu_in_half_precision_gives_the_gradients_of_single_precision(monkeypatch):
    """A rectifier's slope shows in its rounded output, so that half precision needs no copies in float32."""
    x, w, b = (RNG.standard_normal(shape).astype("float16") for shape in ((2, 6, 5, 4), (3, 3, 4, 8), (8,)))
    y, pullback = xpconv.vjp(ops.conv, x, w, b, activation="relu")
    dy = RNG.standard_normal(y.shape).astype("float16")
    wide_y, wide_pullback = xpconv.vjp(ops.conv, *(a.astype("float32") for a in (x, w, b)), activation="relu")
    assert np.array_equal(y, wide_y.astype("float16"))
    for narrow, wide in zip(pullback(dy), wide_pullback(dy.astype("float32")), strict=True):
        assert narrow.dtype == np.float16
        np.testing.assert_allclose(narrow, wide, rtol=2**-10, atol=1e-4)
    dtypes = set()
    calls_of(lambda: xpconv.vjp(ops.conv, x, w, b, activation="relu")[1](dy), monkeypatch, dtypes)
    assert dtypes == {"float16"}


def test_what_runs_together_is_found_anew_after_every_change():
    class Listed(nn.Sequential):
        """Its children are also in a list, which changes without an attribute being set."""

        def __init__(self) -> None:
            self.more = [nn.ReLU()]

        def __eq__(self, other: object) -> bool:  # and so has no hash
            return self is other

    x = np.random.default_rng(0).standard_normal((2, 6, 6, 3), dtype="float32")
    inner = nn.Sequential(nn.Conv2d(3, 3, 1, activation="relu"), nn.Conv2d(3, 3, 1))
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Identity(), nn.Residual(inner), Listed()).initialize(seed=0)
    changes = (
        lambda: None,
        lambda: setattr(net[0], "activation", "tanh"),
        lambda: net.__setitem__(1, nn.Sigmoid()),
        lambda: inner.__setitem__(1, nn.Conv2d(3, 3, 1, activation="sigmoid").initialize(seed=1)),
        lambda: net[3].more.append(nn.Sigmoid()),
        lambda: net[3].more.pop(0),
    )
    for change in changes:
        change()
        for _ in range(2):
            middle = net[1](net[0](x))
            expected = middle + inner[1](inner[0](middle))
            for layer in net[3].more:
                expected = layer(expected)
            np.testing.assert_allclose(net(x), expected, rtol=1e-5, atol=1e-6)
