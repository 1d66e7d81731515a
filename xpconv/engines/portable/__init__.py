"""Every primitive in array-API functions alone, for arrays of any library; the engine that is always there."""

from __future__ import annotations

from xpconv.engines.portable import (
    activation,
    adaptive,
    add,
    conv,
    dropout,
    gelu,
    linear,
    loss,
    maxpool,
    norm,
    pad,
    pool,
    resize,
    response_norm,
    softmax,
    unpool,
)
from xpconv.engines.portable.widening import widened

# What only selects or moves cells works in half precision as it is; the sums of its gradient do not.
_MOVES = ("adaptive_max_pool", "max_pool", "max_unpool", "pad")

PRIMITIVES = {
    name: widened(primitive)._replace(run=primitive.run) if name in _MOVES else widened(primitive)
    for module in (
        activation,
        add,
        adaptive,
        conv,
        dropout,
        gelu,
        linear,
        loss,
        maxpool,
        norm,
        pad,
        pool,
        resize,
        response_norm,
        softmax,
        unpool,
    )
    for name, primitive in module.PRIMITIVES.items()
}
