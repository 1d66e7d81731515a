"""Saving and loading networks: one safetensors file, with the architecture as JSON in its metadata.

The format is of raw arrays behind a JSON header, so that loading a file runs nothing of it, whoever made it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from xpconv.backend import HALVES, get, to_numpy
from xpconv.errors import FileError, dtype_name, message
from xpconv.exchange import architecture, tensors
from xpconv.kinds import dtype_kind
from xpconv.nn import Module
from xpconv.settings import current

# Grows when an older reader could misread a file.
FORMAT_VERSION = 1
_LISTED = 3  # names that a message gives of many
_KEY = "xpconv"  # of the entry in the file's metadata
RUN_KEY = "xpconv.run"  # of the one that a training checkpoint has instead
RUN_NET = "net."  # what the names of the network's arrays begin with there
_OF_A_RUN = (
    "make the network, and let train.fit take the run up: train.Checkpoint(path, resume=True); or pass the arrays "
    f"whose names begin with {RUN_NET!r}, without that, to its load_state_dict."
)


def save(net: Module, path: str | os.PathLike[str], notes: Mapping[str, Any] | None = None) -> None:
    """Write a network to a safetensors file: what it is made of, its parameters, and its buffers.

    The file appears under its name only when it is whole; an older one of that name stays until then. It carries
    checksums, and `load` refuses one that was damaged since. Gradients and the state of an optimizer are not in it.

    Parameters
    ----------
    net : Module
        Its layers may be of one's own, if their constructors take plain values and layers.
    path : str or path
        By custom ending in ``.safetensors``.
    notes : dict, optional
        What else the file should tell, of values that JSON has; `read_notes` gives it back.

    Raises
    ------
    ValueError
        If parameters are not made yet.
    TypeError
        For notes that JSON cannot say.
    FileError
        If a constructor's arguments cannot be written, or a dtype that the format lacks (complex128).

    Examples
    --------
    >>> import tempfile, xpconv
    >>> from xpconv import exchange, nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exchange.save(nn.Sequential(nn.Linear(3, 2)).initialize(), f"{folder}/net.safetensors")
    ...     exchange.load(f"{folder}/net.safetensors")
    Sequential()
      0: Linear(3, 2)
    """
    if not isinstance(net, Module):
        raise TypeError(message("save", f"takes a network, not a {type(net).__name__}."))
    check_made("save", net)
    values: dict[str, Any] = {name: state.value for name, state in net._states().items()}
    data = {
        "format": FORMAT_VERSION,
        "net": architecture.describe(net),
        "frozen": [name for name, parameter in net.parameters().items() if not parameter.trainable],
        # NumPy has no bfloat16, so its arrays lie in the file as the float32 of the same value.
        "bfloat16": [name for name, x in values.items() if dtype_name(x.dtype) == "bfloat16"],
        "notes": checked_notes("save", notes),
    }
    arrays = {name: to_numpy(x) for name, x in values.items()}
    tensors.write(path, tensors.serialized("save", arrays, {_KEY: json.dumps(data)}))


def read_notes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The notes that were given to `save`.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict

    Raises
    ------
    FileError
        As `load` does.
    """
    return _description(path)["notes"]


def load(path: str | os.PathLike[str], layers: Mapping[str, type[Module]] | None = None) -> Module:
    """Read a network from a file that `save` wrote, onto the backend in force.

    Parameters
    ----------
    path : str or path
    layers : dict of str to class, optional
        Classes of layers of one's own, by the name they have in the file.

    Returns
    -------
    Module
        With the dtypes of the file; half-precision ones that the library lacks become float32.

    Raises
    ------
    FileError
        If the file is truncated or damaged, is no safetensors file or none of `save`, is of a later version, or tells
        of layers that are not known or do not fit its arrays.
    """
    if layers is not None and not isinstance(layers, Mapping):
        raise TypeError(
            message("load", "layers is a dict of classes by name.", f"given: {layers!r}", "layers={'Scale': Scale}")
        )
    data = _description(path)
    try:
        net = architecture.build(data["net"], {} if layers is None else layers, tensors.subject(path))
        parameters = net.parameters()
    except RecursionError as error:
        raise _too_deep(path) from error
    place = get(current().backend)
    taken = {}
    for name, x in tensors.arrays(path).items():
        dtype = "bfloat16" if name in data["bfloat16"] else dtype_name(x.dtype)
        taken[name] = place.asarray(x, _available(dtype, place.xp))
        if dtype_kind(dtype) not in "fc" and name in parameters:
            raise tensors.bad(path, f"{name} is a parameter, and its values in the file are {dtype}.")
    try:
        net.load_state_dict(taken)
    except (TypeError, ValueError) as error:
        raise tensors.bad(path, "the arrays in the file do not fit the architecture in it.", str(error)) from error
    for name, parameter in parameters.items():
        parameter.trainable = name not in data["frozen"]
    return net


