"""PyTorch's state dicts: its names, its layouts, and its order of what was flattened."""

from __future__ import annotations

import importlib
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xpconv import nn
from xpconv.backend import to_numpy
from xpconv.errors import message
from xpconv.exchange import files, flow, foreign, tensors
from xpconv.exchange.foreign import Entry, Layout
from xpconv.nn import Module
from xpconv.nn.conv import Conv, ConvTranspose

_SAFETENSORS = ".safetensors"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt")  # read by torch alone, which can do it without running what is in them
_SAFE = (2, 6)  # the first version without CVE-2025-32434
_UPGRADE = "pip install --upgrade torch, or use a .safetensors file."
_PIECE = 2**20  # bytes of an archive that are read at a time
_COUNTER = "num_batches_tracked"  # of its batch norms, for a momentum that this package does not have

# How the parts of a residual block are called there: the body's layers are the block's own, beside the shortcut's.
_RESIDUAL = {"body": "", "shortcut": "downsample"}


def load_torch(
    net: Module,
    weights: Mapping[str, Any] | str | os.PathLike[str],
    *,
    strict: bool = True,
    flattened: Mapping[str, int] | None = None,
) -> tuple[list[str], list[str]]:
    """Take over the weights of a PyTorch model.

    Parameters
    ----------
    net : Module
        With layers of the same names. Of a `nn.Residual`, PyTorch's names may also be those of torchvision: without
        ``body``, and with ``downsample`` for the shortcut.
    weights : dict of str to array, or path
        What ``model.state_dict()`` gives (tensors, or arrays of any library), a ``.safetensors`` file, or a ``.pt`` or
        ``.pth`` file of such a dict, for which torch 2.6 must be installed and which it reads without running any code.
    strict : bool
        Whether the names must agree; without it, what has the right name is taken.
    flattened : dict of str to int, optional
        For layers of which the network's own do not tell: the channels of the images that were flattened before it, by
        the layer's dotted name; 1 where there were none.

    Returns
    -------
    missing, unexpected : list of str
        Names that the weights lack, and names that they alone have; both empty if strict.

    Raises
    ------
    ValueError
        If names or shapes do not fit, with a list of all that do not; or if whether a layer sees flattened images is
        not known. Nothing is changed.
    TypeError
        For what is not a plain array, or is complex where the network is real; nothing is changed.
    FileError, ImportError
        If the file is no such file, one of this package's own, or damaged; or if it takes torch to read.

    Warns
    -----
    RuntimeWarning
        Where no name agrees, so that nothing is taken over.

    Notes
    -----
    Convolution weights (O, I, H, W) become (H, W, I, O), those of linear layers (out, in) become (in, out), and the
    inputs of a layer behind a `nn.Flatten` go from PyTorch's order C, H, W to H, W, C, which no shape would tell: the
    channels are followed through the network. A layer norm over several axes is taken to have C first there.
    ``num_batches_tracked`` is passed over. In a module of one's own, norms are taken to see images; what its linear
    layers see is asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import exchange, nn
    >>> net = nn.Sequential(conv=nn.Conv2d(3, 8, 5, bias=False), flat=nn.Flatten(), fc=nn.Linear(None, 10, bias=False))
    >>> weights = {"conv.weight": np.ones((8, 3, 5, 5)), "fc.weight": np.ones((10, 8 * 4 * 4))}
    >>> exchange.load_torch(net, weights)
    ([], [])
    >>> net.conv.weight.shape, net.fc.weight.shape
    ((5, 5, 3, 8), (128, 10))
    """
    if not isinstance(weights, Mapping):
        weights = _read(weights)
    arrays = {str(name): foreign.array(x) for name, x in weights.items() if str(name).rpartition(".")[2] != _COUNTER}
    return foreign.load("load_torch", list(_entries("load_torch", net, flattened, arrays)), arrays, strict)


