"""The training step for a loop of one's own."""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from xpconv import ops
from xpconv.arguments import flag
from xpconv.backend import Array, Backend, backend_of
from xpconv.errors import dtype_name
from xpconv.hints import OF_STEPS, Closed
from xpconv.nn import Module
from xpconv.runtime import Runtime, runtime_of
from xpconv.train.common import AN_OPTIMIZER, check_part
from xpconv.train.feed import array_of
from xpconv.train.home import Home, Owned
from xpconv.train.objective import Loss, Objective
from xpconv.train.optim import Optimizer
from xpconv.train.replayed_step import ReplayedStep
from xpconv.train.targets import Outputs, check_count, check_targets
from xpconv.train.usual import Measured, Usual


class Step(Closed):
    """Forward, loss, backward and update of a batch: what `fit` repeats, for a loop of one's own.

    Like `fit`, it takes two steps as usual, records the third and replays it from then on, without Python between its
    kernels: as a CUDA graph on CuPy, by the compiled kernels on NumPy; the results are the same to the bit. Batches of
    another shape are taken as usual, and recorded instead once they have come three times in a row. The memory of one
    step is kept.

    Parameters
    ----------
    net : Module
    optimizer : Optimizer
        Its ``lr`` may be set between steps.
    loss : str, op or function
        As `fit` takes it.
    capture : bool
        Whether to record steps; see `fit`.

    Attributes
    ----------
    net, optimizer
    replays : bool
        Whether a step like the last one would be replayed.
    refused : str
        Why steps are not replayed, once that is known; empty else.

    Raises
    ------
    TypeError, ValueError
        For what is no network, optimizer or loss; when called, for images or targets that do not fit, as `fit` does,
        and for a batch of none. Nothing has changed then.
    AttributeError
        For an attribute that is set: a rate is the optimizer's, ``step.optimizer.lr = 0.01``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import nn, train
    >>> rng = np.random.default_rng(0)
    >>> net = nn.Sequential(nn.Linear(None, 2)).initialize(seed=0)
    >>> step = train.Step(net, train.SGD(0.5))
    >>> for _ in range(30):
    ...     x = rng.normal(size=(16, 3)).astype("float32")
    ...     loss, right = step(x, (x[:, 0] > 0).astype("int64"))
    >>> int(right), bool(loss < 0.3)
    (16, True)
    """

    __slots__ = ("__weakref__", "_capture", "_home", "_loss", "_net", "_objective", "_optimizer", "_ways")
    _instead = OF_STEPS

    def __init__(
        self, net: Module, optimizer: Optimizer, loss: Loss = "softmax_cross_entropy", *, capture: bool = True
    ) -> None:
        check_part("Step", "optimizer", optimizer, isinstance(optimizer, Optimizer), AN_OPTIMIZER)
        self._net, self._optimizer = net, optimizer
        self._loss, self._capture = loss, flag("Step", "capture", capture)
        self._objective, self._home = Objective("Step", loss), Home("Step", net)
        self._ways: _Ways | None = None

    def __call__(self, images: Any, targets: Any) -> Measured:
        """Take one step on a batch.

        Parameters
        ----------
        images : array, (N, ...)
            Of any library; cast and moved to the network.
        targets : array, (N, ...)
            As `fit` takes them: integers in 0..classes-1, (N,), for ``"softmax_cross_entropy"``. Those that are on the
            host when they are given are looked at before each step. No step waits for a device to look at what is
            there, but the first on images of a shape: later, a label that is out of range makes the loss nan, and the
            parameters with it.

        Returns
        -------
        Measured
            ``loss``, the mean over the batch before the update, and ``right``, how many labels got the largest output,
            `None` for losses other than ``"softmax_cross_entropy"``. Arrays without axes, where the network is: nothing
            waits for the device before they are looked at.
        """
        owned = self._home.owned()
        place = self._home.place(owned)
        runtime = runtime_of(place)
        with runtime.working():
            x = self._home.images(images, owned)
            ways = self._now(place, runtime, owned)
            step = ways.replayed if self._capture and runtime.records else ways.usual
            return step(x, self._targets(targets, x, ways))

    @property
    def net(self) -> Module:
        return self._net

    @property
    def optimizer(self) -> Optimizer:
        return self._optimizer

    @property
    def replays(self) -> bool:
        return self._ways is not None and self._ways.replayed.replays

    @property
    def refused(self) -> str:
        return "" if self._ways is None else self._ways.replayed.refused

    def __repr__(self) -> str:
        taken = "call by call"
        if self._capture:
            taken = "call by call so far" if self._ways is None else self._ways.replayed.how
        return f"<Step of {type(self.net).__name__} by {type(self.optimizer).__name__}, {taken}>"

    def __reduce__(self) -> Any:
        """A copy records steps of its own."""
        return functools.partial(type(self), capture=self._capture), (self.net, self.optimizer, self._loss)

    def _now(self, place: Backend, runtime: Runtime, owned: Owned) -> _Ways:
        """The ways to take a step: made anew where the network is elsewhere, or other layers have come into it."""
        ways = self._ways
        if ways is None or ways.place != place or (ways.owned is not owned and ways.owned != owned):
            labelled = self._objective.op is ops.softmax_cross_entropy
            usual = Usual(self.net, owned.parameters, self._objective, self.optimizer, labelled)
            ways = self._ways = _Ways(usual, ReplayedStep(usual, runtime, lambda text: None), place, owned, {})
        return ways

    def _targets(self, given: Any, x: Array, ways: _Ways) -> Array:
        """Targets of any library: integers that stay such as int64, other numbers in the network's dtype."""
        targets = array_of("Step", "targets", given)
        check_count("Step", x, targets)
        self._check(targets, x, ways)
        wanted = "int64" if self._objective.takes_labels(targets) else dtype_name(x.dtype)
        return backend_of(x).asarray(targets, wanted)

    def _check(self, targets: Any, x: Array, ways: _Ways) -> None:
        """Refuse targets that do not fit what the network gives for such images, which is known from the first.

        It is looked at anew before anything is refused: a layer's option may have been set since.
        """
        known = ways.outputs.get(x.shape[1:])
        if known is not None:
            with suppress(TypeError, ValueError):
                check_targets("Step", targets, known, self._objective, look=_on_host(targets))
                return
        y = self.net(x[:1, ...])
        ways.outputs[x.shape[1:]] = found = Outputs(tuple(y.shape), y.dtype)
        check_targets("Step", targets, found, self._objective)


def _on_host(x: Any) -> bool:
    """Whether a look at the numbers of an array waits for no device."""
    return type(x) is np.ndarray or str(x.device) == "cpu"


class _Ways(NamedTuple):
    """Both ways to take a step, of a network that is in one place and has these parameters and buffers."""

    usual: Usual
    replayed: ReplayedStep
    place: Backend
    owned: Owned
    outputs: dict[tuple[int, ...], Outputs]  # for an image of a shape
