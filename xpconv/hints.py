"""What an error adds where a call does not fit or a name is not there: how it is done here.

The names are PyTorch's, for those who come from it. Nothing of this is asked before something has failed.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, ParamSpec, TypeVar

from xpconv.errors import message

P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS = {
    "padding_mode": "zeros are the default; for another border put nn.Pad(1, mode='reflect') before the layer.",
    "inplace": "results are always new arrays; leave it out.",
    "device": "net.to('cupy') moves a network; under xpconv.use_backend('cupy') it is made there.",
    "dtype": "net.to(dtype='float16') sets it for a whole network.",
    "return_indices": "ops.max_pool(x, 2, return_indices=True) gives them, for ops.max_unpool; no layer does.",
    "track_running_stats": "nn.BatchNorm always keeps running statistics, nn.InstanceNorm never does.",
}
# What is called otherwise here; names that differ in case, underscores and the number of axes alone need no entry.
_NAMES = {
    "BCEWithLogitsLoss": "ops.binary_cross_entropy_with_logits",
    "CircularPad": "nn.Pad(1, mode='wrap')",
    "ConstantPad": "nn.Pad(1, value=0.5)",
    "CrossEntropyLoss": "ops.softmax_cross_entropy",
    "MSELoss": "ops.mse",
    "MaxUnpool": "ops.max_unpool",
    "ReflectionPad": "nn.Pad(1, mode='reflect')",
    "ReplicationPad": "nn.Pad(1, mode='edge')",
    "ZeroPad": "nn.Pad(1)",
    "cross_entropy": "ops.softmax_cross_entropy",
    "functional": "xpconv.ops",
    "interpolate": "ops.resize",
    "mse_loss": "ops.mse",
}
_MODES = ("train", "eval", "forward")


def check_call(
    subject: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], remedy: str = ""
) -> None:
    """Raise a `TypeError` that shows the signature of a function, where the arguments of a call do not fit it.

    To be asked once a call has raised one, which may be of something else; ``remedy`` is for too many by position.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a function that has none, as those of other libraries may
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        parameters = signature.parameters.values()
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        options = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
        known = [
            f"{name}: {_OPTIONS[name]}" for name in kwargs if name not in signature.parameters and name in _OPTIONS
        ]
        if not known and len(args) > len(bare) - len(options):
            by_name = f"options go by name: {', '.join(f'{name}=' for name in options)}." if options else ""
            known = [remedy or by_name]
        shown = f"{subject}{signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)}"
        raise TypeError(message(subject, f"{error}.", shown, "\n  ".join(known))) from None


def explained(remedy: str = "") -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function whose calls are held to its signature by `check_call` where they raise a `TypeError`."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def calling(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except TypeError:
                check_call(function.__name__, function, args, kwargs, remedy)
                raise

        return calling

    return decorate


def missing(module: str) -> Callable[[str], NoReturn]:
    """The ``__getattr__`` of a package: an `AttributeError` that says which of its names is the nearest."""

    def asked(name: str) -> NoReturn:
        package = sys.modules[module]
        nearest = _nearest(name, module.rpartition(".")[2], getattr(package, "__all__", ()))
        told = message(module, f"has no {name!r}.", "", f"the nearest here is {nearest}.")
        plain = f"module {module!r} has no attribute {name!r}"
        raise AttributeError(told if nearest else plain, name=name, obj=package)

    return asked


def _nearest(name: str, package: str, public: tuple[str, ...]) -> str:
    stem = re.sub(r"_?[123]d$", "", name)
    if stem in _NAMES:
        return _NAMES[stem]
    wanted = [each.replace("_", "").lower() for each in (name, stem) if not each.startswith("_")]
    own = {each.replace("_", "").lower(): each for each in public}
    return next((f"{package}.{own[each]}" for each in wanted if each in own), "")


def check_mode(module: object, name: str) -> None:
    """Raise an `AttributeError` where an attribute that a module lacks is one of PyTorch's for its two modes."""
    if name in _MODES:
        rule, remedy = f"has no {name!r}.", "there is no mode to set: net(x) is inference, net.vjp(x) is training."
        raise AttributeError(message(type(module).__name__, rule, "", remedy), name=name, obj=module)
