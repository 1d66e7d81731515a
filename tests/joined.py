"""Networks whose layers are joined, run one by one and watched."""

from __future__ import annotations

import numpy as np

from xpconv import dispatch, nn

RNG = np.random.default_rng(5)
X = RNG.standard_normal((3, 9, 8, 4))


def settled(net, dtype="float32", x=X):
    """The network after a few steps of training statistics, with weights that are no ones and zeros."""
    net.initialize(seed=1).to(dtype=dtype)
    net.vjp(x.astype(dtype))
    for parameter in net.parameters().values():
        if len(parameter.shape) == 1:
            parameter.assign(1 + 0.3 * RNG.standard_normal(parameter.shape).astype(dtype))
    net.vjp(x.astype(dtype))
    return net


def one_by_one(net, x):
    """Inference as `vjp` runs it, which joins no norm."""
    return net.vjp(x, training=False, needs_input=False)[0]


def calls_of(run, monkeypatch, dtypes=None):
    """The primitives that a run asks engines for, and of what dtypes if wanted."""
    asked, select = [], dispatch.select

    def recorded(name, *arrays, **options):
        asked.append(name)
        if dtypes is not None:
            dtypes.add(arrays[0].dtype.name)
        options.pop("alone", None)
        return select(name, *arrays, **options)

    with monkeypatch.context() as patch:
        patch.setattr("xpconv.ops.conv_gradients.offered", recorded)
        patch.setattr("xpconv.dispatch.select", recorded)
        patch.setattr("xpconv.ops.conv_gradients.select", recorded)
        run()
    return asked


class Doubled(nn.Conv2d):
    """A layer of one's own, whose answer is not that of the op that it binds."""

    def run(self, op, args, options):
        """Twice the convolution."""
        return 2 * super().run(op, args, options)
