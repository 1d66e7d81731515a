"""Models of the literature, and summaries."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xpconv import nn


def test_lenet_takes_small_images():
    for size, channels in ((28, 1), (32, 3), (8, 1)):
        net = nn.models.lenet(num_classes=7)
        assert net(np.zeros((2, size, size, channels), dtype="float32")).shape == (2, 7)


def test_resnet20_is_that_of_the_paper():
    net = nn.models.resnet20()
    summary = net.summary((32, 32, 3))
    assert summary.parameters == 269_722
    assert summary.multiply_adds == 40_551_040
    convolutions = [row for row in summary.rows if row.layer in ("Conv2d", "Linear")]
    assert len(convolutions) == 20
    assert [row.output_shape for row in summary.rows if row.name.endswith("shortcut")] == [(16, 16, 32), (8, 8, 64)]
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    y, pullback = net.initialize().vjp(x)
    assert y.shape == (2, 10)
    pullback(np.ones_like(y))
    assert all(np.all(np.isfinite(p.grad)) and np.any(p.grad) for p in net.parameters().values())


def test_depths_that_are_not_6n_plus_2():
    assert len([m for m in nn.models.resnet_cifar(32).modules().values() if isinstance(m, nn.Conv2d)]) == 31
    for depth in (21, 2, 18):
        with pytest.raises(ValueError, match=f"depth must be 6n \\+ 2, not {depth}"):
            nn.models.resnet_cifar(depth)


def test_models_are_found_by_name():
    x = np.zeros((1, 32, 32, 1), dtype="float32")
    for name, make in nn.models.MODELS.items():
        assert make.__name__ == name
        small = {"hidden": 16} if name.startswith("vgg") else {}
        assert make(num_classes=3, in_channels=1, **small)(x).shape == (1, 3)


# Of photographs of 3 channels and 1000 classes, as the papers and torchvision count them.
SIZES = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "vgg11": 132_863_336,
    "vgg16": 138_357_544,
    "mobilenet_v2": 3_504_872,
}


@pytest.mark.parametrize("name", SIZES)
def test_models_have_the_parameters_of_the_literature(name):
    parameters = nn.models.MODELS[name](in_channels=3).parameters().values()
    assert sum(math.prod(p.shape) for p in parameters) == SIZES[name]


def test_the_width_of_mobilenet():
    wide, narrow = (nn.models.mobilenet_v2(width_mult=w).features for w in (1.4, 0.5))
    assert [wide[0][0].weight.shape[-1], wide[-1][0].weight.shape[-1]] == [48, 1792]
    assert [narrow[0][0].weight.shape[-1], narrow[-1][0].weight.shape[-1]] == [16, 1280]


def test_a_summary_counts():
    net = nn.Sequential(
        conv=nn.Conv2d(None, 8, (3, 5), stride=2, padding=1, groups=2),
        up=nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False),
        norm=nn.BatchNorm(),
        flat=nn.Flatten(),
        head=nn.Linear(None, 10),
    )
    summary = net.summary((9, 11, 4))
    rows = {row.name: row for row in summary.rows}
    assert [row.output_shape for row in summary.rows] == [(5, 5, 8), (10, 10, 4), (10, 10, 4), (400,), (10,)]
    assert rows["conv"].parameters == 3 * 5 * 2 * 8 + 8
    assert rows["conv"].multiply_adds == 25 * 3 * 5 * 2 * 8
    assert rows["up"].multiply_adds == 25 * 2 * 2 * 4 * 8
    assert rows["head"].multiply_adds == 4000
    assert summary.parameters == 248 + 128 + 8 + 4010
    assert summary.activation_bytes == 4 * (200 + 3 * 400 + 10)
    lines = str(summary).splitlines()
    assert lines[0].split() == ["name", "layer", "joins", "output", "parameters", "multiply-adds", "activations"]
    assert lines[3].split("  ")[0] == "conv"
    assert lines[-1].split()[:3] == ["total", "4,394", "13,200"]


def test_a_summary_leaves_the_network_as_it_is():
    net = nn.models.lenet()
    net.summary((28, 28, 1))
    assert all(parameter.value is None for parameter in net.parameters().values())
    net(np.zeros((1, 28, 28, 1)))
    assert net.conv1.weight.dtype == "float64"
    assert net.summary((28, 28, 1)).activation_bytes == 2 * nn.models.lenet().summary((28, 28, 1)).activation_bytes


def test_a_shared_layer_is_counted_once_and_listed_twice():
    shared = nn.Linear(4, 4)
    summary = nn.Sequential(a=shared, b=nn.ReLU(), c=shared).summary((4,))
    assert [(row.name, row.parameters) for row in summary.rows] == [("a", 20), ("b", 0), ("a", 0)]


def test_a_summary_lists_layers_of_ones_own_once():
    class Doubled(nn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    class Gain(nn.Module):
        def __init__(self):
            self.gain, self.inner = nn.Parameter((1,), nn.init.ones), nn.ReLU()

        def vjp(self, x, training=True, needs_input=True):
            return self.inner(x) * self.gain.value, lambda dy: None

    summary = nn.Sequential(nn.Linear(3, 3), Doubled(3, 2), Gain()).summary((3,))
    assert [(row.layer, row.parameters) for row in summary.rows] == [
        ("Linear", 12),
        ("Doubled", 8),
        ("ReLU", 0),
        ("Gain", 1),
    ]


def test_unet_has_a_label_for_each_pixel():
    net = nn.models.unet(1, width=64, depth=4)
    assert net.summary((64, 64, 3)).parameters == 31_037_633  # as of implementations with transposed convolutions
    small = nn.models.unet(3, width=4, depth=2).initialize(seed=0)
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 1)).astype("float32")
    y, pullback = small.vjp(x)
    assert y.shape == (2, 8, 12, 3)
    pullback(np.ones_like(y))
    assert all(np.all(np.isfinite(p.grad)) and np.any(p.grad) for p in small.parameters().values())
    with pytest.raises(ValueError, match=r"same \(1, 5, 6, 8\) float32 · lower \(1, 4, 6, 8\)"):
        small(np.zeros((1, 10, 12, 1), dtype="float32"))


def test_unet_judges_its_sizes():
    for options, match in (({"width": 0}, "width must be at least 1"), ({"depth": 0}, "depth must be at least 1")):
        with pytest.raises(ValueError, match=match):
            nn.models.unet(**options)
