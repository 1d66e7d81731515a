"""``xpconv train``: train a network on labelled images and write what came of it."""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xpconv import nn, plot, train
from xpconv.backend import asarray, to_numpy
from xpconv.cli import model_file, resuming
from xpconv.cli.alone import alone_in
from xpconv.cli.chain import check_training
from xpconv.cli.console import INTERRUPTED, UsageError, columns, from_options, heading, require, say
from xpconv.cli.keeping import Files, Keeper
from xpconv.cli.pictures import full_brightness
from xpconv.cli.predict import BATCH, probabilities
from xpconv.errors import message
from xpconv.nn.summary import Summary
from xpconv.settings import current, precision
from xpconv.train.checkpoint import Kept, is_finite
from xpconv.train.leftover import check_last_batch

_QUICK = 10.0  # seconds that measuring an interrupted run may take
_WARM_UP = 0.1  # share of the run: at its full rate from the first step, Adam throws a wide layer far off
_LARGER = (16, 32, 64, 128, 224)  # sizes that are tried where images are too small for a network
_DIVERGED = 1  # the exit status of a run whose loss was not finite


def run(options: argparse.Namespace) -> int:
    """Train, save, measure, draw; answer the exit status."""
    live = train.progress.on_terminal()
    require("train", ["matplotlib", *(["rich"] if live else [])])
    options, kept = resuming.settled(options, Files.named(Path(options.out)).checkpoint)
    make = nn.models.MODELS.get(options.model)
    if make is None:
        known = f"known: {', '.join(nn.models.MODELS)}."
        raise UsageError(message("--model", f"no model is called {options.model!r}.", "", known))
    with precision(options.precision or current().precision):
        return _run(options, kept, make, live)


def _run(options: argparse.Namespace, kept: Kept | None, make: Callable[..., nn.Sequential], live: bool) -> int:
    """The run itself, of a model that is known."""
    with from_options():
        data = train.load(options.data, size=options.image_size)
        if len(data.class_names) < 2:
            rule, evidence = "there is one class, and nothing to tell it from.", f"class: {data.class_names[0]}"
            raise UsageError(message("--data", rule, evidence, "give images of at least two classes."))
        full = full_brightness(data.train_images)
        data, pixels = _in_unit_range(data, full)
        net = make(num_classes=len(data.class_names), in_channels=data.train_images.shape[-1])
        summary = _summary(options.model, net.initialize(seed=options.seed), data.train_images.shape[1:])
        check_training(net, data.train_images.shape[1:])
        example = asarray(np.zeros((1, *data.train_images.shape[1:]), np.float32))
        check_last_batch("--batch-size", net, example, len(data.train_images), options.batch_size)
    files = Files.within(Path(options.out))
    with alone_in(Path(options.out)) as alone:
        if alone:
            files.sweep()
        say(heading(_header(options, data, pixels, summary.parameters, files, kept)))
        images = model_file.Images(data.train_images.shape[1:], data.class_names, full)
        return _trained(options, data, net, images, files, kept, train.Bar("test") if live else train.Lines("test"))


def _trained(
    options: argparse.Namespace,
    data: train.Dataset,
    net: nn.Sequential,
    images: model_file.Images,
    files: Files,
    kept: Kept | None,
    shown: train.Progress,
) -> int:
    """Train and write; answer the exit status."""
    earlier = kept.history if kept is not None else train.History()
    keeper = Keeper(files, net, partial(model_file.save, net, images), shown.on_note, earlier)
    notes = resuming.notes(options, current())
    checkpoint = train.Checkpoint(files.checkpoint, resume=options.resume, notes=notes)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit: the loss is not finite", RuntimeWarning)  # it is told below
        history = train.fit(
            net,
            (data.train_images, data.train_labels),
            epochs=options.epochs,
            batch_size=options.batch_size,
            optimizer=train.Adam(options.lr, clip_norm=options.clip_norm),
            schedule=train.schedule.Cosine(warm_up=_WARM_UP),
            validation=(data.test_images, data.test_labels),
            seed=options.seed,
            progress=train.Together(shown, keeper),
            checkpoint=checkpoint,
        )
        if history.interrupted and not history and resuming.readable(files.checkpoint):  # whose --resume was offered
            say(f"stopped in epoch 1 of {options.epochs}; {options.out} is as the earlier run left it")
            return INTERRUPTED
        diverged = history.diverged or not is_finite(net)  # Ctrl-C, or the end, came before the epoch's loss told it
        if not diverged:
            files.model.parent.mkdir(parents=True, exist_ok=True)  # gone since the run began, perhaps
            model_file.save(net, images, files.model)
            history.save(files.history)
            if not checkpoint.epoch:
                files.checkpoint.unlink(missing_ok=True)  # an earlier run's would be taken for this one's
            _tell(net, data, history, files, options.epochs)
    if diverged:
        what, epoch = "loss" if history.diverged else "network", len(history) + history.interrupted
        rule = f"the {what} is not finite in epoch {epoch}; training stopped."
        told = f"{files.model} is of epoch {keeper.kept}" if keeper.kept else f"nothing is written to {options.out}"
        print("error:", message("train", rule, told, f"try a smaller --lr than {options.lr:g}."), file=sys.stderr)
        return _DIVERGED
    return INTERRUPTED if history.interrupted else 0


