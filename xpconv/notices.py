"""Work that takes its time once, told to whoever shows something: an engine that compiles kernels says so here.

Two kinds: what is worth knowing once, and what is being done at the moment, which a display may show and forget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str], None]

_listeners: list[tuple[Listener, Listener]] = []
_told: set[str] = set()


@contextmanager
def told_to(listener: Listener, waiting: Listener = lambda text: None) -> Iterator[None]:
    """Within the block, on whatever thread, the listener hears what nobody has been told in this process yet.

    ``waiting`` hears of all that is waited for.
    """
    both = listener, waiting
    _listeners.append(both)
    try:
        yield
    finally:
        _listeners.remove(both)


def tell(text: str) -> None:
    """Tell the listener that came last, and no one twice; without one, nothing is told."""
    for listener, _ in _last():
        if text not in _told:
            _told.add(text)
            listener(text)


def wait(text: str) -> None:
    """Tell the listener that came last what is about to be waited for."""
    for _, waiting in _last():
        waiting(text)


def _last() -> list[tuple[Listener, Listener]]:
    return _listeners[-1:]  # in one look: it may leave meanwhile
