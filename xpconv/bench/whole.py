"""Whole networks to be timed, in sets: their training steps, and their inference."""

from __future__ import annotations

from xpconv.bench.layer import Layer, Shape

_SMALL = (("LeNet 28²", "lenet", (28, 28, 1)), ("ResNet-20 32²", "resnet20", (32, 32, 3)))
_UNET = ("U-Net 64²", "unet", (64, 64, 3))
_LARGE = (("ResNet-50 224²", "resnet50", (224, 224, 3)), ("MobileNetV2 224²", "mobilenet_v2", (224, 224, 3)))

Network = tuple[str, str, Shape]  # of a row, the network, and an image


def steps() -> list[Layer]:
    """Whole training steps: forward, loss, backward, and the update by SGD with momentum."""
    return [_row("steps", "step", network, 128) for network in _SMALL]


def unet_step() -> list[Layer]:
    """A training step whose every pixel has a label: of a U-Net of 16 channels and three halvings."""
    return [_row("unet_step", "step", _UNET, 8)]


def large_steps() -> list[Layer]:
    """Training steps on images of ImageNet's size: sixty-four are for a GPU, of eight a CPU makes a second."""
    return [_row("large_steps", "step", network, 64) for network in _LARGE]


def inference() -> list[Layer]:
    """Whole networks forward, those whose steps are timed; one image at a time unless batches are named."""
    return [_row("inference", "inference", network, 1) for network in (*_SMALL, _UNET, *_LARGE)]


def _row(set_name: str, op: str, network: Network, batch: int) -> Layer:
    name, model, x = network
    return Layer(set_name, name, op, x, options={"model": model}, batch=batch)
