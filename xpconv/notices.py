"""Work that takes its time once, told to whoever shows something: an engine that compiles kernels says so here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str], None]

_listeners: list[Listener] = []
_told: set[str] = set()


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Within the block, on whatever thread, the listener hears what nobody has been told in this process yet."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(text: str) -> None:
    """Tell the listener that came last, and no one twice; without one, nothing is told."""
    listeners = _listeners[-1:]  # which may leave meanwhile
    if listeners and text not in _told:
        _told.add(text)
        listeners[0](text)
