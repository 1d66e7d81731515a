"""Keras' weights: channels come last there too, so that names and depthwise kernels are all that differs."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpconv import nn
from xpconv.backend import Array, namespace
from xpconv.errors import message
from xpconv.exchange import foreign, tensors
from xpconv.exchange.foreign import Entry, Layout
from xpconv.nn import Module
from xpconv.nn.conv import Conv

# Keras' names for what a layer has: the first is today's.
_WEIGHTS = {"weight": ("kernel", "depthwise_kernel"), "bias": ("bias",)}
_NORM = {
    "weight": ("gamma",),
    "bias": ("beta",),
    "running_mean": ("moving_mean",),
    "running_var": ("moving_variance",),
}
_SLOPES = {"weight": ("alpha",)}
_NO_LAYERS = {"optimizer", "seed_generator"}  # what else a file has of a model that was trained
_NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm)
_OTHER_NAMES = (
    "by name, children are called here as layers are there: nn.Sequential(conv2d=..., conv2d_1=..., dense=...); "
    "load_keras(net, model.get_weights()) goes by their order, whatever they are called."
)


def load_keras(
    net: Module, weights: Sequence[Any] | Mapping[str, Any] | str | os.PathLike[str], *, strict: bool = True
) -> tuple[list[str], list[str]]:
    """Take over the weights of a Keras model, which need not be installed.

    Parameters
    ----------
    net : Module
    weights : list of array, dict of str to array, or path
        What ``model.get_weights()`` gives, in the order of the network's own layers; or arrays by ``"layer/kernel"``,
        ``"layer/bias"``, ``gamma``, ``beta``, ``moving_mean``, ``moving_variance``, ``alpha``; or a ``.weights.h5`` or
        ``.keras`` file, which takes the package h5py and runs nothing. By name, a layer is called there as its dotted
        name is here; what stands before the last two parts of a path is passed over.
    strict : bool
        Whether the names must agree; without it, what has the right name is taken.

    Returns
    -------
    missing, unexpected : list of str
        Names that the weights lack, and names that they alone have; both empty if strict.

    Raises
    ------
    ValueError
        If names, numbers or shapes do not fit, with a list of all that do not; nothing is changed.
    TypeError
        For what is not a plain array, or is complex where the network is real; nothing is changed.
    FileError, ImportError
        If the file is no such file, or h5py is missing.

    Notes
    -----
    Convolution kernels (H, W, I, O), transposed ones (H, W, O, I) and those of Dense layers (in, out) stay as they
    are, also behind a Flatten. A depthwise kernel (H, W, C, M) becomes (H, W, 1, C·M). Keras' batch norm has an
    ``epsilon`` of 1e-3 by default, where here ``eps`` is 1e-5: give the layer the same.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import exchange, nn
    >>> net = nn.Sequential(stem=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 8, 3, groups=8, bias=False))
    >>> exchange.load_keras(net, [np.ones((3, 3, 3, 8)), np.zeros(8), np.ones((3, 3, 8, 1))])
    ([], [])
    """
    if not isinstance(net, Module):
        raise TypeError(message("load_keras", f"takes a network, not a {type(net).__name__}."))
    layers = [module for _, module, _, _ in foreign.states(net)]
    entries = list(_entries(net))
    if isinstance(weights, (str, os.PathLike)):
        weights = _read(weights)
    arrays = _by_name(weights) if isinstance(weights, Mapping) else _in_order(entries, weights)
    _check_places(layers, entries, arrays)
    for layer, entry in zip(layers, entries, strict=True):
        arrays.update({name: _shaped(layer, arrays[name]) for name in entry.names if name in arrays})
    return foreign.load("load_keras", entries, arrays, strict, _OTHER_NAMES)


def _entries(net: Module) -> Iterator[Entry]:
    """Every array of the network, by Keras' names for it and by its place in the layer."""
    counts: dict[str, int] = {}
    for where, layer, name, state in foreign.states(net):
        at = counts[where] = counts.get(where, -1) + 1
        table = _NORM if isinstance(layer, _NORMS) else _SLOPES if isinstance(layer, nn.PReLU) else _WEIGHTS
        names = (*table.get(name, (name,)), str(at))
        yield Entry(
            tuple(f"{where}/{name}" if where else name for name in names), state, Layout(tuple(range(len(state.shape))))
        )


