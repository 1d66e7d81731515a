"""The definition: convolution and pooling as loops over windows. What has no loop form is the portable function."""

from __future__ import annotations

from xpconv.engines import portable
from xpconv.engines.portable.widening import DOUBLE, widened
from xpconv.engines.reference import conv, pool

_LOOPS = {**conv.PRIMITIVES, **pool.PRIMITIVES}

PRIMITIVES = {**portable.PRIMITIVES, **{name: widened(primitive, DOUBLE) for name, primitive in _LOOPS.items()}}
