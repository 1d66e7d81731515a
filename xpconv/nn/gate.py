"""What wraps the methods of every module: the gate that each input passes, and the note of how it was made."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from xpconv.arguments import check_flags, flags_of, plain
from xpconv.errors import describe, message
from xpconv.hints import check_call

_PACKAGE = __name__.partition(".")[0]


class Watch:
    """What is told of every module that an input passes through, and runs it."""

    def __call__(self, module: Any, x: Any, run: Callable[[], Any]) -> Any:
        """The module's answer to x."""
        return run()

    def meet(self, stretch: Any) -> None:
        """Layers come next that `fusion` would run together; watched, they are run one by one."""


watcher: ContextVar[Watch | None] = ContextVar("xpconv.nn.watcher", default=None)


def recorded(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that notes its arguments; of several run for one module, the outermost.

    One of this package's own takes NumPy's numbers for Python's, judges flags, and shows its signature to a call that
    does not fit: all layers are alike in that.
    """
    ours = str(init.__module__).startswith(f"{_PACKAGE}.")  # it has none where it was run from a string
    flags = flags_of(init) if ours else {}

    @functools.wraps(init)
    def recording(self: Any, *args: Any, **kwargs: Any) -> None:
        if ours:
            args, kwargs = plain(args), {name: plain(value) for name, value in kwargs.items()}
            check_flags(type(self).__name__, flags, (self, *args), kwargs)
        vars(self).setdefault("_given", (args, kwargs))
        try:
            init(self, *args, **kwargs)
        except TypeError:
            if ours:
                check_call(type(self).__name__, types.MethodType(init, self), args, kwargs)
            raise

    return recording


def gated(method: Callable[..., Any]) -> Callable[..., Any]:
    """A module's ``vjp`` or ``__call__`` that first sees to names and values, and tells the watcher."""
    paired = method.__name__ == "vjp"
    names = inspect.signature(method).parameters if paired else ()
    flags = {name: at for at, name in enumerate(names) if name in _FLAGS}

    @functools.wraps(method)
    def passing(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if flags:
            for value in (*args, *kwargs.values()) if args else kwargs.values():  # by name, as containers pass them
                if value is not True and value is not False:  # more than this would cost every layer of every call
                    check_flags(type(self).__name__, flags, (self, x, *args), kwargs)
        self._prepare(x)
        watch = watcher.get()
        try:
            if watch is None:
                result = method(self, x, *args, **kwargs)
            else:
                result = watch(self, x, functools.partial(method, self, x, *args, **kwargs))
        except (TypeError, ValueError) as error:
            locate(error, self, x)
            raise
        if paired and not (isinstance(result, tuple) and len(result) == 2):  # an array of two rows would be taken apart
            evidence = f"it returned {type(result).__name__}"
            raise TypeError(message(type(self).__name__, "vjp must return (y, pullback).", evidence))
        return result

    return passing


def locate(error: Exception, module: Any, x: Any = None) -> None:
    """Note which layer of a network refused its input, the innermost, which hears of it first; and what the whole
    network was given, if the message does not say so already."""
    name, notes = module._key[1] if module._key else "", getattr(error, "__notes__", [])
    if name and not any(note.startswith(_WHERE) for note in notes):
        error.add_note(f"{_WHERE} {name!r}, {type(module).__name__}")
    elif not name and len(notes) == 1 and notes[0].startswith(_WHERE) and hasattr(x, "shape"):
        given = describe("x", x)
        if given not in str(error):
            error.add_note(f"of a {type(module).__name__} that was given {given}")


_FLAGS = ("training", "needs_input")  # of every vjp
_WHERE = "in layer"
