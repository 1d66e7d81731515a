"""Which engine serves an op: one table, one loop.

Words: an *op* is a public function (`ops.conv`). Calling it binds its arguments into a `Call`: validated arrays
and options for one *primitive*, the thing an engine implements. A *chain* is the engines that may serve it, in order.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, ParamSpec

import numpy as np

from xpconv.backend import Array, library, on_device_of
from xpconv.errors import EngineError, message
from xpconv.hints import check_call, explained
from xpconv.settings import ENGINES, TOTAL, current

CHAINS: dict[str, tuple[str, ...]] = {"numpy": ("numba", "portable"), "cupy": ("cudnn", "cupy", "portable")}
ANY_LIBRARY = ("portable",)

Needs = tuple[bool, ...]  # for each array parameter of an op: is its gradient wanted
Pullback = Callable[..., tuple[Array | None, ...]]  # of dy; a convolution's also of what to add to dx
P = ParamSpec("P")


class Primitive(NamedTuple):
    """What an engine offers under one name.

    Directions of a convolution are plain functions ``run(*arrays, **options) -> array``. Every other primitive is a
    pair: ``run(*arrays, needs, **options) -> (y, residuals)``, where residuals are kept only if any of ``needs``,
    and ``backward(residuals, dy, needs) -> one gradient or None per array``.
    """

    run: Callable[..., Any]
    backward: Callable[..., tuple[Array | None, ...]] | None = None
    declines: Callable[..., str | None] | None = None  # reads metadata only; a reason, or None
    describe: Callable[..., str] | None = None  # how it would go about it, for `explain`
    otherwise: Any = None  # another `Primitive`, for what this one declines


@functools.cache
def engine_primitives(engine: str) -> Mapping[str, Primitive] | str:
    """The engine's table, loaded when first wanted; a reason where the engine cannot be had here."""
    try:
        return importlib.import_module(f"xpconv.engines.{engine}").PRIMITIVES
    except ImportError as error:
        return f"cannot be had here: {error}"


def select(name: str, *arrays: Array | None, **options: Any) -> Primitive:
    """The first engine of the chain in force that has the primitive and does not decline."""
    chain = _chain(arrays[0])
    for engine in chain:
        primitive, reason = _offer(engine, name, arrays, options)
        if reason is None:
            return primitive
    reasons = [f"{engine} {_offer(engine, name, arrays, options)[1]}" for engine in chain]
    rule, remedy = (
        f"no engine of the chain ({', '.join(chain)}) can do this.",
        "use_engine('auto') lets every engine of the arrays' library try.",
    )
    raise EngineError(message(name, rule, "; ".join(reasons), remedy))


def offered(name: str, *arrays: Array | None, alone: dict[str, Any] | None = None, **options: Any) -> Primitive | None:
    """As `select`, for what a caller can also do without an engine: `None` where none of the chain offers it, or one
    that comes first would do with the options ``alone``, which ask less of it."""
    for engine in _chain(arrays[0]):
        primitive, reason = _offer(engine, name, arrays, options)
        if reason is None:
            return primitive
        if alone is not None and _offer(engine, name, arrays, alone)[1] is None:
            break
    return None


def _chain(x: Array) -> tuple[str, ...]:
    return current().engine or CHAINS.get(library(x), ANY_LIBRARY)


def _offer(engine: str, name: str, arrays: tuple[Array | None, ...], options: dict[str, Any]) -> tuple[Any, str | None]:
    """The engine's primitive, and why it will not serve this call (`None`: it will)."""
    table = engine_primitives(engine)
    if isinstance(table, str):
        return None, table
    primitive = table.get(name)
    if primitive is None:
        return None, f"has no {name}"
    if current().engine is not None and not _is_for(engine, arrays[0]):
        return None, f"is not for arrays of {library(arrays[0])}"
    reason = primitive.declines(*arrays, **options) if primitive.declines is not None else None
    if reason is None or primitive.otherwise is None:
        return primitive, reason
    other = primitive.otherwise
    because = other.declines(*arrays, **options)
    return (other, None) if because is None else (primitive, because or reason)


def _is_for(engine: str, x: Array) -> bool:
    """Whether the engine takes arrays of that library: a chain that a user names may hold any."""
    return engine in TOTAL or engine in CHAINS.get(library(x), ANY_LIBRARY)


