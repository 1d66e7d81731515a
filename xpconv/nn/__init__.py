"""Layers: calling one is inference, its ``vjp`` is training; a network is a tree of them.

net = nn.Sequential(nn.Conv2d(None, 16, 3, padding="same", activation="relu"), nn.Flatten(), nn.Linear(None, 10))
y, pullback = net.vjp(x)
dx = pullback(dy)           # adds into each Parameter's grad
"""

from xpconv.nn import init, models
from xpconv.nn.activation import (
    ELU,
    GELU,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from xpconv.nn.containers import IdentityShortcut, Parallel, Residual, Sequential
from xpconv.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from xpconv.nn.dropout import Dropout
from xpconv.nn.layer import Layer
from xpconv.nn.linear import Flatten, Identity, Linear
from xpconv.nn.module import Module
from xpconv.nn.norm import BatchNorm, GroupNorm, LayerNorm
from xpconv.nn.pool import (
    AdaptiveAvgPool2d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    GlobalAvgPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from xpconv.nn.state import Buffer, Parameter

__all__ = [
    "ELU",
    "GELU",
    "AdaptiveAvgPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm",
    "Buffer",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IdentityShortcut",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Module",
    "PReLU",
    "Parallel",
    "Parameter",
    "ReLU",
    "ReLU6",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "init",
    "models",
]
