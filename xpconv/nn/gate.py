"""What wraps the methods of every module: the gate that each input passes, and the note of how it was made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from xpconv.errors import message

Watch = Callable[[Any, Any, Callable[[], Any]], Any]

# Told of every module that an input passes through, as (module, x, run); `summary` watches with it.
watcher: ContextVar[Watch | None] = ContextVar("xpconv.nn.watcher", default=None)


def recorded(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that notes its arguments; of several run for one module, the outermost."""

    @functools.wraps(init)
    def recording(self: Any, *args: Any, **kwargs: Any) -> None:
        vars(self).setdefault("_given", (args, kwargs))
        init(self, *args, **kwargs)

    return recording


def gated(method: Callable[..., Any]) -> Callable[..., Any]:
    """A module's ``vjp`` or ``__call__`` that first sees to names and values, and tells the watcher."""
    paired = method.__name__ == "vjp"

    @functools.wraps(method)
    def passing(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        self._prepare(x)
        watch = watcher.get()
        if watch is None:
            result = method(self, x, *args, **kwargs)
        else:
            result = watch(self, x, functools.partial(method, self, x, *args, **kwargs))
        if paired and not (isinstance(result, tuple) and len(result) == 2):  # an array of two rows would be taken apart
            evidence = f"it returned {type(result).__name__}"
            raise TypeError(message(type(self).__name__, "vjp must return (y, pullback).", evidence))
        return result

    return passing