@dataclass(slots=True)
class Call:
    """One validated use of an op: a primitive, the op's array parameters in signature order, and its options."""

    primitive: str
    arrays: tuple[Any, ...]
    options: dict[str, Any]
    adds_beside: ClassVar[bool] = False  # whether the pullback takes a gradient of x from elsewhere and adds it

    def run(self) -> Any:
        """The op's result, with nothing kept."""
        primitive = select(self.primitive, *self.arrays, **self.options)
        return primitive.run(*self.arrays, needs=(False,) * len(self.arrays), **self.options)[0]

    def vjp(self, needs: Needs) -> tuple[Any, Pullback]:
        """The result, and the function that takes dy to one gradient or None per array."""
        primitive = select(self.primitive, *self.arrays, **self.options)
        y, residuals = primitive.run(*self.arrays, needs=needs, **self.options)
        backward = primitive.backward
        assert backward is not None, f"{self.primitive} has no backward"
        return y, lambda dy: backward(residuals, dy, needs)

    def parts(self) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        """The primitives that the op and its gradients need, as `select` would be asked for them."""
        return [(self.primitive, self.arrays, self.options)]


@dataclass(frozen=True, slots=True)
class Op:
    """A public op: how it binds arguments into a `Call`, and which of its parameters are arrays."""

    name: str
    bind: Callable[..., Call]
    arrays: tuple[str, ...]
    positions: tuple[int, ...]  # of the array parameters in the signature; a keyword-only one is past every argument

    def entries(self, args: tuple[Any, ...], options: dict[str, Any]) -> int:
        """How many gradients a pullback returns: up to the last array parameter that was passed."""
        for i in range(len(self.positions) - 1, -1, -1):
            if self.positions[i] < len(args) or self.arrays[i] in options:
                return i + 1
        return 0


OPS: dict[Callable[..., Any], Op] = {}  # every public op, by the function users call


def op(*array_names: str) -> Callable[[Callable[P, Call]], Callable[P, Any]]:
    """Turn a function that binds arguments into a `Call` into the public op that runs it."""

    def decorate(bind: Callable[P, Call]) -> Callable[P, Any]:
        @functools.wraps(bind)
        def public(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:  # as `explained`, whose own call would cost a small op 3 %
                call = bind(*args, **kwargs)
            except TypeError:
                check_call(bind.__name__, bind, args, kwargs)
                raise
            if type(call.arrays[0]) is np.ndarray:  # which has no device to be entered
                return call.run()
            with on_device_of(call.arrays[0]):
                return call.run()

        signature = inspect.signature(bind)
        public.__signature__ = signature.replace(return_annotation="Array")  # type: ignore[attr-defined]
        parameters = signature.parameters
        positional = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        places = tuple(positional.index(n) if n in positional else len(parameters) + 1 for n in array_names)
        OPS[public] = Op(bind.__name__, explained()(bind), array_names, places)
        return public

    return decorate


def registered(op: Callable[..., Any], asker: str = "vjp") -> Op:
    """The `Op` behind a public function; ``asker`` is what the message names where it is none."""
    try:
        return OPS[op]
    except (KeyError, TypeError):
        own = hasattr(op, "vjp")
        remedy = (
            "a layer has a vjp(x) method of its own."
            if own
            else f"pass a function of xpconv.ops: {asker}(ops.relu, x)."
        )
        raise TypeError(message(asker, f"{getattr(op, '__name__', op)!r} is not an op.", "", remedy)) from None


def explain(op: Callable[..., Any], *args: Any, **options: Any) -> dict[str, str]:
    """Which engine would serve this call, and why the others would not.

    Parameters
    ----------
    op, *args, **options
        As for the op itself; nothing is computed.

    Returns
    -------
    dict of str
        For each engine, ``"chosen: ..."`` with the primitives it would serve, or the reason why not.

    Examples
    --------
    >>> import numpy as np, xpconv
    >>> from xpconv import ops
    >>> with xpconv.use_engine("portable"):
    ...     xpconv.explain(ops.relu, np.ones(3))["reference"]
    'not in the chain (portable) of these arrays'
    """
    call = registered(op, "explain").bind(*args, **options)
    chain = _chain(call.arrays[0])
    taken: dict[str, str] = {}  # primitive -> the engine that serves it
    answers: dict[str, str] = {}
    for engine in (*chain, *(name for name in ENGINES if name not in chain)):
        if engine not in chain:
            answers[engine] = f"not in the chain ({', '.join(chain)}) of these arrays"
            continue
        served, refused = [], []
        for name, arrays, opts in call.parts():
            primitive, reason = _offer(engine, name, arrays, opts)
            if reason is not None:
                refused.append(reason)
            elif name in taken:
                refused.append(f"comes after {taken[name]}")
            else:
                taken[name] = engine
                served.append(f"{name} ({primitive.describe(*arrays, **opts)})" if primitive.describe else name)
        parts = ([f"chosen: {', '.join(served)}"] if served else []) + list(dict.fromkeys(refused))
        answers[engine] = "; ".join(parts)
    return answers