def _in_unit_range(data: train.Dataset, full: float | None) -> tuple[train.Dataset, str]:
    """The images with full brightness at 1, and in words what was done to them."""
    lowest, highest = (
        f"{number:g}" if number % 1 == 0 else f"{number:.3g}"
        for number in (data.train_images.min(), data.train_images.max())
    )
    spread = f"pixels {lowest} to {highest}"
    if full is None:
        return data, f"{spread}: taken as they are, and `xpconv predict` will take arrays of the same kind alone"
    if full == 1:
        return data, spread
    by = np.float32(full)
    scaled = replace(data, train_images=data.train_images / by, test_images=data.test_images / by)
    return scaled, f"{spread}, divided by {full:g}"


def _summary(model: str, net: nn.Sequential, shape: tuple[int, ...]) -> Summary:
    """What the network makes of such images; where it takes none so small, a size that it would take."""
    try:
        return net.summary(shape)
    except ValueError as error:
        height, width, channels = shape
        rule = f"{model} takes no images of {height} x {width} pixels."
        for size in _LARGER:
            with suppress(ValueError):
                net.summary((size, size, channels))
                larger = f"it takes {size} x {size}: --image-size {size} enlarges image files."
                remedy = f"{larger} For smaller ones: --model lenet"
                raise UsageError(message("--model", rule, str(error).splitlines()[0], remedy)) from error
        raise


def _header(
    options: argparse.Namespace, data: train.Dataset, pixels: str, parameters: int, files: Files, kept: Kept | None
) -> list[tuple[str, str]]:
    """What is about to be run."""
    settings, shape = current(), data.train_images.shape[1:]
    compute = resuming.computed_by(settings)
    output = f"{options.out}{resuming.replaced(files.checkpoint) if files.model.exists() else ''}"
    if kept is not None:
        output = f"{options.out}, where {len(kept.history)} of {kept.epochs} epochs are"
        before = kept.notes["compute"]
        compute += f" ({before} before: the same but for rounding)" if before != compute else ""
    images = f"{len(data.train_images):,} training and {len(data.test_images):,} test images"
    size = "×".join(map(str, shape))
    return [
        ("data", f"{options.data}: {images} {size}, {len(data.class_names)} classes, {pixels}"),
        ("model", f"{options.model}: {parameters:,} parameters"),
        ("compute", f"{compute}, precision {settings.precision}"),
        (
            "training",
            f"epochs: {options.epochs}, in batches of {min(options.batch_size, len(data.train_images))}; "
            f"Adam up to {options.lr:g}, then falling to 0 in a cosine; "
            + ("" if options.clip_norm is None else f"gradients clipped to a norm of {options.clip_norm:g}; ")
            + f"seed {options.seed}",
        ),
        ("output", output),
    ]


def _tell(net: nn.Sequential, data: train.Dataset, history: train.History, files: Files, epochs: int) -> None:
    """Print, measure and draw, once all that was learned is saved."""
    if history.interrupted:
        on = f"\n  --resume goes on after epoch {len(history)}" if history else ""
        say(f"stopped in epoch {len(history) + 1} of {epochs}; what was learned so far is kept{on}")
    tested = not history.interrupted or _is_quick(net, data.test_images)
    verdict = "not tested: that would take a while"
    if tested:
        answers = probabilities(net, data.test_images)
        verdict = f"test accuracy: {np.mean(answers.argmax(axis=1) == data.test_labels):.4f}"
    try:
        plot.learning_curves(files.curves, **_curves(history), validation_name="test")
        first = next(layer for layer in net.modules().values() if isinstance(layer, nn.Conv2d))
        plot.filters(files.filters, to_numpy(first.weight.value))
        if tested:
            plot.mistakes(files.mistakes, data.test_images, data.test_labels, answers, class_names=data.class_names)
        else:
            files.mistakes.unlink(missing_ok=True)  # an earlier run's would be taken for this one's
        written = [path for path in files if path.exists()]
        say("\n".join(columns([("" if i else "wrote", str(path)) for i, path in enumerate(written)], indent="")))
    finally:
        # The last line, whatever becomes of the pictures; not by `say`: the exit status tells that nobody reads.
        print(verdict, flush=True)


def _curves(history: train.History) -> dict[str, Any]:
    def of(name: str) -> list[float]:
        values = (getattr(record, name) for record in history)
        return [math.nan if value is None else value for value in values]

    return {
        "loss": of("loss"),
        "accuracy": of("accuracy"),
        "validation_loss": of("val_loss"),
        "validation_accuracy": of("val_accuracy"),
    }


def _is_quick(net: nn.Sequential, images: np.ndarray) -> bool:
    """Whether all images can be measured within `_QUICK` seconds, judged by the first batch."""
    started = time.perf_counter()
    batch = images[:BATCH]
    probabilities(net, batch)
    return (time.perf_counter() - started) * len(images) <= _QUICK * len(batch)
