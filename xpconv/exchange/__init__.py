"""What goes in and out: saved networks, and other systems' layouts."""

from xpconv.exchange import torch
from xpconv.exchange.files import load, read_notes, save
from xpconv.exchange.layouts import to_hwio, to_nchw, to_nhwc, to_oihw

__all__ = ["load", "read_notes", "save", "to_hwio", "to_nchw", "to_nhwc", "to_oihw", "torch"]
