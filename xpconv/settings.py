"""Settings, all of one form: a call sets for this context, ``with`` for a block, the environment for the process.

All live in one immutable record in one `contextvars.ContextVar`, so that an op reads them once, threads and
tasks do not disturb one another, and a pullback can keep the record that held when it was made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, fields, replace
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from xpconv.arguments import flag, integer
from xpconv.errors import message
from xpconv.hints import called

# Every engine there is; a folder of the same name under `xpconv/engines` holds it.
ENGINES = ("reference", "portable", "numba", "cupy", "cudnn")
TOTAL = ("reference", "portable")  # those that serve every primitive on every array

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an op may read; `None` for the engine means the chain of the array's own library."""

    backend: str = "numpy"
    engine: tuple[str, ...] | None = None
    precision: str = "ieee"
    workspace_limit: int = 256 * 2**20
    deterministic: bool = False
    autotune: bool = False
    num_threads: int | None = None  # `None`: as many as there are usable cores


_current: ContextVar[Settings] = ContextVar("xpconv.settings")
_process_default: Settings | None = None


def current() -> Settings:
    """The settings in force here."""
    return _current.get(None) or _default()  # an exception would take three times as long


class applied:  # noqa: N801 - a context manager, cheaper than a generator's
    """Run a block under a whole record, as a pullback does."""

    __slots__ = ("_settings", "_token")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __enter__(self) -> None:
        self._token: Token[Settings] = _current.set(self._settings)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)


def _default() -> Settings:
    global _process_default
    if _process_default is None:
        given = {name: setting.environment() for name, setting in _SETTINGS.items() if os.environ.get(setting.variable)}
        _process_default = Settings(**given)
    return _process_default


class _Applied(Generic[T]):
    """What a call of a setting returns: leave the ``with`` block and the earlier value is back."""

    __slots__ = ("_earlier", "_name", "_shown")

    def __init__(self, name: str, earlier: T, shown: Callable[[Any], str]) -> None:
        self._name, self._earlier, self._shown = name, earlier, shown

    def __enter__(self) -> None:
        return None

    def __repr__(self) -> str:
        now, then = self._shown(getattr(current(), self._name)), self._shown(self._earlier)
        return f"<{self._name}: {now} from now on; in a with statement until its end, then {then} again>"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        earlier: dict[str, Any] = {self._name: self._earlier}
        _current.set(replace(current(), **earlier))


_CALLED = {"backend": "use_backend", "engine": "use_engine", "num_threads": "set_num_threads"}  # others as their field


class Setting:
    """One field of the record, callable: ``precision("fast")`` or ``with precision("fast"): ...``.

    ``read`` makes of a variable's text what ``parse`` takes, and ``unset`` says what `None` stands for.
    """

    def __init__(
        self, name: str, parse: Callable[..., Any], doc: str, *, read: Callable[[str], Any] = str, unset: str = "None"
    ) -> None:
        self.name, self.parse, self.read, self.unset = name, parse, read, unset
        self.variable = f"XPCONV_{name.upper()}"
        self.__doc__ = doc

    def __call__(self, *value: Any, **named: Any) -> _Applied[Any]:
        parsed = called(_CALLED.get(self.name, self.name), self.parse, *value, **named)
        earlier = current()
        _current.set(replace(earlier, **{self.name: parsed}))
        return _Applied(self.name, getattr(earlier, self.name), self._shown)

    def environment(self) -> Any:
        """What its variable says, where it is set; the error names the variable."""
        text = os.environ[self.variable]
        try:
            return self.parse(*(self.read(part.strip()) for part in text.split(",")))
        except (TypeError, ValueError, RuntimeError) as error:
            raise type(error)(f"environment variable {self.variable}={text!r}: {error}") from error

    def __repr__(self) -> str:
        return (
            f"<setting {self.name}={self._shown(getattr(current(), self.name))}; environment variable {self.variable}>"
        )

    def _shown(self, value: Any) -> str:
        return self.unset if value is None else repr(value)


