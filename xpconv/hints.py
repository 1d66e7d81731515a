"""What an error adds where a call does not fit or a name is not there: how it is done here.

The names are PyTorch's, for those who come from it. Nothing of this is asked before something has failed.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, ParamSpec, TypeVar

from xpconv.errors import message

P = ParamSpec("P")
T = TypeVar("T")

_WEIGHTED = "reduction='none' gives a loss for each target, and its pullback takes a weight for each"
_OPTIONS = {
    "padding_mode": "zeros are the default; for another border put nn.Pad(1, mode='reflect') before the layer.",
    "inplace": "results are always new arrays; leave it out.",
    "device": "net.to('cupy') moves a network; under xpconv.use_backend('cupy') it is made there.",
    "dtype": "net.to(dtype='float16') sets it for a whole network.",
    "return_indices": "ops.max_pool(x, 2, return_indices=True) gives them, for ops.max_unpool; no layer does.",
    "track_running_stats": "nn.BatchNorm always keeps running statistics, nn.InstanceNorm never does.",
    "ignore_index": f"{_WEIGHTED}, 0 for those to be left out; an example is in train.fit's help.",
    "weight": f"{_WEIGHTED}; an example is in train.fit's help.",
    "pos_weight": f"{_WEIGHTED}; an example is in train.fit's help.",
    "constant_values": "that is value.",
    "callbacks": "progress= takes a train.Progress of one's own, which is told of every epoch.",
    "learning_rate": "the optimizer has it: optimizer=train.Adam(1e-3).",
    "lr": "the optimizer has it: optimizer=train.Adam(1e-3).",
    "validation_data": "that is validation.",
    "validation_split": "validation= takes the images and labels that are held out.",
    "verbose": "that is progress.",
    "dim": "that is axis.",
    "start_dim": "the first axis stays, and all others become one.",
    "pretrained": "exchange.load_torch(net, path) takes over a file of torchvision's weights.",
    "weights": "exchange.load_torch(net, path) takes over a file of torchvision's weights.",
}
# What an argument that is missing, and that other libraries take elsewhere, comes from.
_WANTED = {"parameters": "net.parameters() gives them."}
# What is called otherwise here; names that differ in case, underscores and the number of axes alone need no entry.
_NAMES = {
    "BCEWithLogitsLoss": "ops.binary_cross_entropy_with_logits",
    "CircularPad": "nn.Pad(1, mode='wrap')",
    "ConstantPad": "nn.Pad(1, value=0.5)",
    "CosineAnnealingLR": "train.schedule.Cosine()",
    "CrossEntropyLoss": "ops.softmax_cross_entropy",
    "MSELoss": "ops.mse",
    "MaxUnpool": "ops.max_unpool",
    "ModuleDict": "dict",
    "ModuleList": "list",
    "OneCycleLR": "train.schedule.OneCycle()",
    "RandomCrop": "train.augment.random_shift(4)",
    "RandomHorizontalFlip": "train.augment.random_flip()",
    "ReflectionPad": "nn.Pad(1, mode='reflect')",
    "ReplicationPad": "nn.Pad(1, mode='edge')",
    "StepLR": "train.schedule.Step(1 / 3, 0.1)",
    "ZeroPad": "nn.Pad(1)",
    "cross_entropy": "ops.softmax_cross_entropy",
    "from_numpy": "xpconv.asarray",
    "functional": "xpconv.ops",
    "interpolate": "ops.resize",
    "lr_scheduler": "train.schedule",
    "mse_loss": "ops.mse",
    "optim": "xpconv.train",
    "tensor": "xpconv.asarray",
}
_NO_MODE = "there is no mode to set: net(x) is inference, net.vjp(x) is training."
_CLEARED = "a step forgets gradients itself."
# What a class has no method or attribute for, by the name that other libraries have for it.
OF_MODULES = {
    **dict.fromkeys(("train", "eval", "forward"), _NO_MODE),
    "backward": "net.vjp(x) returns y and a pullback, which takes the gradient of y.",
    "compile": "train.fit takes the optimizer and the loss.",
    "cpu": "net.to('numpy') moves it.",
    "cuda": "net.to('cupy') moves it.",
    "double": "net.to(dtype='float64') casts it.",
    "evaluate": "train.evaluate(net, (images, labels)) measures it.",
    "fit": "train.fit(net, (images, labels), epochs=..., batch_size=...) trains it.",
    "half": "net.to(dtype='float16') casts it.",
    "named_modules": "net.modules() is a dict by name.",
    "named_parameters": "net.parameters() is a dict by name.",
    "predict": "train.predict(net, images) goes batch by batch, train.Predictor(net) is for call after call.",
    "requires_grad_": "net.freeze() and net.unfreeze(), or of one parameter trainable = False.",
    "save": "xpconv.save(net, path) writes it.",
}
OF_STEPS = {
    **{name: f"the optimizer has it: step.optimizer.{name}." for name in ("lr", "momentum", "weight_decay")},
    "backward": "step(images, targets) is forward, loss, backward and update.",
    "learning_rate": "the optimizer has it: step.optimizer.lr.",
    "parameters": "the network has them: step.net.parameters().",
    "step": "step(images, targets) is forward, loss, backward and update.",
    "zero_grad": _CLEARED,
}
OF_PREDICTORS = {
    **dict.fromkeys(("train", "eval"), "it is inference, and has no mode to set."),
    **dict.fromkeys(("forward", "predict"), "call it: predictor(images)."),
}
OF_OPTIMIZERS = {
    "learning_rate": "that is lr.",
    "param_groups": "one rate, lr, is that of all parameters.",
    "zero_grad": f"net.zero_grad() forgets gradients; {_CLEARED.replace('a step', 'a train.Step')}",
}


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
        parameters = [p for p in signature.parameters.values() if p.name != "self"]
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        options = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
        known = [
            f"{name}: {_OPTIONS[name]}" for name in kwargs if name not in signature.parameters and name in _OPTIONS
        ]
        known += [told for name, told in _WANTED.items() if str(error).endswith(f"required argument: {name!r}")]
        if not known and len(args) > len(signature.parameters) - len(options):
            by_name = f"options go by name: {', '.join(f'{name}=' for name in options)}." if options else ""
            known = [remedy or by_name]
        shown = f"{subject}{signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)}"
        raise TypeError(message(subject, f"{error}.", shown, "\n  ".join(known))) from None


def called(subject: str, function: Callable[..., T], *args: Any, remedy: str = "", **options: Any) -> T:
    """What a function of the user's returns, held to its signature by `check_call` where it raises a `TypeError`."""
    try:
        return function(*args, **options)
    except TypeError:
        check_call(subject, function, args, options, remedy)
        raise


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
    """The ``__getattr__`` of a package: an `AttributeError` that says which of its names is the nearest.

    Where ``from package import name`` asks, it is an `ImportError`, since Python drops what an `AttributeError` says.
    """

    def asked(name: str) -> NoReturn:
        package = sys.modules[module]
        nearest = _nearest(name, module.rpartition(".")[2], getattr(package, "__all__", ()))
        told = message(module, f"has no {name!r}.", "", f"the nearest here is {nearest}.")
        if nearest and _importing(sys._getframe(1)) and importlib.util.find_spec(f"{module}.{name}") is None:
            raise ImportError(told, name=module)
        plain = f"module {module!r} has no attribute {name!r}"
        raise AttributeError(told if nearest else plain, name=name, obj=package)

    return asked


