"""Each layer: that it applies its op, what it reads from the first input, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import xpconv
from xpconv import nn, ops

RNG = np.random.default_rng(5)
IMAGES = RNG.normal(size=(2, 7, 6, 4))
SIGNAL = RNG.normal(size=(2, 9, 4))
VOLUME = RNG.normal(size=(2, 5, 4, 6, 4))
ROWS = RNG.normal(size=(3, 8))


def w(*shape):
    return RNG.normal(size=shape)


# layer, input, state, op, the op's arguments after x, its options
CASES = {
    "conv1d causal": (
        nn.Conv1d(4, 3, 3, padding="causal", dilation=2),
        SIGNAL,
        {"weight": w(3, 4, 3), "bias": w(3)},
        ops.conv,
        ("weight", "bias"),
        {"padding": "causal", "dilation": 2},
    ),
    "conv2d": (
        nn.Conv2d(4, 6, (3, 2), stride=2, padding=((1, 0), (0, 2)), groups=2, activation="silu"),
        IMAGES,
        {"weight": w(3, 2, 2, 6), "bias": w(6)},
        ops.conv,
        ("weight", "bias"),
        {"stride": 2, "padding": ((1, 0), (0, 2)), "groups": 2, "activation": "silu"},
    ),
    "conv2d list": (
        nn.Conv2d(4, 6, [3, 3], [1, 2], [1, 1], bias=False),
        IMAGES,
        {"weight": w(3, 3, 4, 6)},
        ops.conv,
        ("weight",),
        {"stride": (1, 2), "padding": 1},
    ),
    "conv3d": (
        nn.Conv3d(None, 2, 2, padding="same"),
        VOLUME,
        {"weight": w(2, 2, 2, 4, 2), "bias": w(2)},
        ops.conv,
        ("weight", "bias"),
        {"padding": "same"},
    ),
    "transposed 1d": (
        nn.ConvTranspose1d(4, 2, 3, 2, 1, 1),
        SIGNAL,
        {"weight": w(3, 2, 4), "bias": w(2)},
        ops.conv_transpose,
        ("weight", "bias"),
        {"stride": 2, "padding": 1, "output_padding": 1},
    ),
    "transposed 2d": (
        nn.ConvTranspose2d(None, 6, 3, stride=2, groups=2, bias=False, dilation=2),
        IMAGES,
        {"weight": w(3, 3, 3, 4)},
        ops.conv_transpose,
        ("weight",),
        {"stride": 2, "groups": 2, "dilation": 2},
    ),
    "transposed 3d": (
        nn.ConvTranspose3d(4, 2, 2),
        VOLUME,
        {"weight": w(2, 2, 2, 2, 4), "bias": w(2)},
        ops.conv_transpose,
        ("weight", "bias"),
        {},
    ),
    "max pool 1d": (nn.MaxPool1d(3, 2, 1), SIGNAL, {}, ops.max_pool, (3,), {"stride": 2, "padding": 1}),
    "max pool 2d": (
        nn.MaxPool2d(2, ceil_mode=True, ties="all"),
        IMAGES,
        {},
        ops.max_pool,
        (2,),
        {"ceil_mode": True, "ties": "all"},
    ),
    "max pool 3d": (nn.MaxPool3d(2, 1, dilation=2), VOLUME, {}, ops.max_pool, (2,), {"stride": 1, "dilation": 2}),
    "avg pool 1d": (nn.AvgPool1d(2), SIGNAL, {}, ops.avg_pool, (2,), {}),
    "avg pool 2d": (
        nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True),
        IMAGES,
        {},
        ops.avg_pool,
        (3,),
        {"stride": 2, "padding": 1, "count_include_pad": False, "ceil_mode": True},
    ),
    "avg pool 3d": (nn.AvgPool3d(2, divisor_override=3), VOLUME, {}, ops.avg_pool, (2,), {"divisor": 3}),
    "adaptive": (nn.AdaptiveAvgPool2d((3, 2)), IMAGES, {}, ops.adaptive_avg_pool, ((3, 2),), {}),
    "adaptive max": (nn.AdaptiveMaxPool2d((3, 2)), IMAGES, {}, ops.adaptive_max_pool, ((3, 2),), {}),
    "adaptive 1d": (nn.AdaptiveAvgPool1d(2), SIGNAL, {}, ops.adaptive_avg_pool, (2,), {}),
    "adaptive 3d": (nn.AdaptiveAvgPool3d(2), VOLUME, {}, ops.adaptive_avg_pool, (2,), {}),
    "adaptive max 1d": (nn.AdaptiveMaxPool1d(2), SIGNAL, {}, ops.adaptive_max_pool, (2,), {}),
    "adaptive max 3d": (nn.AdaptiveMaxPool3d(2), VOLUME, {}, ops.adaptive_max_pool, (2,), {}),
    "lp pool 1d": (nn.LpPool1d(3, 2, 1), SIGNAL, {}, ops.lp_pool, (2,), {"p": 3, "stride": 1}),
    "lp pool 2d": (
        nn.LpPool2d(2, 3, 2, 1, ceil_mode=True),
        IMAGES,
        {},
        ops.lp_pool,
        (3,),
        {"p": 2, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    "lp pool 3d": (nn.LpPool3d(2, 2), VOLUME, {}, ops.lp_pool, (2,), {}),
    "global max": (nn.GlobalMaxPool(), VOLUME, {}, ops.global_max_pool, (), {}),
    "upsample": (nn.Upsample(scale_factor=2), SIGNAL, {}, ops.resize, (18,), {}),
    "upsample to a size": (
        nn.Upsample((4, 9), mode="bilinear", align_corners=True),
        IMAGES,
        {},
        ops.resize,
        ((4, 9),),
        {"mode": "bilinear", "align_corners": True},
    ),
    "upsample by factors": (
        nn.Upsample(scale_factor=(1.5, 0.7), mode="nearest-exact"),
        IMAGES,
        {},
        ops.resize,
        ((10, 4),),
        {"mode": "nearest-exact"},
    ),
    "pad": (nn.Pad(1, value=0.5), VOLUME, {}, ops.pad, (1,), {"value": 0.5}),
    "pad by axis": (nn.Pad(((1, 0), (2, 2)), "reflect"), IMAGES, {}, ops.pad, (((1, 0), (2, 2)),), {"mode": "reflect"}),
    "global": (nn.GlobalAvgPool(), VOLUME, {}, ops.global_avg_pool, (), {}),
    "linear": (
        nn.Linear(8, 5, activation="relu"),
        ROWS,
        {"weight": w(8, 5), "bias": w(5)},
        ops.linear,
        ("weight", "bias"),
        {"activation": "relu"},
    ),
    "layer norm": (
        nn.LayerNorm(None, eps=1e-3),
        IMAGES,
        {"weight": w(4), "bias": w(4)},
        ops.layer_norm,
        ("weight", "bias"),
        {"eps": 1e-3},
    ),
    "layer norm over axes": (
        nn.LayerNorm((6, 4)),
        IMAGES,
        {"weight": w(6, 4), "bias": w(6, 4)},
        ops.layer_norm,
        ("weight", "bias"),
        {"axes": (-2, -1)},
    ),
    "layer norm without parameters": (nn.LayerNorm(4, elementwise_affine=False), IMAGES, {}, ops.layer_norm, (), {}),
    "group norm": (
        nn.GroupNorm(2),
        IMAGES,
        {"weight": w(4), "bias": w(4)},
        ops.group_norm,
        (2, "weight", "bias"),
        {},
    ),
    "instance norm": (
        nn.InstanceNorm(affine=True),
        IMAGES,
        {"weight": w(4), "bias": w(4)},
        ops.instance_norm,
        ("weight", "bias"),
        {},
    ),
    "instance norm bare": (nn.InstanceNorm(4, eps=0.1), SIGNAL, {}, ops.instance_norm, (), {"eps": 0.1}),
    "response norm": (nn.LocalResponseNorm(3, alpha=0.1), IMAGES, {}, ops.local_response_norm, (3,), {"alpha": 0.1}),
    "relu": (nn.ReLU(), ROWS, {}, ops.relu, (), {}),
    "relu6": (nn.ReLU6(), 4 * ROWS, {}, ops.relu6, (), {}),
    "silu": (nn.SiLU(), ROWS, {}, ops.silu, (), {}),
    "sigmoid": (nn.Sigmoid(), ROWS, {}, ops.sigmoid, (), {}),
    "tanh": (nn.Tanh(), ROWS, {}, ops.tanh, (), {}),
    "softplus": (nn.Softplus(), ROWS, {}, ops.softplus, (), {}),
    "hard swish": (nn.HardSwish(), ROWS, {}, ops.hard_swish, (), {}),
    "hard sigmoid": (nn.HardSigmoid(), ROWS, {}, ops.hard_sigmoid, (), {}),
    "leaky relu": (nn.LeakyReLU(0.2), ROWS, {}, ops.leaky_relu, (0.2,), {}),
    "prelu": (nn.PReLU(None), ROWS, {"weight": w(8)}, ops.prelu, ("weight",), {}),
    "elu": (nn.ELU(0.7), ROWS, {}, ops.elu, (0.7,), {}),
    "gelu": (nn.GELU("tanh"), ROWS, {}, ops.gelu, (), {"approximate": "tanh"}),
    "log softmax": (nn.LogSoftmax(0), ROWS, {}, ops.log_softmax, (), {"axis": 0}),
    "softmax": (nn.Softmax(0), ROWS, {}, ops.softmax, (), {"axis": 0}),
}
cases = pytest.mark.parametrize(("layer", "x", "state", "op", "args", "options"), CASES.values(), ids=CASES)


@cases
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_is_its_op(layer, x, state, op, args, options, training):
    layer.load_state_dict(state)
    y, pullback = layer.vjp(x, training=training)
    given = [state[a] if isinstance(a, str) and a in state else a for a in args]
    expected, back = xpconv.vjp(op, x, *given, **options)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(layer(x), expected)

    dy = np.random.default_rng(1).normal(size=y.shape)
    layer.zero_grad()
    dx, *grads = [g for g in back(dy) if g is not None]
    np.testing.assert_array_equal(pullback(dy), dx)
    assert len(grads) == len(state)
    for name, grad in zip(state, grads, strict=True):
        np.testing.assert_array_equal(layer.parameters()[name].grad, grad)


@cases
def test_no_gradient_of_the_input_where_none_is_needed(layer, x, state, op, args, options):
    layer.load_state_dict(state)
    y, pullback = layer.vjp(x, needs_input=False)
    layer.zero_grad()
    assert pullback(y) is None
    assert all(parameter.grad is not None for parameter in layer.parameters().values())


@cases
def test_an_empty_batch_works(layer, x, state, op, args, options):
    layer.load_state_dict(state)
    layer.zero_grad()
    y, pullback = layer.vjp(x[:0])
    if op in (ops.softmax, ops.log_softmax):
        assert y.shape == (0, 8)
        return
    assert y.shape == (0, *layer(x).shape[1:])
    assert pullback(y).shape == (0, *x.shape[1:])
    assert all(not np.any(parameter.grad) for parameter in layer.parameters().values())


def test_every_layer_of_one_op_is_among_the_cases():
    kinds = {getattr(nn, name) for name in nn.__all__}
    layers = {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, nn.Layer)}
    assert layers - {type(case[0]) for case in CASES.values()} == {nn.Layer, nn.BatchNorm, nn.Dropout}


# -- open shapes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "x", "shapes"),
    [
        (nn.Conv2d(None, 6, 3, groups=2), IMAGES, {"weight": (3, 3, 2, 6), "bias": (6,)}),
        (nn.ConvTranspose2d(None, 6, 3, groups=2), IMAGES, {"weight": (3, 3, 3, 4), "bias": (6,)}),
        (nn.Linear(None, 3), ROWS, {"weight": (8, 3), "bias": (3,)}),
        (nn.BatchNorm(), IMAGES, {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,)}),
        (nn.LayerNorm(), IMAGES, {"weight": (4,), "bias": (4,)}),
        (nn.GroupNorm(2), IMAGES, {"weight": (4,), "bias": (4,)}),
        (nn.PReLU(None), ROWS, {"weight": (8,)}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_channels_are_read_from_the_first_input(layer, x, shapes):
    assert None in layer.parameters()["weight"].shape
    layer(x)
    assert {name: value.shape for name, value in layer.state_dict().items()} == shapes
    with pytest.raises(ValueError, match="x"):
        layer(x[..., : x.shape[-1] // 2])


def test_a_first_input_that_is_refused_settles_nothing():
    layer = nn.Conv2d(None, 4, 3)
    with pytest.raises(TypeError, match=r"Conv2d: needs real floating-point or complex arrays, not uint8"):
        layer(np.zeros((1, 8, 8, 3), dtype="uint8"))
    with pytest.raises(ValueError, match=r"(?s)Conv2d: takes x \(N, H, W, C\).*x\[None\].*x\[\.\.\., None\]"):
        layer(np.zeros((8, 8, 3)))
    grouped = nn.Conv2d(None, 4, 3, groups=2)
    with pytest.raises(ValueError, match="in_channels must be a positive multiple of groups"):
        grouped(np.zeros((1, 8, 8, 3)))
    assert layer(np.zeros((1, 8, 8, 5))).dtype == np.float64
    assert grouped(np.zeros((1, 8, 8, 6))).shape == (1, 6, 6, 4)


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 2, 1)])
def test_the_number_of_axes_is_checked(layer):
    with pytest.raises(ValueError, match=rf"{type(layer).__name__}: takes x \(N, H, W, C\)"):
        layer(VOLUME)


def test_arguments_are_checked_where_they_are_given():
    with pytest.raises(ValueError, match="out_channels must be a positive multiple of groups"):
        nn.Conv2d(4, 6, 3, groups=4)
    with pytest.raises(ValueError, match="in_channels must be a positive multiple of groups"):
        nn.ConvTranspose2d(3, 6, 3, groups=2)
    with pytest.raises(ValueError, match="kernel_size needs an int or 2"):
        nn.Conv2d(4, 6, (3,))
    with pytest.raises(ValueError, match="init 'xavier' is not known"):
        nn.Linear(4, 6, init="xavier")
    with pytest.raises(ValueError, match="p must be at least 0 and below 1"):
        nn.Dropout(1.0)
    with pytest.raises(ValueError, match=r"made for an x whose last axes are \(5,\)"):
        nn.LayerNorm(5, elementwise_affine=False)(IMAGES)
    with pytest.raises(ValueError, match=r"made for an x whose last axes are \(8,\)"):
        nn.GroupNorm(2, 8, affine=False)(IMAGES)


# -- first values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "variance"),
    [
        (nn.Conv2d(64, 128, 3), 2 / (9 * 64)),
        (nn.Conv2d(64, 128, 3, groups=4), 2 / (9 * 16)),
        (nn.Conv2d(64, 128, 3, init="he_uniform"), 2 / (9 * 64)),
        (nn.Conv2d(64, 128, 3, activation="tanh"), 2 / (9 * (64 + 128))),
        (nn.ConvTranspose2d(64, 128, 4, stride=2), 2 / (4 * 64)),
        (nn.Linear(400, 300), 2 / 400),
        (nn.Linear(400, 300, activation="sigmoid"), 2 / 700),
        (nn.Linear(400, 300, init="glorot_uniform"), 2 / 700),
    ],
    ids=repr,
)
def test_weights_have_the_variance_of_their_rule(layer, variance):
    weight = layer.initialize(seed=3).weight.value
    assert abs(weight.mean()) < 5 * np.sqrt(variance / weight.size)
    np.testing.assert_allclose(weight.var(), variance, rtol=0.03)
    assert not np.any(layer.bias.value)


def test_uniform_weights_fill_their_interval():
    weight = nn.Linear(400, 300, init="he_uniform").initialize().weight.value
    limit = np.sqrt(6 / 400)
    assert -limit <= weight.min() < -0.99 * limit
    assert 0.99 * limit < weight.max() <= limit


def test_the_signal_keeps_its_scale_through_a_transposed_convolution():
    layer = nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1).initialize()
    y = layer(np.maximum(RNG.normal(size=(4, 16, 16, 32)), 0).astype("float32"))
    assert 0.8 < y[:, 2:-2, 2:-2].std() < 1.25
