"""Optimizers: each is one function from a gradient to a change of the parameter, all run through one loop.

An optimizer of one's own: a dataclass that subclasses `Optimizer`, names what it keeps per parameter in ``slots``, and
writes ``change``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpconv.backend import HALVES, Array, backend_of, cast, library, namespace, to_numpy
from xpconv.dispatch import dtype_kind
from xpconv.errors import dtype_name, message

if TYPE_CHECKING:
    from xpconv.nn import Parameter


@dataclass(slots=True)
class _Kept:
    """What is kept for one parameter: its slots, and the optimizer's step count before the parameter's first step."""

    slots: list[Array]
    before: Any


class Optimizer:
    """The loop over parameters, and the state that it keeps under their dotted names.

    ``lr`` and ``steps`` are plain numbers that may be set at any time. Either may also be a 0-d array of the
    parameters' library, device and dtype: nothing here reads it back, so a captured graph of a step replays it.

    Half-precision parameters are updated in float32 and rounded once; complex ones as pairs of real numbers.
    """

    lr: Any
    weight_decay: float
    steps: Any  # taken so far

    def __post_init__(self) -> None:
        self.steps = 0
        self._kept: dict[str, _Kept] = {}
        self.lr = self._rate()
        self.weight_decay = self._checked("weight_decay", self.weight_decay)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept for each parameter, of its shape, zero at first."""
        return ()

    def step(self, parameters: Mapping[str, Parameter]) -> None:
        """Update every trainable parameter that has a gradient.

        Parameters
        ----------
        parameters : dict of str to Parameter
            As ``net.parameters()`` gives them; what is kept for each, it keeps under that name.
        """
        if not hasattr(parameters, "items"):
            rule, remedy = "step takes parameters by name.", "pass net.parameters()."
            raise TypeError(message(type(self).__name__, rule, f"given: {type(parameters).__name__}", remedy))
        rate = self._rate()
        self.steps += 1  # in place where it is an array
        for name, parameter in parameters.items():
            if parameter.trainable and parameter.grad is not None:
                value, grad = _working(parameter.value), _working(parameter.grad)
                kept = self._following(name, value)
                change = self.change(value, grad, kept.slots, rate, self.steps - kept.before)
                parameter.assign(_stored(value - change, parameter.value))

    def change(self, value: Array, grad: Array, slots: list[Array], rate: Any, t: Any) -> Array:
        """What to subtract from ``value`` at its step ``t`` = 1, 2, ...; the slots are brought up to date in place."""
        raise NotImplementedError

    def _rate(self) -> Any:
        """The learning rate; one that is an array is not looked at."""
        on_device = hasattr(self.lr, "shape") and not isinstance(self.lr, np.generic)
        return self.lr if on_device else self._checked("lr", self.lr)

    def _following(self, name: str, value: Array) -> _Kept:
        """What is kept for a parameter, moved to where the parameter is now (`net.to`, a loaded state)."""
        kept = self._kept.get(name)
        if kept is None:
            xp = namespace(value)
            kept = self._kept[name] = _Kept([xp.zeros_like(value) for _ in self.slots], self.steps - 1)
        if kept.slots and not _alike(kept.slots[0], value):
            if tuple(kept.slots[0].shape) != tuple(value.shape):
                rule = f"what is kept for parameter {name!r} has another shape than the parameter."
                evidence = f"kept {tuple(kept.slots[0].shape)} · parameter {tuple(value.shape)}"
                remedy = "make a new optimizer for another network."
                raise ValueError(message(type(self).__name__, rule, evidence, remedy))
            place = backend_of(value)
            kept.slots = [place.asarray(slot, value.dtype) for slot in kept.slots]
        return kept

    def state_dict(self) -> dict[str, Any]:
        """The step count, and for each parameter its slots and own step count, as arrays of the host.

        Flat, ``{"steps": 120, "0.weight.steps": 120, "0.weight.momentum": array, ...}``, so that any file format takes
        it. The hyperparameters are not in it.
        """
        state: dict[str, Any] = {"steps": _number(self.steps)}
        for name, kept in self._kept.items():
            state[f"{name}.steps"] = _number(self.steps - kept.before)
            for slot, array in zip(self.slots, kept.slots, strict=True):
                state[f"{name}.{slot}"] = np.array(to_numpy(array))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave, on whatever backend the parameters are by then.

        Raises
        ------
        ValueError
            If it is not the state of an optimizer of this kind.
        """
        found: dict[str, dict[str, Any]] = {}
        for key, value in state.items():
            if key != "steps":
                name, _, slot = key.rpartition(".")
                found.setdefault(name, {})[slot] = value
        wanted = {"steps", *self.slots}
        wrong = [name for name, parts in found.items() if set(parts) != wanted]
        if wrong or "steps" not in state:
            kind = type(self).__name__
            evidence = f"{wrong[0]!r} has {', '.join(sorted(found[wrong[0]]))}" if wrong else "there is no 'steps'"
            remedy = f"each parameter has {', '.join(sorted(wanted))}."
            raise ValueError(message(kind, f"this is not the state of {kind}.", evidence, remedy))
        self.steps = int(state["steps"])
        self._kept = {
            name: _Kept([np.array(to_numpy(parts[slot])) for slot in self.slots], self.steps - int(parts["steps"]))
            for name, parts in found.items()
        }

    def _checked(self, name: str, value: Any, below: float = math.inf) -> float:
        """The value as a Python float: a NumPy one would widen the arrays that it meets."""
        if not isinstance(value, (int, float, np.integer, np.floating)) or not 0 <= value < below:
            span = f"below {below:g}" if below < math.inf else "finite"
            rule = f"{name} must be a number of at least 0 and {span}."
            raise ValueError(message(type(self).__name__, rule, f"given: {name}={value!r}"))
        return float(value)


@dataclass(eq=False)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum as in PyTorch.

    g += weight_decay·p;  v = momentum·v + g;  p -= lr·v, with Nesterov's form p -= lr·(g + momentum·v).

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        In [0, 1); 0 keeps nothing.
    nesterov : bool
        Look ahead along the momentum.
    weight_decay : float
        Added to the gradient, times the parameter.

    Raises
    ------
    ValueError
        For a negative number, or ``nesterov`` without momentum.

    References
    ----------
    .. [1] I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and momentum in deep
       learning", ICML 2013.

    Examples
    --------
    >>> from xpconv import train
    >>> train.SGD(0.1, momentum=0.9, nesterov=True)
    SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0)
    """

    lr: Any
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.momentum = self._checked("momentum", self.momentum, below=1)
        if self.nesterov and not self.momentum:
            evidence, remedy = "given: nesterov=True, momentum=0", "momentum=0.9 is usual."
            raise ValueError(message("SGD", "nesterov needs a momentum.", evidence, remedy))

    @property
    def slots(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def change(self, value: Array, grad: Array, slots: list[Array], rate: Any, t: Any) -> Array:
        if self.weight_decay:
            grad = grad + self.weight_decay * value
        for v in slots:
            v *= self.momentum
            v += grad
            grad = grad + self.momentum * v if self.nesterov else v
        return rate * grad


@dataclass(eq=False)
class Adam(Optimizer):
    """Adam, as in PyTorch.

    m = β1·m + (1 - β1)·g;  v = β2·v + (1 - β2)·g²;  p -= lr / (1 - β1^t) · m / (√v / √(1 - β2^t) + eps),
    t counting the parameter's own steps.

    Parameters
    ----------
    lr : float
        Learning rate.
    betas : (float, float)
        Decay of the two moments, in [0, 1).
    eps : float
        Added to the root.
    weight_decay : float
        Added to the gradient, times the parameter; `AdamW` keeps it out of the moments.

    Raises
    ------
    ValueError
        For a negative number, or a beta outside [0, 1).

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: A method for stochastic optimization", ICLR 2015, arXiv:1412.6980.
    """

    lr: Any = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.eps = self._checked("eps", self.eps)
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise ValueError(message(type(self).__name__, "betas must be two numbers.", f"given: betas={self.betas!r}"))
        beta1, beta2 = (self._checked(f"betas[{i}]", beta, below=1) for i, beta in enumerate(self.betas))
        self.betas = (beta1, beta2)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m", "v")

    def change(self, value: Array, grad: Array, slots: list[Array], rate: Any, t: Any) -> Array:
        if self.weight_decay:
            grad = grad + self.weight_decay * value
        return self._adam(grad, slots, rate, t)

    def _adam(self, grad: Array, slots: list[Array], rate: Any, t: Any) -> Array:
        (beta1, beta2), (m, v) = self.betas, slots
        m *= beta1
        m += (1 - beta1) * grad
        v *= beta2
        v += (1 - beta2) * grad * grad
        root = namespace(v).sqrt(v)
        root /= (1 - beta2**t) ** 0.5
        root += self.eps
        return rate / (1 - beta1**t) * m / root


@dataclass(eq=False)
class AdamW(Adam):
    """Adam with weight decay apart from the moments: first p *= 1 - lr·weight_decay, then `Adam` without decay.

    Parameters and errors are those of `Adam`; ``weight_decay`` is 0.01.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, arXiv:1711.05101.
    """

    weight_decay: float = 1e-2

    def change(self, value: Array, grad: Array, slots: list[Array], rate: Any, t: Any) -> Array:
        return rate * self.weight_decay * value + self._adam(grad, slots, rate, t)


def _working(x: Array) -> Array:
    """The form that updates are computed in: float32 for halves, real pairs (..., 2) for complex arrays."""
    xp = namespace(x)
    if dtype_name(x.dtype) in HALVES:
        return cast(x, xp.float32)
    return xp.stack([xp.real(x), xp.imag(x)], axis=-1) if dtype_kind(x.dtype) == "c" else x


def _stored(x: Array, like: Array) -> Array:
    """Back from the form of `_working` to the parameter's own."""
    return cast(x[..., 0] + 1j * x[..., 1] if dtype_kind(like.dtype) == "c" else x, like.dtype)


def _alike(a: Array, b: Array) -> bool:
    return library(a) == library(b) and a.dtype == b.dtype and a.device == b.device and a.shape == b.shape


def _number(steps: Any) -> int:
    return round(float(steps))