def _importing(frame: types.FrameType | None) -> bool:
    """Whether Python's ``from package import name`` asks for a name, by way of the package's own ``__getattr__``."""
    while frame is not None and frame.f_code.co_name == "__getattr__":
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name == "_handle_fromlist"


def _nearest(name: str, package: str, public: tuple[str, ...]) -> str:
    stem = re.sub(r"_?[123]d$", "", name)
    if stem in _NAMES:
        return _NAMES[stem]
    wanted = [each.replace("_", "").lower() for each in (name, stem) if not each.startswith("_")]
    own = {each.replace("_", "").lower(): each for each in public}
    return next((f"{package}.{own[each]}" for each in wanted if each in own), "")


class Hinted:
    """What answers for a method or attribute of another library's, which it has not, with what is done here."""

    __slots__ = ()
    _instead: ClassVar[Mapping[str, str]] = {}  # what is done here, by the name

    if not TYPE_CHECKING:  # which would take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            if name in self._instead:
                told = message(type(self).__name__, f"has no {name!r}.", "", self._instead[name])
                raise AttributeError(told, name=name, obj=self)
            return super().__getattribute__(name)  # which raises as before, a property's own error too


class Closed(Hinted):
    """What has the attributes of its class alone: one that is set beside them, which nobody would read, is refused."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except AttributeError:
            kind = type(self)
            rule = f"{name} is not to be set." if hasattr(kind, name) else f"has no {name!r} to set."
            known = ", ".join(public for public in dir(kind) if not public.startswith("_"))
            told = message(kind.__name__, rule, f"it has {known}", self._instead.get(name, ""))
            raise AttributeError(told, name=name, obj=self) from None