def to_torch_state(net: Module, *, flattened: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The network's weights as PyTorch holds them: ``model.load_state_dict(to_torch_state(net))``.

    Parameters
    ----------
    net : Module
        All of whose parameters are made.
    flattened : dict of str to int, optional
        As `load_torch` takes it.

    Returns
    -------
    dict of str to torch tensor
        On the CPU, under torchvision's names where there are `nn.Residual` blocks.

    Raises
    ------
    ValueError
        If parameters are not made yet, or whether a layer sees flattened images is not known.
    ImportError
        Where torch is missing; `save_torch` needs none.
    """
    torch = _torch("to_torch_state")
    return {name: torch.tensor(x) for name, x in _written("to_torch_state", net, flattened).items()}


def save_torch(net: Module, path: str | os.PathLike[str], *, flattened: Mapping[str, int] | None = None) -> None:
    """Write what `to_torch_state` gives to a ``.safetensors`` file.

    In PyTorch: ``model.load_state_dict(safetensors.torch.load_file(path))``; ``torch.load`` does not read it.

    Parameters
    ----------
    net, flattened
        As of `to_torch_state`.
    path : str or path
        Ending in ``.safetensors``; the file appears under this name only when it is whole.

    Raises
    ------
    ValueError
        As of `to_torch_state`, and for a path that does not end in ``.safetensors``.
    FileError
        For a dtype that the format lacks (complex128).

    Examples
    --------
    >>> import tempfile
    >>> from xpconv import exchange, nn
    >>> net = nn.Sequential(fc=nn.Linear(3, 2)).initialize()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exchange.save_torch(net, f"{folder}/weights.safetensors")
    ...     exchange.load_torch(net, f"{folder}/weights.safetensors")
    ([], [])
    """
    if Path(path).suffix != _SAFETENSORS:
        remedy = f"for torch.load: torch.save(exchange.to_torch_state(net), {os.fspath(path)!r})."
        raise ValueError(message("save_torch", f"writes {_SAFETENSORS} files.", f"given: {os.fspath(path)!r}", remedy))
    arrays = _written("save_torch", net, flattened)
    tensors.write(path, tensors.serialized("save_torch", arrays, {"format": "pt"}))


def _written(subject: str, net: Module, told: Mapping[str, int] | None) -> dict[str, np.ndarray]:
    files.check_made(subject, net)
    entries = _entries(subject, net, told, None)
    return {entry.names[0]: np.ascontiguousarray(entry.layout.theirs(to_numpy(entry.state.value))) for entry in entries}


def _entries(
    subject: str, net: Module, told: Mapping[str, int] | None, arrays: Mapping[str, Any] | None
) -> Iterator[Entry]:
    """Every array of the network, with its names and its layout there."""
    if not isinstance(net, Module):
        raise TypeError(message(subject, f"takes a network, not a {type(net).__name__}."))
    told = _checked(subject, net, told or {})
    found, asked = flow.find(net, told), []
    if found.mixed:
        name = min(found.mixed)
        rule = (
            f"{name} works on features of flattened images mixed with others, which no order of its rows brings over."
        )
        remedy = "let the network join, add or group before it flattens; or where each image had one cell, say 1."
        raise ValueError(message(subject, rule, f"given: flattened={{{name!r}: {told[name]}, ...}}", remedy))
    modules = net.modules()
    states = list(foreign.states(net))
    owns = [f"{where}.{name}" if where else name for where, _, name, _ in states]
    uses = Counter(_their_name(modules, own) for own in owns)  # two layers may come to one name
    for own, (where, module, name, state) in zip(owns, states, strict=True):
        layout = _layout(module, name, len(state.shape), found.channels.get(where))
        theirs = _their_name(modules, own)
        entry = Entry(tuple(dict.fromkeys((theirs, own))) if uses[theirs] == 1 else (own,), state, layout)
        if where in found.unclear and (arrays is None or any(n in arrays for n in entry.names)):
            asked.append(where)
        yield entry
    if asked:
        names = list(dict.fromkeys(asked))
        rule = f"whether {', '.join(names)} sees flattened images, and of how many channels, is not known."
        remedy = f"say it: flattened={{{names[0]!r}: channels before they were flattened, or 1 if none were, ...}}"
        raise ValueError(message(subject, rule, "", remedy))


def _checked(subject: str, net: Module, told: Mapping[str, int]) -> Mapping[str, int]:
    modules = net.modules()
    for name, channels in told.items():
        if name not in modules or isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            rule = "flattened names layers of the network, with channels of at least 1."
            raise ValueError(message(subject, rule, f"given: {name!r}: {channels!r}"))
    return told


def _layout(module: Module, name: str, ndim: int, channels: int | None) -> Layout:
    """How PyTorch holds an array of a layer."""
    if isinstance(module, (Conv, ConvTranspose)) and name == "weight":
        return Layout((*range(2, ndim), 1, 0))
    if isinstance(module, nn.Linear):
        return Layout((1, 0), channels) if name == "weight" else Layout((0,))
    if isinstance(module, nn.LayerNorm) and ndim > 1:
        return Layout((*range(1, ndim), 0))
    return Layout(tuple(range(ndim)), channels)


def _their_name(modules: Mapping[str, Module], name: str) -> str:
    """A dotted name as torchvision has it."""
    parts, above = [], ""
    for part in name.split("."):
        parts.append(_RESIDUAL.get(part, part) if isinstance(modules.get(above), nn.Residual) else part)
        above = f"{above}.{part}" if above else part
    return ".".join(filter(None, parts))


def _read(path: Any) -> Mapping[str, Any]:
    if not isinstance(path, (str, os.PathLike)):
        rule = "takes a dict of arrays, or the path of a file that holds one."
        remedy = "a model gives its own: load_torch(net, model.state_dict())." if hasattr(path, "state_dict") else ""
        raise TypeError(message("load_torch", rule, f"given: a {type(path).__name__}", remedy))
    ending = Path(path).suffix
    if ending == _SAFETENSORS or (ending in _PICKLES and _holds_safetensors(path)):
        files.check_foreign(path)
        return tensors.arrays(path)
    if ending not in _PICKLES:
        raise tensors.bad(path, "weights are read from .safetensors files, and with torch from .pt and .pth files.")
    torch = _torch(f"load {os.fspath(path)}")
    if tuple(map(int, torch.__version__.split(".")[:2])) < _SAFE:
        rule = "before version {}.{} PyTorch could be made to run code by such a file.".format(*_SAFE)
        raise ImportError(message(f"load {os.fspath(path)}", rule, f"installed: {torch.__version__}", _UPGRADE))
    _check_sums(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        rule = "the file is damaged, or holds more than tensors, which would take running what is in it."
        remedy = "where it is trusted, write its tensors anew: torch.save(model.state_dict(), path)."
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()  # torch writes in bold, whatever reads it
        raise tensors.bad(path, rule, said.splitlines()[0] if said else type(error).__name__, remedy) from error
    if not isinstance(found, Mapping) or not all(hasattr(x, "dtype") for x in found.values()):
        inside = f"keys: {', '.join(map(str, found))}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        remedy = "load it with torch.load(path, weights_only=True), and pass the dict of tensors in it."
        raise tensors.bad(path, "the file holds no dict of tensors.", inside[:300], remedy)
    return found


def _holds_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file of another name is of that format: eight bytes of length, and a JSON object of that length."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < os.stat(path).st_size


def _check_sums(path: str | os.PathLike[str]) -> None:
    """Refuse an archive with a member that its checksum does not fit: torch looks at none of them.

    It writes a checksum of 0 where it was told to compute none; a pickle without an archive has none.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.CRC:
                    with archive.open(member) as content:
                        while content.read(_PIECE):
                            pass
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        remedy = "use another copy of it, or write it anew: torch.save(model.state_dict(), path)."
        raise tensors.damaged(path, str(error), remedy) from error


def _torch(subject: str) -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        remedy = "install it (pip install torch), or use a .safetensors file, which needs none."
        raise ImportError(message(subject, f"needs PyTorch ({error}).", "", remedy)) from error
