"""What a layer refuses when it is made, by the rules of its op, and what a norm asks of its input."""

from __future__ import annotations

import numpy as np
import pytest
from nets import images

from xpconv import nn, ops


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, stride=0), "stride must be at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding="foo"), "padding 'foo' is not known"),
        (lambda: nn.Conv2d(3, 4, 3, padding="causal"), "is for one spatial axis"),
        (lambda: nn.Conv2d(3, 4, 3, activation="nope"), "Conv2d: activation 'nope' is not known"),
        (lambda: nn.Conv2d(3, 4, 3, groups="2"), "Conv2d: groups must be an integer"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, 2, output_padding=2), "output_padding must be smaller"),
        (lambda: nn.Linear(0, 4), "in_features must be at least 1"),
        (lambda: nn.Linear(3, 0), "out_features must be at least 1"),
        (lambda: nn.Linear(3, 4, init=np.ones((3, 4))), r"Linear: init \[\[1\.0.* is not known"),
        (lambda: nn.Linear(3, 4, activation="nope"), "Linear: activation 'nope' is not known"),
        (lambda: nn.MaxPool2d(2, ties="nope"), "ties 'nope' is not known"),
        (lambda: nn.MaxPool2d(2, padding="causal"), "padding 'causal' is not known"),
        (lambda: nn.AvgPool2d(2, stride=(1, 0)), "stride must be at least 1"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), "divisor must not be 0"),
        (lambda: nn.AdaptiveAvgPool2d(0), "output_size must be at least 1"),
        (lambda: nn.GELU("bad"), "approximate 'bad' is not known"),
        (lambda: nn.LeakyReLU("a"), "slope must be a real number"),
        (lambda: nn.ELU(None), "alpha must be a real number"),
        (lambda: nn.PReLU(init="a"), "init must be a real number"),
        (lambda: nn.GroupNorm(2, 3), r"num_groups=2 must divide the 3 channels of x\.\Z"),  # and no x that nobody gave
        (lambda: nn.GroupNorm(0), "num_groups must be at least 1"),
        (lambda: nn.LayerNorm(eps=-1), "eps must be at least 0"),
        (lambda: nn.BatchNorm(eps=-1), "eps must be at least 0"),
        (lambda: nn.InstanceNorm(eps=-1), "eps must be at least 0"),
        (lambda: nn.LocalResponseNorm(0), "size must be at least 1"),
        (lambda: nn.LocalResponseNorm(3, k="1"), "k must be a real number"),
        (lambda: nn.LpPool2d(0, 2), "p must be"),
        (lambda: nn.AdaptiveMaxPool2d(0), "output_size must be at least 1"),
        (lambda: nn.Upsample(), "give a size or a scale_factor"),
        (lambda: nn.Upsample(4, 2), "give a size or a scale_factor"),
        (lambda: nn.Upsample((4, 0)), "output_size must be at least 1"),
        (lambda: nn.Upsample(scale_factor=(2, -1)), "scale_factor must be above 0"),
        (lambda: nn.Upsample(scale_factor=float("inf")), "scale_factor must be above 0 and finite"),
        (lambda: nn.Upsample((1, 1, 1, 1)), "output_size needs an int or 3 of them"),
        (lambda: nn.Upsample(scale_factor="a"), "scale_factor must be a real number"),
        (lambda: nn.Upsample(2, mode="cubic"), "mode 'cubic' is not known"),
        (lambda: nn.Upsample(2, align_corners=True), "align_corners has no meaning"),
        (lambda: nn.Pad(-1), "padding must be at least 0"),
        (lambda: nn.Pad((1, 1), "mirror"), "mode 'mirror' is not known"),
        (lambda: nn.Pad("same"), "padding 'same' is not known"),
        (lambda: nn.Pad((1, 1, 2, 2)), r"4 entries, .*\n.*\n  axis by axis: \(\(top, bottom\), \(left, right\)\)"),
        (lambda: nn.Softmax("a"), "Softmax: dim must be an integer, not 'a'"),
        (lambda: nn.LogSoftmax(1.0), "LogSoftmax: dim must be an integer, not 1.0"),
        (lambda: nn.BatchNorm(momentum=None), "BatchNorm: momentum must be a real number"),
        (lambda: nn.Dropout("a"), "Dropout: p must be a real number"),
        (lambda: nn.IdentityShortcut(3, 0), "stride must be at least 1"),
        (lambda: nn.Sequential([nn.ReLU()]), r"unpack the list with \*: Sequential\(\*layers\)"),
        (lambda: nn.Sequential(nn.ReLU(), ops.relu), r"an op goes in as a layer: nn\.ReLU\(\)"),
        (lambda: nn.Sequential(ops.max_pool), "an op goes in as a layer: one of xpconv.nn, or an nn.Layer"),
        (lambda: nn.Parallel(nn.ReLU), r"call the class: ReLU\(\)"),
        (lambda: nn.InstanceNorm(3, 1e-5, 0.1), r"InstanceNorm: affine must be True or False\.\n  given: affine=0\.1"),
        (lambda: nn.Conv2d(3, 4, 3, bias="no"), "Conv2d: bias must be True or False"),
        (lambda: nn.MaxPool2d(2, ceil_mode=1), "MaxPool2d: ceil_mode must be True or False"),
        (lambda: nn.Conv2d("3", 4, 3), "Conv2d: in_channels must be an integer, not '3'"),
        (lambda: nn.Conv2d(3, True, 3), "Conv2d: out_channels must be an integer, not True"),
        (lambda: nn.Conv2d(3, 4, np.array([3.0, 3.0])), "Conv2d: kernel_size must be integers"),
        (lambda: nn.BatchNorm(4.0), "BatchNorm: num_features must be an integer, not 4.0"),
        (lambda: nn.LayerNorm((4, True)), "LayerNorm: normalized_shape must be an integer, not True"),
        (lambda: nn.GroupNorm(2, 4.0), "GroupNorm: num_channels must be an integer"),
        (lambda: nn.InstanceNorm("4"), "InstanceNorm: num_features must be an integer"),
        (lambda: nn.PReLU(True), "PReLU: num_parameters must be an integer"),
        (lambda: nn.Softmax(True), "Softmax: dim must be an integer, not True"),
        (lambda: nn.Pad(1, "replicate"), "PyTorch's 'replicate' is mode='edge' here"),
        (lambda: nn.Pad(1, "circular"), "PyTorch's 'circular' is mode='wrap' here"),
        (lambda: nn.Upsample(2, mode="trilinear"), "PyTorch's 'trilinear' is mode='bilinear' here"),
    ],
)
def test_arguments_are_judged_when_the_layer_is_made(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(("args", "kwargs"), [(("False",), {}), ((True, 0), {}), ((), {"training": "False"})])
def test_the_flags_of_a_run_are_true_or_false(args, kwargs):
    norm = nn.BatchNorm(3).initialize()
    with pytest.raises(TypeError, match=r"BatchNorm: (training|needs_input) must be True or False\.\n  given: "):
        norm.vjp(images(channels=3), *args, **kwargs)
    assert not norm.running_mean.value.any(), "it was not trained"
    norm.vjp(images(channels=3), np.bool_(True), needs_input=np.bool_(False))


def test_arguments_that_only_an_input_can_judge_are_left_to_it():
    nn.MaxPool2d([2, 3], 2, [1, 0], 1)
    nn.Conv1d(3, 4, 9, padding="causal", dilation=[50])
    nn.ConvTranspose3d(3, 4, 3, 2, padding=1, output_padding=1)
    nn.GroupNorm(4)


def test_numbers_of_numpy_are_numbers():
    x = images(channels=4)
    for layer, shape in (
        (nn.Conv2d(np.int64(4), np.array(6), np.array([3, 1]), np.int32(1), groups=np.uint8(2)), (2, 3, 5, 6)),
        (nn.ConvTranspose2d(4, 6, 3, np.array([2, 2]), np.array([1, 1]), np.array([1, 1])), (2, 10, 10, 6)),
        (nn.AvgPool2d(np.array([2, 2]), np.array([1, 1]), np.array([[0, 1], [1, 0]])), (2, 5, 5, 4)),
        (nn.Upsample(np.array([7, 8])), (2, 7, 8, 4)),
        (nn.Upsample(scale_factor=np.array([2.0, 1.0])), (2, 10, 5, 4)),
        (nn.Pad(np.array([[1, 2], [0, 1]])), (2, 8, 6, 4)),
        (nn.LayerNorm(np.array([5, 4])), x.shape),
        (nn.GroupNorm(np.int64(2), np.int64(4)), x.shape),
    ):
        assert layer(x).shape == shape, layer
        assert "array" not in repr(layer)
        assert "np." not in repr(layer)


def test_annotations_of_ones_own_layers_are_ones_own():
    class Own(nn.Layer):
        def __init__(self, scale: bool = True, table=None):
            self.scale, self.table = scale, table

    table = np.ones(3)
    own = Own(0.5, table)
    assert own.scale == 0.5
    assert own.table is table


def test_a_network_too_deep_for_its_images_says_so():
    net = nn.models.unet(width=4, depth=4)
    with pytest.raises(ValueError, match=r"use larger images, fewer layers before .* \(a U-Net of a smaller depth\)"):
        net(images(size=8))


def test_factors_that_do_not_fit_the_input():
    with pytest.raises(ValueError, match="scale_factor has 3 entries for 2 spatial axes"):
        nn.Upsample(scale_factor=(1, 2, 3))(images())
    with pytest.raises(ValueError, match="output_size must be at least 1"):
        nn.Upsample(scale_factor=0.01)(images())


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_checks_its_channels(channels, affine):
    net = nn.BatchNorm(3, affine=affine).initialize()
    for run in (net, net.vjp):
        with pytest.raises(ValueError, match=r"BatchNorm: is made for an x whose last axes are \(3,\)"):
            run(images(channels=channels))
    assert net.running_mean.shape == (3,)
    assert not np.any(net.running_mean.value)


def test_statistics_beyond_the_range_of_half_precision():
    x = (400 * images(4)).astype("float16")
    net = nn.BatchNorm(3, momentum=1.0).to(dtype="float16").initialize()
    y, pullback = net.vjp(x)
    wide = x.astype("float32")
    np.testing.assert_allclose(net.running_mean.value, wide.mean((0, 1, 2)), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(net.running_var.value, wide.var((0, 1, 2), ddof=1), rtol=1e-4)
    assert net.running_var.value.min() > np.finfo("float16").max
    exact = nn.BatchNorm(3, momentum=1.0).initialize()
    y_wide, pullback_wide = exact.vjp(wide)
    dy = images(4).astype("float16")
    dx = pullback(dy)
    assert {a.dtype for a in (y, dx, net.weight.grad, net(x))} == {np.dtype("float16")}
    np.testing.assert_allclose(y, y_wide, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(dx, pullback_wide(dy.astype("float32")), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(net.weight.grad, exact.weight.grad, rtol=1e-3)
    np.testing.assert_allclose(net(x), exact(wide), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(net.vjp(x, training=False)[0], net(x))
    with pytest.raises(TypeError, match="share library, device and dtype"):
        exact(x)


def test_a_summary_says_what_shape_it_asks_for():
    with pytest.raises(ValueError, match="input channels") as caught:
        nn.Sequential(nn.Conv2d(1, 4, 3)).summary((1, 8, 8))
    layer, asked = caught.value.__notes__
    assert layer == "in layer '0', Conv2d"
    assert "input_shape=(1, 8, 8)), the shape of one example, (H, W, C)" in asked


def test_a_summary_follows_a_dtype_noted_for_later():
    assert nn.Sequential(nn.Conv2d(None, 4, 3)).to(dtype="float64").summary((8, 8, 1)).activation_bytes == 6 * 6 * 4 * 8