def check_made(subject: str, net: Module) -> None:
    """Refuse a network whose parameters are not all there."""
    states = net._states()
    unmade = [name for name, state in states.items() if state.value is None]
    if unmade:
        listed = ", ".join(unmade[:_LISTED]) + (", ..." if len(unmade) > _LISTED else "")
        rule = f"{len(unmade)} of {len(states)} parameters and buffers are not made yet: {listed}."
        remedy = (
            "run a first input through the network, net(x), which also tells layers what input sizes were left open; "
            "or, where all were given (in_channels, in_features), call net.initialize(seed)."
        )
        raise ValueError(message(subject, rule, "", remedy))


def checked_notes(subject: str, notes: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a caller wants a file to tell, if JSON can say it."""
    if not isinstance(notes, Mapping | None):
        raise TypeError(message(subject, "notes must be a dict.", f"given: notes={notes!r}"))
    told = dict(notes or {})
    try:
        json.dumps(told)
    except (RecursionError, TypeError, ValueError) as error:
        rule, remedy = "notes must be of what JSON has.", "dicts, lists, strings, numbers, True, False and None."
        raise TypeError(message(subject, rule, str(error), remedy)) from error
    return told


def check_foreign(path: str | os.PathLike[str]) -> None:
    """Refuse a safetensors file of this package's own, whose arrays are in its own layout, as another system's."""
    entries = tensors.metadata(path)
    if _KEY in entries:
        rule = "this is xpconv's own file, which holds the network too."
        raise tensors.bad(path, rule, "", f"net = xpconv.load({os.fspath(path)!r})")
    if RUN_KEY in entries:
        raise tensors.bad(path, "this is a training checkpoint of xpconv's own.", "", _OF_A_RUN)


def _available(dtype: str, xp: Any) -> str:
    """The dtype itself, or float32 for one of half precision that the library does not have."""
    return dtype if hasattr(xp, dtype) or dtype not in HALVES else "float32"


def _description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON that `save` put in the metadata."""
    entries = tensors.metadata(path)
    text = entries.get(_KEY)
    if RUN_KEY in entries:
        raise tensors.bad(path, "the file is a training checkpoint, which holds weights but no network.", "", _OF_A_RUN)
    if text is None:
        remedy = (
            "make the network; then, of PyTorch's weights, exchange.load_torch(net, path); only arrays in this "
            "package's own layout go to net.load_state_dict."  # no shape tells the two apart where a layer is square
        )
        raise tensors.bad(path, "the file holds arrays but no network that xpconv.save wrote.", "", remedy)
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise _too_deep(path) from error
    except json.JSONDecodeError as error:
        raise tensors.bad(path, "the architecture in the metadata is no JSON.", str(error)) from error
    if isinstance(data, dict) and data.get("format") != FORMAT_VERSION:
        evidence = f"version {data.get('format')} of the format; this xpconv reads version {FORMAT_VERSION}"
        rule = "the file was written by another version of xpconv."
        raise tensors.bad(path, rule, evidence, "pip install --upgrade xpconv")
    kinds = {"net": dict, "frozen": list, "bfloat16": list, "notes": dict}
    if not isinstance(data, dict) or not all(isinstance(data.get(key), kind) for key, kind in kinds.items()):
        raise tensors.bad(path, "the architecture in the metadata is malformed.", text[:80])
    return data


def _too_deep(path: str | os.PathLike[str]) -> FileError:
    return tensors.bad(path, "the architecture in the metadata is nested too deeply.")