def _by_name(weights: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for path, x in weights.items():
        name = "/".join(path.split("/")[-2:])
        if name in named:
            rule = f"two arrays are called {name!r}: layers are told from one another by their own name alone."
            raise ValueError(message("load_keras", rule, f"one is {path!r}"))
        named[name] = foreign.array(x)
    return named


def _in_order(entries: list[Entry], weights: Any) -> dict[str, Any]:
    if not isinstance(weights, Iterable):
        own = "a model gives its own: load_keras(net, model.get_weights())."
        remedy = own if hasattr(weights, "get_weights") else ""
        rule = "takes a list of arrays, a dict of them, or the path of a file."
        raise TypeError(message("load_keras", rule, f"given: a {type(weights).__name__}", remedy))
    arrays = [foreign.array(x) for x in weights]
    if len(arrays) != len(entries):
        ours = ", ".join(f"{entry.names[0]} {entry.state.shape}" for entry in entries)
        theirs = ", ".join(str(tuple(x.shape)) for x in arrays)
        rule = f"{len(arrays)} arrays for a network of {len(entries)}."
        raise ValueError(message("load_keras", rule, f"network: {ours}\n  weights: {theirs}"))
    return {entry.names[0]: x for entry, x in zip(entries, arrays, strict=True)}


def _check_places(layers: list[Module], entries: list[Entry], arrays: Mapping[str, Any]) -> None:
    """Refuse arrays by place for a norm that has more of them here, or fewer: gamma or beta alone may be what lacks."""
    for norm in [layer for layer in dict.fromkeys(layers) if isinstance(layer, _NORMS)]:
        mine = [entry.names for layer, entry in zip(layers, entries, strict=True) if layer is norm]
        where = mine[0][-1].removesuffix("0")
        given = [name for name in arrays if name.startswith(where) and name.removeprefix(where).isdigit()]
        if given and len(given) != len(mine):
            rule = f"{len(given)} arrays of a norm that has {len(mine)}, which are told by their places alone."
            names = ", ".join(names[0] for names in mine)
            remedy = "pass a dict of them by name; the scale may be all 1, the shift all 0."
            raise ValueError(message("load_keras", rule, f"given: {', '.join(given)} · network: {names}", remedy))


def _shaped(module: Module, x: Array) -> Array:
    """Their array in our shape, where they have another for the same numbers in the same order."""
    shape, xp = tuple(x.shape), namespace(x)
    if isinstance(module, Conv) and len(shape) == module.rank + 2 and shape[-2] == module.groups > 1:
        outputs = shape[-2] * shape[-1]  # of a depthwise kernel: M for each channel
        return xp.reshape(x, (*shape[:-2], 1, outputs)) if outputs == module.weight.shape[-1] else x
    if isinstance(module, nn.PReLU) and math.prod(shape[:-1]) == 1:
        return xp.reshape(x, shape[-1:])  # slopes that all cells share
    return x


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file by layer and place, behind the groups that they lie in."""
    os.stat(path)  # an OSError of Python's own names the path
    try:
        import h5py
    except ImportError as error:
        rule = f"a Keras file takes a package that is not here ({error})."
        raise ImportError(message("load_keras", rule, "", "install it with: pip install 'xpconv[keras]'")) from error
    found: dict[str, np.ndarray] = {}

    def collect(where: str, group: Any) -> None:
        *owners, last = where.split("/")
        if last != "vars" or _NO_LAYERS & set(owners) or not hasattr(group, "items"):
            return
        for at, x in group.items():
            if not isinstance(group.get(at, getlink=True), h5py.HardLink) or x.external or x.is_virtual:
                raise OSError(f"{where}/{at} lies in another file")
            found[f"{where}/{group.attrs['name']}/{at}"] = np.asarray(x)

    try:
        if Path(path).suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                source: Any = io.BytesIO(archive.read("model.weights.h5"))
        else:
            source = path
        with h5py.File(source, "r") as file:
            file.visititems(collect)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise tensors.bad(path, "the file is damaged, or none that Keras 3 wrote.", str(error)) from error
    if not found:
        remedy = "in Keras: model.save_weights('name.weights.h5')."
        raise tensors.bad(path, "the file holds no layers' weights as Keras 3 writes them.", "", remedy)
    return found
