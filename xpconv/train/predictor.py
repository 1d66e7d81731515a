"""Inference: batch by batch on the host, or as a function that replays itself."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.arguments import integer
from xpconv.backend import Array, Backend, to_numpy
from xpconv.hints import OF_PREDICTORS, Closed
from xpconv.nn import Module
from xpconv.runtime import Runtime, copied, runtime_of
from xpconv.train.feed import images_for, place_of
from xpconv.train.home import Home
from xpconv.train.replayed_forward import ReplayedForward

_SHAPES = 4  # whose recordings are kept
_UNUSED = 8, 1024  # calls after which one of them gives way to another shape: at first, and after many that did
_WORTH = 16  # batches of one size: fewer are over before a recording, which takes a few of them, has paid


def predict(net: Module, images: Any, batch_size: int = 256) -> np.ndarray:
    """The outputs of a network, batch by batch, on the host.

    Parameters
    ----------
    net : Module
    images : array, (N, ...)
        Of any library; cast and moved to the network.
    batch_size : int
        Changes memory and speed alone.

    Returns
    -------
    NumPy array, (N, ...)

    See Also
    --------
    Predictor : For call after call, and results that stay on the device.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import nn, train
    >>> train.predict(nn.Sequential(nn.Flatten()), np.ones((5, 2, 2, 1)), batch_size=2).shape
    (5, 4)
    """
    batch_size = integer("predict", "batch_size", batch_size, least=1)
    runtime = runtime_of(place_of(net))
    with runtime.working():
        column = images_for("predict", net, images)
        forward = forward_of(net, runtime, column.array.shape[0] // batch_size)
        return np.concatenate([to_numpy(forward(x)) for x in column.batches(batch_size)])


def forward_of(net: Module, recording: Runtime | None, batches: int) -> Callable[[Array], Array]:
    """The network, or for many batches of one size its inference replayed, where a runtime may record it."""
    if recording is None or not recording.records or batches < _WORTH:
        return net
    return ReplayedForward(net, recording)


class Predictor(Closed):
    """A network's inference for call after call: recorded at the third batch of a shape, replayed from then on.

    A replay has no Python between its kernels, which is most of the time of small batches: it is a CUDA graph on CuPy,
    one call into compiled code on NumPy. The results are those of ``net(images)``, to the bit, in memory of
    their own. Recordings of up to four shapes are kept, each with the memory of one pass; one that is not used makes
    room for another shape. Where parameters, layers or settings have changed, calls are as usual for a while,
    longer the more often it happens, up to 512 of them, and recorded anew.

    Parameters
    ----------
    net : Module

    Attributes
    ----------
    net : Module
    replays : bool
        Whether the last shape is replayed.
    refused : str
        Why nothing is recorded, once that is known; empty else. See `fit`, ``capture``.

    Raises
    ------
    TypeError
        For what is no network; when called, for images that are no numbers, or complex where the network is real.

    Notes
    -----
    Threads may share one: while one of them is in a replay, the calls of others are as usual.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import nn, train
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).initialize(seed=0)
    >>> predictor = train.Predictor(net)
    >>> for image in np.random.default_rng(0).normal(size=(5, 1, 8, 8, 3)).astype("float32"):
    ...     y = predictor(image)
    >>> y.shape, bool((y == net(image)).all())
    ((1, 6, 6, 8), True)
    """

    __slots__ = ("__weakref__", "_asked", "_by_shape", "_calls", "_home", "_last", "_net", "_turn", "_unused")
    _instead = OF_PREDICTORS

    def __init__(self, net: Module) -> None:
        self._net = net
        self._home = Home("Predictor", net)
        self._turn = threading.Lock()
        self._by_shape: OrderedDict[Any, ReplayedForward] = OrderedDict()  # what was asked for last is last
        self._asked: dict[Any, int] = {}  # the call that each was asked for last
        self._calls, self._unused = 0, _UNUSED[0]
        self._last: ReplayedForward | None = None

    def __call__(self, images: Any) -> Array:
        """The outputs for a batch, (N, ...), an array where the network is; images of any library are moved there."""
        owned = self._home.owned()
        place = self._home.place(owned)
        runtime = runtime_of(place)
        with runtime.working():
            x = self._home.images(images, owned)
            return _apart(self._answer(x, place, runtime), x)

    def _answer(self, x: Array, place: Backend, runtime: Runtime) -> Any:
        """The outputs, replayed where they can be, and while no other call is at it."""
        if not runtime.records or not self._turn.acquire(blocking=False):
            return self.net(x)
        try:
            self._last = self._for((place.library, str(place.device), x.shape, x.dtype), runtime)
            return self.net(x) if self._last is None else self._last(x)
        finally:
            self._turn.release()

    @property
    def net(self) -> Module:
        return self._net

    @property
    def replays(self) -> bool:
        return self._last is not None and self._last.replays

    @property
    def refused(self) -> str:
        return "" if self._last is None else self._last.refused

    def __repr__(self) -> str:
        taken = "call by call so far" if self._last is None else self._last.how
        return f"<Predictor of {type(self.net).__name__}, {taken}>"

    def __reduce__(self) -> Any:
        """A copy records for itself."""
        return type(self), (self.net,)

    def _for(self, shape: Any, runtime: Runtime) -> ReplayedForward | None:
        """What replays a shape; a new one takes the place of that which was asked for longest ago.

        If that was not so long ago, there is nothing: of many shapes in turn, each would be recorded again and again.
        """
        self._calls += 1
        forward = self._by_shape.get(shape)
        if forward is None:
            if len(self._by_shape) >= _SHAPES:
                oldest = next(iter(self._by_shape))
                if self._calls - self._asked[oldest] <= self._unused:
                    return None
                del self._by_shape[oldest], self._asked[oldest]
                self._unused = min(2 * self._unused, _UNUSED[1])
            forward = self._by_shape[shape] = ReplayedForward(self.net, runtime)
        self._by_shape.move_to_end(shape)
        self._asked[shape] = self._calls
        return forward


def _apart(y: Any, x: Any) -> Any:
    """An answer that is not the images themselves, or a view of them: whether one is would depend on what replays."""
    whole = getattr(x, "base", None)
    return copied(y) if y is x or getattr(y, "base", None) is (x if whole is None else whole) else y
