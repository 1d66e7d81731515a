"""Optimizers: each is one function from a gradient to a change of the parameter, all run through one loop.

An optimizer of one's own: a dataclass that subclasses `Optimizer`, names what it keeps per parameter in ``slots``, and
writes ``change``. With a field ``clip_norm`` its gradients are clipped as those of the optimizers here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xpconv.arguments import flag
from xpconv.backend import Array, namespace
from xpconv.errors import message
from xpconv.train.optimizer import Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]


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
    clip_norm : float, optional
        The largest norm that gradients may have, those of all parameters that are updated taken together [2]_: with n
        the root of the sum of all their squares, in double precision, the update takes g·min(1, clip_norm / (n + 1e-6))
        in place of each, before weight decay, as after PyTorch's ``clip_grad_norm_``. ``parameter.grad`` stays as it
        is. As there, nothing is refused: a nan makes all gradients nan; an infinite one counts as nan, and all others
        as 0. May be set between steps.

    Raises
    ------
    ValueError
        For a negative number, a ``clip_norm`` that is not positive, or ``nesterov`` without momentum.

    References
    ----------
    .. [1] I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and momentum in deep
       learning", ICML 2013.
    .. [2] R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063.

    Examples
    --------
    >>> from xpconv import train
    >>> train.SGD(0.1, momentum=0.9, nesterov=True)
    SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0, clip_norm=None)
    """

    lr: Any
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.momentum = self._checked("momentum", self.momentum, below=1)
        self.nesterov = flag("SGD", "nesterov", self.nesterov)
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

    def update(self) -> tuple[str, dict[str, Any]]:
        constants = {"momentum": self.momentum, "nesterov": self.nesterov, "weight_decay": self.weight_decay}
        return "sgd_update", constants


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
    clip_norm : float, optional
        The largest norm that all gradients together may have; see `SGD`.

    Raises
    ------
    ValueError
        For a negative number, a ``clip_norm`` that is not positive, or a beta outside [0, 1).

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: A method for stochastic optimization", ICLR 2015, arXiv:1412.6980.
    """

    lr: Any = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = field(default=None, kw_only=True)

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

    def update(self) -> tuple[str, dict[str, Any]]:
        return "adam_update", self._constants(decoupled=False)

    def _constants(self, decoupled: bool) -> dict[str, Any]:
        return {"betas": self.betas, "eps": self.eps, "weight_decay": self.weight_decay, "decoupled": decoupled}

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

    def update(self) -> tuple[str, dict[str, Any]]:
        return "adam_update", self._constants(decoupled=True)
