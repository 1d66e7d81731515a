"""Layers to be timed one at a time, in sets."""

from __future__ import annotations

from xpconv.bench import architectures
from xpconv.bench.architectures import Conv
from xpconv.bench.layer import Layer


def _of(set_name: str, conv: Conv) -> Layer:
    """The convolution as a layer: without bias, which the norm that follows has; padding keeps the size."""
    w = (conv.kernel, conv.kernel, conv.channels // conv.groups, conv.out)
    options = {"stride": conv.stride, "padding": (conv.kernel - 1) // 2, "groups": conv.groups}
    return Layer(set_name, conv.name, "conv", (conv.size, conv.size, conv.channels), {"w": w}, options)


def _biased(set_name: str, name: str, x: tuple[int, ...], w: tuple[int, ...], padding: int, batch: int) -> Layer:
    return Layer(set_name, name, "conv", x, {"w": w, "b": w[-1:]}, {"padding": padding}, batch)


def resnet50() -> list[Layer]:
    return [_of("resnet50", conv) for conv in architectures.resnet50()]


_FEW = (
    "56² 64→64 3×3",
    "14² 256→256 3×3",
    "7² 512→512 3×3",
    "56² 64→256 1×1",
    "28² 512→128 1×1",
    "28² 256→256 3×3 /2",
)


def resnet50_few() -> list[Layer]:
    """Some of ResNet-50's: each kind of them, where only minutes are left; the whole set goes on from these rows."""
    return [layer for layer in resnet50() if layer.name in _FEW]


def mobilenetv2() -> list[Layer]:
    return [_of("mobilenetv2", conv) for conv in architectures.mobilenet_v2()]


def lenet() -> list[Layer]:
    """On images of 28 pixels, padded, and of 32 pixels, as in the paper."""
    rows = [(28, 1, 6, 2), (14, 6, 16, 0), (32, 1, 6, 0)]
    return [
        _biased("lenet", f"{n}² {c}→{o} 5×5" + (" pad 2" if pad else ""), (n, n, c), (5, 5, c, o), pad, 32)
        for n, c, o, pad in rows
    ]


def samples() -> list[Layer]:
    """Signals and volumes."""
    lines = [_biased("samples", f"1-D 1024 64→64 k{k}", (1024, 64), (k, 64, 64), k // 2, 8) for k in (3, 9)]
    return [*lines, _biased("samples", "3-D 16×28² 32→32 3×3×3", (16, 28, 28, 32), (3, 3, 3, 32, 32), 1, 8)]


def pools() -> list[Layer]:
    three = {"kernel_size": 3, "stride": 2, "padding": 1}
    return [
        Layer("pools", "max 3×3 /2 112² 64", "max_pool", (112, 112, 64), options=three),
        Layer("pools", "max 2×2 28² 6", "max_pool", (28, 28, 6), options={"kernel_size": 2}, batch=32),
        Layer("pools", "global average 7² 2048", "global_avg_pool", (7, 7, 2048)),
    ]


def layers() -> list[Layer]:
    """What stands between convolutions: norms, linear layers, the loss."""
    norms = [
        Layer("layers", f"batch norm {n}² {c}", "batch_norm", (n, n, c), {"gamma": (c,), "beta": (c,)})
        for n, c in ((56, 256), (14, 1024))
    ]
    linear = [
        Layer("layers", f"linear {c}→{o}", "linear", (c,), {"w": (c, o), "b": (o,)}, batch=32)
        for c, o in ((2048, 1000), (512, 512))
    ]
    losses = [
        Layer("layers", f"softmax cross-entropy {classes}", "softmax_cross_entropy", (classes,), batch=batch)
        for batch, classes in ((32, 1000), (128, 10))
    ]
    return [*norms, *linear, *losses]


def convnext() -> list[Layer]:
    """A block of ConvNeXt-T (Z. Liu et al., arXiv:2201.03545), and the norm of a later stage."""
    conv = _of("convnext", Conv(56, 96, 96, 7, groups=96))
    norms = [
        Layer("convnext", f"layer norm {n}² {c}", "layer_norm", (n, n, c), {"gamma": (c,), "beta": (c,)})
        for n, c in ((56, 96), (14, 384))
    ]
    return [conv, *norms, Layer("convnext", "GELU 56² 384", "gelu", (56, 56, 384))]


def unet() -> list[Layer]:
    """What networks that give images add: other norms, ways up, and borders that are made of the image."""
    norms = [
        Layer("unet", name, op, (n, n, c), {"gamma": (c,), "beta": (c,)}, options)
        for name, op, n, c, options in (
            ("group norm 64² 64 in 8", "group_norm", 64, 64, {"num_groups": 8}),
            ("group norm 16² 512 in 32", "group_norm", 16, 512, {"num_groups": 32}),
            ("instance norm 64² 64", "instance_norm", 64, 64, {}),
        )
    ]
    low = (32, 32, 128)
    resized = [
        Layer("unet", f"{mode} 32² 128 to 64²", "resize", low, options={"output_size": 64, "mode": mode})
        for mode in ("bilinear", "nearest")
    ]
    up = {"w": (2, 2, 64, 128), "b": (64,)}
    return [
        *norms,
        Layer("unet", "up-convolution 32² 128→64 2×2 /2", "conv_transpose", low, up, {"stride": 2}),
        *resized,
        Layer("unet", "reflect 1 64² 64", "pad", (64, 64, 64), options={"padding": 1, "mode": "reflect"}),
        Layer("unet", "PReLU 64² 64", "prelu", (64, 64, 64), {"slope": (64,)}),
    ]


def alexnet() -> list[Layer]:
    """The response norms, which networks after it do without."""
    return [
        Layer("alexnet", f"response norm {n}² {c}", "local_response_norm", (n, n, c), options={"size": 5})
        for n, c in ((55, 96), (27, 256))
    ]


def bandwidth() -> list[Layer]:
    """What memory bounds, in sizes beyond the caches of a GPU; and updates of ResNet-50's parameters."""
    three = {"kernel_size": 3, "stride": 2, "padding": 1}
    ops = [
        Layer("bandwidth", "max 3×3 /2 112² 64", "max_pool", (112, 112, 64), options=three, batch=64),
        Layer("bandwidth", "global average 7² 2048", "global_avg_pool", (7, 7, 2048), batch=256),
        Layer(
            "bandwidth", "batch norm 56² 256", "batch_norm", (56, 56, 256), {"gamma": (256,), "beta": (256,)}, batch=64
        ),
        Layer("bandwidth", "layer norm 56² 96", "layer_norm", (56, 56, 96), {"gamma": (96,), "beta": (96,)}, batch=256),
        Layer(
            "bandwidth",
            "group norm 64² 64 in 8",
            "group_norm",
            (64, 64, 64),
            {"gamma": (64,), "beta": (64,)},
            {"num_groups": 8},
            batch=256,
        ),
        Layer("bandwidth", "GELU 56² 384", "gelu", (56, 56, 384), batch=64),
        Layer("bandwidth", "ReLU 56² 256", "relu", (56, 56, 256), batch=64),
        Layer("bandwidth", "SiLU 56² 256", "silu", (56, 56, 256), batch=64),
        Layer("bandwidth", "softmax cross-entropy 1000", "softmax_cross_entropy", (1000,), batch=16384),
    ]
    return [
        *ops,
        *(
            Layer("bandwidth", f"{name} 23.5 M", "update", (23_508_032,), options={"optimizer": name}, batch=1)
            for name in ("SGD", "Adam")
        ),
    ]


def overhead() -> list[Layer]:
    """Calls so small that only their way to the device counts: see the column of the host's time."""
    return [
        Layer("overhead", "ReLU 64", "relu", (64,), batch=1),
        Layer("overhead", "linear 8→8", "linear", (8,), {"w": (8, 8), "b": (8,)}, batch=1),
        Layer("overhead", "4² 8→8 1×1", "conv", (4, 4, 8), {"w": (1, 1, 8, 8)}, batch=1),
        Layer("overhead", "4² 8→8 3×3", "conv", (4, 4, 8), {"w": (3, 3, 8, 8)}, {"padding": 1}, batch=1),
        Layer("overhead", "max 2×2 4² 8", "max_pool", (4, 4, 8), options={"kernel_size": 2}, batch=1),
    ]
