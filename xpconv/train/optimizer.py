"""What all optimizers share: the loop over parameters, and the state that is kept for each."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from xpconv.backend import Array, backend_of, library, on_device_of, to_numpy
from xpconv.dispatch import Primitive, offered
from xpconv.errors import describe, dtype_name, message
from xpconv.hints import OF_OPTIMIZERS, Hinted, explained
from xpconv.runtime import also
from xpconv.train.clipping import BESIDE, Clip, clipped, share
from xpconv.train.working import fits, form, stored, working

if TYPE_CHECKING:
    from xpconv.nn import Parameter


@dataclass(slots=True)
class _Kept:
    """What is kept for one parameter: its slots, and the optimizer's step count before the parameter's first step."""

    slots: list[Array]
    before: Any


class Optimizer(Hinted):
    """The loop over parameters, and the state that it keeps under their dotted names.

    ``lr`` and ``steps`` are plain numbers that may be set at any time. Either may also be a 0-d array of the
    parameters' library, device and dtype: nothing here reads it back, so a captured graph of a step replays it.

    Half-precision parameters are updated in float32 and rounded once; complex ones as pairs of real numbers.

    ``clip_norm`` bounds the norm of all gradients together; an optimizer of one's own that has a field of that name is
    clipped, too. `SGD` says how.
    """

    lr: Any
    weight_decay: float
    clip_norm: float | None = None
    steps: Any  # taken so far

    _instead = OF_OPTIMIZERS

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        first = args[0] if args else None
        parts = first.values() if isinstance(first, Mapping) else first if isinstance(first, list) else ()
        if any(hasattr(part, "trainable") for part in parts):  # as PyTorch's take them
            rule = "takes a learning rate; step takes the parameters."
            remedy = f"optimizer = {cls.__name__}(0.1), and after each pullback optimizer.step(net.parameters())."
            raise TypeError(message(cls.__name__, rule, f"given: a {type(first).__name__} of parameters", remedy))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self.steps = 0
        self._kept: dict[str, _Kept] = {}
        self.lr = self._rate()
        self.weight_decay = self._checked("weight_decay", self.weight_decay)
        clip = self._clip()
        self.clip_norm = None if clip is None else clip[0]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._instead:  # nobody would read it
            getattr(self, name)
        super().__setattr__(name, value)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept for each parameter, of its shape, zero at first."""
        return ()

    @explained()
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
        rate, clip = self._rate(), self._clip()
        if is_array(self.steps):
            also(functools.partial(operator.iadd, self.steps, 1))  # in place
        else:
            self.steps += 1
        moving = {name: p for name, p in parameters.items() if p.trainable and p.grad is not None}
        if not moving:
            return
        with on_device_of(next(iter(moving.values())).grad):
            together = self.fused(moving)
            if together is not None:
                self._step_at_once(moving, together, rate, clip)
                return
            part = None if clip is None else share([*moving.values()], clip)
            for name, parameter in moving.items():
                kept = self._following(name, parameter.value)
                value, grad = working(parameter.value), clipped(working(parameter.grad), part)
                change = self.change(value, grad, kept.slots, rate, self.steps - kept.before)
                parameter.assign(stored(value - change, parameter.value))

    def fused(self, parameters: Mapping[str, Parameter]) -> Primitive | None:
        """What an engine offers to update all of these at once by this optimizer's formula, if one does.

        It reads a rate and a step count that are arrays where they lie, so that a recorded step can be replayed.
        """
        kinds = type(self).__mro__
        formula = next(kind for kind in kinds if "change" in vars(kind))  # a subclass's own formula is in no kernel
        if not parameters or "update" not in vars(formula) or type(self).step is not Optimizer.step:
            return None
        if hasattr(self.steps, "shape") and not all(_counted(self._kept.get(name)) for name in parameters):
            return None
        values: list[Any] = [p.value for p in parameters.values()]
        first = values[0]
        if len({id(value) for value in values}) < len(values):  # one under two names would be written by two at once
            return None
        if any(library(value) != library(first) or value.device != first.device for value in values):
            return None
        return offered(self.update()[0], *values)

    def _step_at_once(self, moving: Mapping[str, Parameter], together: Primitive, rate: Any, clip: Clip | None) -> None:
        """Let the engine write new values where the old ones are."""
        kept = [self._following(name, p.value) for name, p in moving.items()]
        together.run(
            *(p.value for p in moving.values()),
            grads=[p.grad for p in moving.values()],
            slots=[k.slots for k in kept],
            before=[k.before for k in kept],
            rate=rate,
            steps=self.steps,
            clip=clip,
            **self.update()[1],
        )
        for parameter in moving.values():
            parameter.touch()

    def update(self) -> tuple[str, dict[str, Any]]:
        """The primitive that computes what ``change`` says for many parameters at once, and its constants."""
        raise NotImplementedError

    def change(self, value: Array, grad: Array, slots: list[Array], rate: Any, t: Any) -> Array:
        """What to subtract from ``value`` at its step ``t`` = 1, 2, ...; the slots are brought up to date in place."""
        raise NotImplementedError

    def _rate(self) -> Any:
        """The learning rate; one that is an array is not looked at."""
        return self.lr if is_array(self.lr) else self._checked("lr", self.lr)

    def _clip(self) -> Clip | None:
        """How gradients are clipped, if they are; the norm may be set at any time, as the rate may."""
        given: Any = self.clip_norm
        if given is None:
            return None
        number = isinstance(given, (int, float, np.integer, np.floating)) and not isinstance(given, bool)
        if not number or not 0 < given < math.inf:
            rule = "clip_norm must be a positive number, or None."
            remedy = "1.0 is usual; None leaves gradients as they are."
            raise ValueError(message(type(self).__name__, rule, f"given: clip_norm={given!r}", remedy))
        return float(given), BESIDE

    def _following(self, name: str, value: Array) -> _Kept:
        """What is kept for a parameter, moved to where the parameter is now (`net.to`, a loaded state)."""
        kept, place = self._kept.get(name), backend_of(value)
        shape, dtype = form(value)
        if kept is None:
            slots = [place.xp.zeros(shape, dtype=dtype, device=place.device) for _ in self.slots]
            kept = self._kept[name] = _Kept(slots, self.steps - 1)
        if kept.slots and not fits(kept.slots[0], shape, dtype, value):
            if tuple(kept.slots[0].shape) != shape:
                rule = f"what is kept for parameter {name!r} has another shape than the parameter."
                evidence = f"kept {tuple(kept.slots[0].shape)} · parameter {shape}"
                remedy = "make a new optimizer for another network."
                raise ValueError(message(type(self).__name__, rule, evidence, remedy))
            kept.slots = [place.asarray(slot, dtype) for slot in kept.slots]
        return kept

    def arrays(self) -> list[Array]:
        """What is kept for all parameters, as it lies."""
        return [slot for kept in self._kept.values() for slot in kept.slots]

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

    def load_state_dict(self, state: Mapping[str, Any], parameters: Mapping[str, Parameter] | None = None) -> None:
        """Go on from a state that `state_dict` gave, on whatever backend the parameters are by then.

        Parameters
        ----------
        state : dict of str to array or int
        parameters : dict of str to Parameter, optional
            Those that it must be the state for, by name, shape and dtype; without them, the next step finds out.

        Raises
        ------
        ValueError
            If it is not the state of an optimizer of this kind, or of these parameters; nothing is changed.
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
        steps = self._count("steps", state["steps"])
        kept = {}
        for name, parts in found.items():
            slots = [np.array(to_numpy(parts[slot])) for slot in self.slots]
            kept[name] = _Kept(slots, steps - self._count(f"{name}.steps", parts["steps"], most=steps))
            if parameters is not None:
                self._check_slots(name, slots, parameters.get(name))
        self.steps, self._kept = steps, kept

    def _count(self, name: str, value: Any, most: int | None = None) -> int:
        """A number of steps in a state that is loaded."""
        given = np.asarray(to_numpy(value) if hasattr(value, "shape") else value)
        if given.shape or given.dtype.kind not in "iu" or given < 0 or (most is not None and given > most):
            span = "from 0 on" if most is None else f"of at most {most}, as many as the optimizer's"
            rule = f"{name} must be one integer {span}."
            raise ValueError(message(type(self).__name__, rule, f"given: {given}"))
        return int(given)

    def _check_slots(self, name: str, slots: list[np.ndarray], parameter: Parameter | None) -> None:
        """Refuse what cannot have been kept for a parameter."""
        if parameter is None or parameter.value is None:
            rule = f"there is no parameter {name!r} to go on with."
            raise ValueError(message(type(self).__name__, rule))
        shape, dtype = form(parameter.value)
        for slot, kept in zip(self.slots, slots, strict=True):
            if kept.shape != shape or dtype_name(kept.dtype) != dtype_name(dtype):
                rule = f"what is kept for parameter {name!r} has another shape or dtype than the parameter."
                evidence = f"{describe(slot, kept)} · expected {shape} {dtype_name(dtype)}"
                raise ValueError(message(type(self).__name__, rule, evidence))

    def _checked(self, name: str, value: Any, below: float = math.inf) -> float:
        """The value as a Python float: a NumPy one would widen the arrays that it meets."""
        if not isinstance(value, (int, float, np.integer, np.floating)) or not 0 <= value < below:
            span = f"below {below:g}" if below < math.inf else "finite"
            rule = f"{name} must be a number of at least 0 and {span}."
            raise ValueError(message(type(self).__name__, rule, f"given: {name}={value!r}"))
        return float(value)


def is_array(value: Any) -> bool:
    """Whether a rate or a count is an array, which may lie on a device, and no number."""
    return hasattr(value, "shape") and not isinstance(value, np.generic)


def _counted(kept: _Kept | None) -> bool:
    """Whether it is known on the host when a parameter took its first step."""
    return kept is not None and not hasattr(kept.before, "shape")


def _number(steps: Any) -> int:
    return round(float(steps))
