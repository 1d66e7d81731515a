"""Networks as PyTorch's users have them, with the parameter names of torchvision."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class BasicBlock(nn.Module):
    def __init__(self, channels, width, stride, downsample):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    def __init__(self, channels, width, stride, downsample):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = downsample

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, block, depths, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for i, depth in enumerate(depths):
            width, blocks = 64 * 2**i, []
            out = width * (4 if block is Bottleneck else 1)
            for j in range(depth):
                stride = 2 if i and not j else 1
                changes = stride != 1 or channels != out
                side = [nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)]
                blocks.append(block(channels, width, stride, nn.Sequential(*side) if changes else None))
                channels = out
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


class VGG(nn.Module):
    def __init__(self, plan, num_classes, hidden):
        super().__init__()
        layers, channels = [], 3
        for width in plan:
            layers += [nn.MaxPool2d(2)] if width == "M" else [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = channels if width == "M" else width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        first, second = nn.Linear(512 * 7 * 7, hidden), nn.Linear(hidden, hidden)
        parts = first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout(), nn.Linear(hidden, num_classes)
        self.classifier = nn.Sequential(*parts)

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def _normed(channels, out, size, stride=1, groups=1):
    conv = nn.Conv2d(channels, out, size, stride, (size - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())


class InvertedResidual(nn.Module):
    def __init__(self, channels, out, stride, expansion):
        super().__init__()
        self.adds, wide = stride == 1 and channels == out, channels * expansion
        layers = [] if expansion == 1 else [_normed(channels, wide, 1)]
        layers.append(_normed(wide, wide, 3, stride, groups=wide))
        self.conv = nn.Sequential(*layers, nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2)]
        layers, channels = [_normed(3, 32, 3, 2)], 32
        for expansion, out, n, stride in [*table, (6, 320, 1, 1)]:
            for i in range(n):
                layers.append(InvertedResidual(channels, out, 1 if i else stride, expansion))
                channels = out
        self.features = nn.Sequential(*layers, _normed(320, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))

    def forward(self, x):
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(self.features(x), 1), 1))


class LeNet(nn.Module):
    def __init__(self, num_classes, pixels):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, padding="same"), nn.Conv2d(32, 64, 3, padding="same")
        self.fc1, self.fc2 = nn.Linear(64 * (pixels // 4) ** 2, 128), nn.Linear(128, num_classes)

    def forward(self, x):
        for conv in (self.conv1, self.conv2):
            x = functional.max_pool2d(functional.relu(conv(x)), 2)
        return self.fc2(functional.relu(self.fc1(torch.flatten(x, 1))))


class CifarBlock(BasicBlock):
    """Whose shortcut has no parameters: every second cell, and zeros for new channels."""

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if y.shape != x.shape:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return functional.relu(x + y)


class ResNet20(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for i, (channels, width) in enumerate([(16, 16), (16, 32), (32, 64)]):
            blocks = [CifarBlock(channels if j == 0 else width, width, 2 if i and not j else 1, None) for j in range(3)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))


_A = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]
_D = [64, 64, "M", 128, 128, "M", *3 * [256], "M", *3 * [512], "M", *3 * [512], "M"]

PIXELS, CLASSES, HIDDEN = 32, 7, 24

# Each model of `nn.models`: how it is made there, and how here.
PAIRS = {
    "lenet": (lambda: LeNet(CLASSES, PIXELS), {}),
    "resnet20": (lambda: ResNet20(CLASSES), {}),
    "resnet18": (lambda: ResNet(BasicBlock, (2, 2, 2, 2), CLASSES), {}),
    "resnet34": (lambda: ResNet(BasicBlock, (3, 4, 6, 3), CLASSES), {}),
    "resnet50": (lambda: ResNet(Bottleneck, (3, 4, 6, 3), CLASSES), {}),
    "resnet101": (lambda: ResNet(Bottleneck, (3, 4, 23, 3), CLASSES), {}),
    "vgg11": (lambda: VGG(_A, CLASSES, HIDDEN), {"hidden": HIDDEN}),
    "vgg16": (lambda: VGG(_D, CLASSES, HIDDEN), {"hidden": HIDDEN}),
    "mobilenet_v2": (lambda: MobileNetV2(CLASSES), {}),
}


def randomized(model, seed=0):
    """The model with weights of lively sizes, and running statistics that are not 0 and 1."""
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = 0.5 + torch.rand(module.weight.shape, generator=rng)
            module.bias.data = 0.2 * torch.randn(module.bias.shape, generator=rng)
            module.running_mean = 0.2 * torch.randn(module.bias.shape, generator=rng)
            module.running_var = 0.5 + torch.rand(module.bias.shape, generator=rng)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=rng) * (2 / fan_in) ** 0.5
            if module.bias is not None:
                module.bias.data = 0.1 * torch.randn(module.bias.shape, generator=rng)
    return model
