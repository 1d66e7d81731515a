"""What is left over of an epoch: one example, on which some networks cannot be trained. Told before training begins."""

from __future__ import annotations

import copy
import itertools

from xpconv.backend import Array
from xpconv.errors import counted, message
from xpconv.nn import BatchNorm, Module
from xpconv.settings import use_engine


def check_last_batch(subject: str, net: Module, example: Array, samples: int, batch_size: int) -> None:
    """Refuse a batch size whose last batch is one example, where a batch norm would have one value of each channel.

    Only networks with a batch norm are looked at. Which values that gets is the network's own affair: a copy is given
    the example as in training, for what it says of it.

    Raises
    ------
    ValueError
    """
    if (samples - 1) % batch_size or not any(isinstance(layer, BatchNorm) for layer in net.modules().values()):
        return
    try:
        trial = copy.deepcopy(net)  # statistics move, and masks are drawn
    except TypeError:  # a layer of one's own keeps what cannot be copied: training finds out
        return
    try:
        with use_engine("portable"):  # shapes are those of any engine, and this one compiles nothing for them
            trial.vjp(example, needs_input=False)
    except ValueError as error:
        rule = "the last batch of an epoch is one example, on which this network cannot be trained."
        if batch_size == 1:
            rule = "this network cannot be trained on batches of one example."
        told = "; ".join((str(error).splitlines()[0].rstrip("."), *getattr(error, "__notes__", ())))
        evidence = f"{counted(samples, 'image')} in batches of {batch_size}\n  {told}"
        raise ValueError(message(subject, rule, evidence, _remedy(samples, batch_size))) from error


def _remedy(samples: int, batch_size: int) -> str:
    if samples == 1:
        return "give it two images at least."
    larger = next(size for size in itertools.count(batch_size + 1) if (samples - 1) % size)
    return f"with a batch size of {larger} there is none such."
