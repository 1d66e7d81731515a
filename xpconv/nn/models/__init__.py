"""Networks of the literature, as plain functions that return a `Sequential`.

Their children are named so that `exchange.load_torch` finds the parameters that torchvision calls the same.
"""

from collections.abc import Callable

from xpconv.nn.containers import Sequential
from xpconv.nn.models.lenet import lenet
from xpconv.nn.models.mobilenet import mobilenet_v2
from xpconv.nn.models.resnet import resnet18, resnet20, resnet34, resnet50, resnet101, resnet_cifar
from xpconv.nn.models.unet import unet
from xpconv.nn.models.vgg import vgg11, vgg16

# Those that take an image to one answer.
MODELS: dict[str, Callable[..., Sequential]] = {
    make.__name__: make
    for make in (lenet, resnet20, resnet18, resnet34, resnet50, resnet101, vgg11, vgg16, mobilenet_v2)
}

__all__ = [*MODELS, "MODELS", "resnet_cifar", "unet"]