def _parse_engine(*names: str) -> tuple[str, ...] | None:
    if names == ("auto",):
        return None
    unknown = [name for name in names if name not in ENGINES]
    if unknown or not names:
        raise ValueError(
            message(
                "use_engine",
                f"no engine is called {unknown[0]!r}." if unknown else "name at least one engine.",
                f"given: {', '.join(map(repr, names)) or 'nothing'}",
                f"known engines: {', '.join(ENGINES)}; 'auto' is the chain of the arrays' own library.",
            )
        )
    return names


def _parse_precision(value: str) -> str:
    if value not in ("ieee", "fast"):
        raise ValueError(message("precision", f"must be 'ieee' or 'fast', not {value!r}."))
    return value


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def _parse_bytes(bytes: int | str) -> int:
    try:
        text = str(bytes).strip().upper().removesuffix("IB").removesuffix("B")
        unit = text[-1:] if text[-1:] in _UNITS else ""
        limit = int(text.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        limit = 0
    if isinstance(bytes, bool) or limit < 1:
        raise ValueError(
            message(
                "workspace_limit",
                f"must be a positive number of bytes, not {bytes!r}.",
                "",
                "for example 64 * 2**20, or '64M'.",
            )
        )
    return limit


def _parse_flag(name: str, value: bool) -> bool:
    return flag(name, "value", value)


def _read_flag(text: str) -> bool:
    known = {"1": True, "true": True, "0": False, "false": False}
    if text.lower() not in known:
        raise ValueError("it must be 1, true, 0 or false.")
    return known[text.lower()]


def _parse_threads(n: int) -> int:
    return integer("set_num_threads", "n", n, least=1)


def _read_threads(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("it must be a positive number of threads.")
    return int(text)


use_engine = Setting(
    "engine",
    _parse_engine,
    """Which engines may serve an op: ``use_engine("auto")``, or a strict chain as in ``use_engine("reference")``.

    A chain is strict: when none of the named engines can do what is asked, the op raises `EngineError` with each
    one's reason; nothing outside the chain is used. Environment variable: ``XPCONV_ENGINE=reference``.
    """,
    unset="'auto'",
)
precision = Setting(
    "precision",
    _parse_precision,
    """``"ieee"`` (default): every product and sum in the array's own precision or better. ``"fast"``: engines may
    use TF32 and large-tile Winograd. Environment variable: ``XPCONV_PRECISION``.""",
)
workspace_limit = Setting(
    "workspace_limit",
    _parse_bytes,
    """The most scratch memory in bytes that one op may take (default 256 MiB); work is cut into pieces to fit.

    Packed weights and copies in another layout count; copies of arrays whose strides an engine cannot read do not. The
    least piece is done even where it does not fit. Environment variable: ``XPCONV_WORKSPACE_LIMIT=64M``.""",
)
deterministic = Setting(
    "deterministic",
    partial(_parse_flag, "deterministic"),
    """Ask for results that are bit-identical from run to run on one machine, on every engine.
    Environment variable: ``XPCONV_DETERMINISTIC=1``.""",
    read=_read_flag,
)

autotune = Setting(
    "autotune",
    partial(_parse_flag, "autotune"),
    """Let GPU engines time the algorithms that they could use, at the first call of each kind, and take the fastest.
    The choices are kept on disk (``XPCONV_CACHE_DIR``). Environment variable: ``XPCONV_AUTOTUNE=1``.""",
    read=_read_flag,
)

set_num_threads = Setting(
    "num_threads",
    _parse_threads,
    """The most threads that an op may use on the CPU; default: the cores this process may use (its affinity and control
    group). Results do not depend on it. NumPy's own BLAS, behind the `portable` engine, has its own setting.
    Environment variable: ``XPCONV_NUM_THREADS``.""",
    read=_read_threads,
    unset="every core that may be used",
)

_SETTINGS: dict[str, Setting] = {}


def register(*settings: Setting) -> None:
    """Make settings readable from the environment (the backend's parser lives beside the backends)."""
    _SETTINGS.update({setting.name: setting for setting in settings})
    unknown = set(_SETTINGS) - {field.name for field in fields(Settings)}
    assert not unknown, unknown


register(use_engine, precision, workspace_limit, deterministic, autotune, set_num_threads)
