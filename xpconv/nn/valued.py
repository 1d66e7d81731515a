"""What is done to all parameters and buffers of a network at once: moved and cast, frozen, copied out, taken over."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np

from xpconv.arguments import flag
from xpconv.backend import Array, get, name_of_dtype, use_backend
from xpconv.errors import BackendError, message, misnamed
from xpconv.hints import explained
from xpconv.kinds import dtype_kind
from xpconv.nn.names import check_mapping, renaming, warn_if_none
from xpconv.nn.parameter import Parameter
from xpconv.nn.state import shown
from xpconv.nn.tree import Tree
from xpconv.runtime import copied
from xpconv.settings import current


class Valued(Tree):
    """A tree whose values are treated as one: the part of `Module` that runs nothing."""

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters().values():
            parameter.grad = None

    @explained("net.unfreeze() lets them learn again; net[0].freeze() is for a part.")
    def freeze(self) -> Self:
        """Stop every parameter below from learning; running statistics go on moving in training."""
        return self._set_trainable(False)

    @explained("net.freeze() stops them.")
    def unfreeze(self) -> Self:
        """Let every parameter below learn."""
        return self._set_trainable(True)

    def _set_trainable(self, trainable: bool) -> Self:
        for parameter in self.parameters().values():
            parameter.trainable = trainable
        return self

    def learns(self) -> bool:
        """Whether any parameter below is trainable."""
        return any(isinstance(item, Parameter) and item.trainable for _, item in self._walk())

    def to(self, backend: str | None = None, dtype: Any = None) -> Self:
        """Move all parameters and buffers to a backend, a floating dtype, or both.

        Parameters
        ----------
        backend : str, optional
            As `xpconv.use_backend` takes it.
        dtype : str or dtype, optional
            ``"float32"``, ``"float16"``, ...; what is not made yet will be made in it.

        Returns
        -------
        the module itself

        Raises
        ------
        BackendError
            If the backend cannot be had.
        TypeError
            For a dtype that is not a floating one, that the library lacks, or that would lose imaginary parts;
            nothing is changed.
        """
        place = None
        if backend is not None:
            with _named(backend):
                place = get(current().backend)
        name = None if dtype is None else name_of_dtype(dtype)
        if name is not None and dtype_kind(name) not in "fc":
            raise TypeError(message("to", f"takes floating-point dtypes, not {name}."))
        for move in [state.moving(place, name) for state in self._states().values()]:
            move()
        return self

    def state_dict(self) -> dict[str, Array]:
        """A copy of the value of every parameter and buffer, by dotted name.

        Raises
        ------
        ValueError
            If some are not made yet.
        """
        states = self._states()
        open_ones = [name for name, state in states.items() if state.value is None]
        if open_ones:
            rule = f"{', '.join(open_ones)} not made yet."
            raise ValueError(message("state_dict", rule, "", "call initialize(seed), or run a first input through it."))
        return {name: copied(state.value) for name, state in states.items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Take over values by dotted name, from arrays of any library, cast and moved to where this network's are.

        Parameters
        ----------
        state : dict of str to array
        strict : bool
            Whether the names must agree.

        Returns
        -------
        missing, unexpected : list of str
            Names that ``state`` lacks, and names that it alone has; both empty if strict.

        Raises
        ------
        ValueError
            If names or shapes do not fit; it lists all that do not, and nothing is changed.
        TypeError
            For what is not a plain array, or is complex where this network is real; nothing is changed.

        Warns
        -----
        RuntimeWarning
            Where no name agrees, so that nothing is taken over.
        """
        strict = flag("load_state_dict", "strict", strict)
        check_mapping("load_state_dict", state, "xpconv.load(path) reads a file that xpconv.save wrote.")
        own = self._states()
        common = [name for name in own if name in state]
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        shapes = {name: tuple(np.shape(state[name])) for name in common}
        unfit = [name for name in common if not own[name].fits(shapes[name])]
        problems = [f"{name} {shapes[name]} should be {shown(own[name].shape)}" for name in unfit]
        if strict:
            problems += misnamed(missing, unexpected)
        if problems:
            remedy = renaming(state, own) or "strict=False takes what has the right name."
            rule = "the state is not this network's."
            raise ValueError(message("load_state_dict", rule, "\n  ".join(problems), remedy))
        for load in [own[name].loading(state[name]) for name in common]:
            load()
        warn_if_none("load_state_dict", bool(common), state, own)
        return missing, unexpected


def _named(backend: Any) -> AbstractContextManager[Any]:
    """The backend of that name in force; a dtype, which other libraries take there, is shown its place."""
    try:
        return use_backend(backend)
    except BackendError:
        name = name_of_dtype(backend) if isinstance(backend, Hashable) else ""
        if dtype_kind(name) not in "fc":
            raise
        remedy = f'net.to(dtype="{name}") casts a network.'
        raise TypeError(message("to", "the first argument is a backend.", f"given: {backend!r}", remedy)) from None
