"""Every primitive in array-API functions alone, for arrays of any library; the engine that is always there."""

from __future__ import annotations

from xpconv.engines.portable import activation, conv
from xpconv.engines.portable.halves import widened

# What only selects or moves cells works in half precision as it is.
_MOVES = ()

PRIMITIVES = {
    name: primitive if name in _MOVES else widened(primitive)
    for module in (activation, conv)
    for name, primitive in module.PRIMITIVES.items()
}
