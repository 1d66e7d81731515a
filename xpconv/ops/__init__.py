"""The ops: activations ``(N, *spatial, C)``, weights ``(*kernel, C / groups, O)``, 1 to 3 spatial axes.

Each is a docstring, the validation of its arguments, and the primitive it asks an engine for. Gradients of every
one come from `xpconv.vjp`.
"""

from xpconv.ops.activation import relu
from xpconv.ops.conv import conv, conv_transpose

__all__ = ["conv", "conv_transpose", "relu"]
