"""The sets by name, and the cases chosen from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xpconv.bench import shapes, whole
from xpconv.bench.case import DIRECTIONS, DTYPES, Case
from xpconv.bench.layer import Layer
from xpconv.errors import message
from xpconv.kinds import PARTS

DEFAULT_DIRECTIONS = ("forward", "backward", "step")  # fusing is of interest on a GPU
OF_OP = {
    "step": ("step",),
    "update": ("step",),
    "conv": ("forward", "fused", "backward"),
    "inference": ("forward",),
}

_OF_COMPLEX = ("conv", "conv_transpose", "linear", "global_avg_pool", "resize", "pad")  # that are timed

_QUICK = (
    "56² 64→64 3×3",
    "14² 256→256 3×3",
    "28² 512→128 1×1",
    "7² 512→2048 1×1",
    "28² 192→192 3×3 depthwise",
    "28² 1→6 5×5 pad 2",
    "1-D 1024 64→64 k9",
    "max 3×3 /2 112² 64",
    "batch norm 14² 1024",
    "linear 512→512",
    "LeNet 28²",
)


def quick() -> list[Layer]:
    """A few of each, in about a minute."""
    return [layer for layer in everything() if layer.name in _QUICK]


def everything() -> list[Layer]:
    return [layer for name, make in SETS.items() if name not in _APART for layer in make()]


# Some are for GPUs or minutes; inference has batches of its own, and names of rows that `quick` has for steps.
_APART = ("alexnet", "inference", "resnet50_few", "large_steps", "bandwidth", "overhead", "quick", "all")


SETS: dict[str, Callable[[], list[Layer]]] = {
    "resnet50": shapes.resnet50,
    "resnet50_few": shapes.resnet50_few,
    "mobilenetv2": shapes.mobilenetv2,
    "lenet": shapes.lenet,
    "samples": shapes.samples,
    "pools": shapes.pools,
    "layers": shapes.layers,
    "convnext": shapes.convnext,
    "unet": shapes.unet,
    "alexnet": shapes.alexnet,
    "steps": whole.steps,
    "unet_step": whole.unet_step,
    "inference": whole.inference,
    "large_steps": whole.large_steps,
    "bandwidth": shapes.bandwidth,
    "overhead": shapes.overhead,
    "quick": quick,
    "all": everything,
}


def chosen(
    sets: Sequence[str],
    batches: Sequence[int] = (),
    directions: Sequence[str] = DEFAULT_DIRECTIONS,
    only: str = "",
    dtype: str = "float32",
) -> list[Case]:
    """The cases of some sets; those whose name holds every word of ``only``. Without batches, each layer's own.

    Raises
    ------
    ValueError
        For a name that is not known, or when no case is left.
    """
    _check("--set", "set", sets, SETS)
    _check("--direction", "direction", directions, DIRECTIONS)
    _check("--dtype", "dtype", [dtype], DTYPES)
    found = {(layer.set, layer.name): layer for name in sets for layer in SETS[name]()}
    cases = [
        Case(layer, batch, direction, dtype)
        for layer in found.values()
        for batch in (layer.batch,) * (layer.op == "update") or batches or (layer.batch,)
        for direction in OF_OP.get(layer.op, ("forward", "backward"))
        if direction in directions and (dtype not in PARTS or _of_complex(layer, direction))
    ]
    words = only.lower().split()
    kept = [case for case in cases if all(word in case.name.lower() for word in words)]
    if not kept:
        given = f"--set {','.join(sets)} --direction {','.join(directions)}" + (f" --only {only!r}" if only else "")
        remedy = f"rows: {', '.join(repr(layer.name) for layer in list(found.values())[:3])}, ..."
        if dtype in PARTS:
            given += f" --dtype {dtype}"
            remedy = f"complex numbers have no other ops than {', '.join(_OF_COMPLEX)}, and no fused ones."
        raise ValueError(message("bench", "no row is left to be measured.", f"given: {given}", remedy))
    return sorted(kept, key=_order)


def _of_complex(layer: Layer, direction: str) -> bool:
    """Whether complex numbers have it: networks and activations are of real ones."""
    return direction != "fused" and layer.op in _OF_COMPLEX


def _order(case: Case) -> tuple[int, int, int]:
    """Sets in their order, then directions, then batches; within these, layers as they were."""
    sets = list(SETS)
    place = sets.index(case.layer.set) if case.layer.set in sets else len(sets)
    return place, DIRECTIONS.index(case.direction), case.batch


def _check(option: str, kind: str, given: Sequence[str], known: Any) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        rule = f"no {kind} is called {unknown[0]!r}." if unknown else f"name at least one {kind}."
        raise ValueError(message(option, rule, "", f"known: {', '.join(known)}."))
