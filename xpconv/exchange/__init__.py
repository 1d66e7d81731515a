"""What goes in and out: saved networks, and other systems' weights and layouts."""

from xpconv.exchange import onnx, torch
from xpconv.exchange.files import load, read_notes, save
from xpconv.exchange.keras import load_keras
from xpconv.exchange.layouts import to_hwio, to_nchw, to_nhwc, to_oihw
from xpconv.exchange.torch_state import load_torch, save_torch, to_torch_state

__all__ = [
    "load",
    "load_keras",
    "load_torch",
    "onnx",
    "read_notes",
    "save",
    "save_torch",
    "to_hwio",
    "to_nchw",
    "to_nhwc",
    "to_oihw",
    "to_torch_state",
    "torch",
]
