"""Modules: how they are run, and how what they own comes to have values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from xpconv.arguments import integer
from xpconv.backend import Array, backend_of, get
from xpconv.errors import dtype_name, message
from xpconv.hints import OF_MODULES, Hinted
from xpconv.kinds import is_inexact
from xpconv.nn.gate import gated, recorded
from xpconv.nn.state import Key, State
from xpconv.nn.valued import Valued
from xpconv.settings import current

if TYPE_CHECKING:
    from xpconv.nn.summary import Summary

LayerPullback = Callable[[Array], Array | None]


class Module(Valued, Hinted):
    """A network, or a part of one: calling it is inference, `vjp` is training.

    A layer of one's own subclasses `Module`, sets its `Parameter`, `Buffer` and `Module` objects as attributes (or in
    a list, tuple or dict that is one), and writes ``vjp(x, training, needs_input) -> (y, pullback)``. Their names are
    the attributes'. For one that applies a single op, `Layer` is shorter.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import nn
    >>> net = nn.Sequential(nn.Conv2d(None, 4, 3), nn.Flatten(), nn.Linear(None, 10)).initialize(seed=0)
    >>> y, pullback = net.vjp(np.ones((2, 8, 8, 1), dtype="float32"))
    >>> pullback(y).shape, net.parameters()["0.weight"].grad.shape
    ((2, 8, 8, 1), (3, 3, 1, 4))
    """

    # Whether a call may be recorded once and replayed: not where `vjp` depends on anything of the host that changes
    # from call to call, such as a number drawn with NumPy. On NumPy, whose own work no recording sees, a class of
    # one's own says so itself: that its methods compute by ops and other layers alone.
    capturable = True

    _instead = OF_MODULES
    _given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})  # the arguments of the constructor
    _key: Key | None = None  # the seed and the dotted name, known once initialised or run
    _settled = False  # no member is without a name or a value, and none can come but by setting an attribute

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in (("__init__", recorded), ("__call__", gated), ("vjp", gated)):
            if name in cls.__dict__:
                setattr(cls, name, wrap(cls.__dict__[name]))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, (State, Module, list, tuple, dict)):
            vars(self).pop("_settled", None)

    def __call__(self, x: Any) -> Any:
        """Inference: running statistics, no dropout, nothing kept."""
        return self.vjp(x, training=False, needs_input=False)[0]

    def vjp(self, x: Any, training: bool = True, needs_input: bool = True) -> tuple[Any, LayerPullback]:
        """Run the layer and return its result with a pullback.

        Parameters
        ----------
        x : array, (N, ...)
        training : bool
            Whether to use batch statistics and dropout; False gives the gradients of inference.
        needs_input : bool
            Whether the gradient of x is wanted.

        Returns
        -------
        y : array, (N, ...)
        pullback : ``pullback(dy) -> dx``
            Adds into the ``grad`` of every trainable parameter, each time it is called, and returns the gradient of x
            (`None` where it is not wanted). It keeps what it needs until it is dropped, and must be called before an
            ``assign`` or an optimizer's step, which write into the arrays that it reads: after it, a `Layer` refuses.
        """
        rule = "a layer of one's own must write vjp(x, training, needs_input), which returns y and its pullback."
        remedy = "a plain chain of layers needs none: nn.Sequential, with nn.Residual and nn.Parallel for branches."
        raise NotImplementedError(message(type(self).__name__, rule, self._forward(), remedy))

    def _forward(self) -> str:
        """What to say of a class that was written as PyTorch's are."""
        return "it has a forward, which nothing here calls." if hasattr(type(self), "forward") else ""

    def adapt(self, x: Any) -> None:
        """Settle from the first input what was left open, as in ``self.weight.settle(x.shape[-1])``."""

    def restart(self, draws: int = 0) -> None:
        """Count draws of random numbers from 0 again, or go on after so many. `initialize` calls it."""

    def draws(self) -> int:
        """How often random numbers were drawn in training: all that a layer may keep beside parameters and buffers."""
        return 0

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Multiply-adds for one example, for `summary`; the batch axis leads both shapes and is 0."""
        return 0

    # -- values --------------------------------------------------------------------------------------------------------

    def initialize(self, seed: int = 0) -> Self:
        """Draw all values anew, on the backend in force; those whose shape is still open follow the first input.

        The numbers depend on the seed and the dotted name of each parameter and on nothing else. A network that is
        never initialised is with seed 0, at its first input; a part of one that is run alone before is a network of its
        own then, and keeps the values that follow from the names below it.
        """
        seed = integer("initialize", "seed", seed)
        place = get(current().backend)
        for name, module in self.modules().items():
            module._key = (seed, name)
            module.restart()
        for name, state in self._states().items():
            state._key = (seed, name)
            state.make(place, "float32")
        return self

    def _prepare(self, x: Any) -> None:
        """Hand names down one level, and make what the first input lets be made."""
        if self._settled:
            return
        if self._key is None:
            self._key = (0, "")
        seed, path = self._key
        waiting: dict[str, State] = {}
        for name, item in self.members():
            if item._key is None:
                item._key = (seed, f"{path}.{name}" if path else name)
            if isinstance(item, State) and item.value is None:
                waiting[name] = item
        if waiting:
            self.adapt(x)
            place, dtype = backend_of(x), dtype_name(x.dtype) if is_inexact(x) else "float32"
            for name, state in waiting.items():
                state.make(place, dtype)
                if state.value is None:
                    rule = f"the shape {state.shape} of {name} is still open; adapt(x) must settle it."
                    raise ValueError(message(type(self).__name__, rule))
        if not self.lists():
            self._settled = True

    # -- what it is ----------------------------------------------------------------------------------------------------

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments that make this module again; a module among them is the one that now has its name."""
        args, kwargs = self._given
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if value is None or isinstance(value, Module):
                now = vars(self).get(name)
                bound.arguments[name] = now if isinstance(now, Module) else value
        return bound.args, bound.kwargs

    def summary(self, input_shape: tuple[int, ...]) -> Summary:
        """Output shape, parameters, multiply-adds and activation memory of every layer, for one example.

        A norm or activation that a convolution computes in its own pass at inference ``joins`` it; one of half
        precision that cuDNN would compute, with `autotune` alone.

        Parameters
        ----------
        input_shape : tuple of int
            Of one example, without the batch axis: ``(H, W, C)``.

        Returns
        -------
        Summary
            To be printed; also ``rows``, ``parameters``, ``multiply_adds``, ``activation_bytes``.
        """
        from xpconv.nn.summary import summarize

        return summarize(self, input_shape)

    def __repr__(self) -> str:
        from xpconv.nn.printed import tree

        return tree(self)
