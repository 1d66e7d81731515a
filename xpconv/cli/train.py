"""``xpconv train``: train a network on labelled images and write what came of it."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from xpconv import nn, plot, train
from xpconv.backend import to_numpy
from xpconv.cli import model_file
from xpconv.cli.console import INTERRUPTED, UsageError, columns, from_options, require, say
from xpconv.cli.predict import BATCH, probabilities
from xpconv.errors import message
from xpconv.settings import current

_FILES = ("model.safetensors", "history.jsonl", "curves.png", "filters.png", "mistakes.png")
_QUICK = 10.0  # seconds that measuring an interrupted run may take
_WARM_UP = 0.1  # share of the run: at its full rate from the first step, Adam throws a wide layer far off
_DIVERGED = 1  # the exit status of a run whose loss was not finite


def run(options: argparse.Namespace) -> int:
    """Train, save, measure, draw; answer the exit status."""
    live = train.progress.on_terminal()
    require("train", ["matplotlib", *(["rich"] if live else [])])
    make = nn.models.MODELS.get(options.model)
    if make is None:
        known = f"known: {', '.join(nn.models.MODELS)}."
        raise UsageError(message("--model", f"no model is called {options.model!r}.", "", known))
    with from_options():
        data = train.load(options.data, size=options.image_size)
        net = make(num_classes=len(data.class_names), in_channels=data.train_images.shape[-1])
        header = _header(options, data, net.initialize(seed=options.seed))
    files = _places(Path(options.out))
    say("\n".join(columns(header, indent="")))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit: the loss is not finite", RuntimeWarning)  # it is told below
        history = train.fit(
            net,
            (data.train_images, data.train_labels),
            epochs=options.epochs,
            batch_size=options.batch_size,
            optimizer=train.Adam(options.lr),
            schedule=train.schedule.Cosine(warm_up=_WARM_UP),
            validation=(data.test_images, data.test_labels),
            seed=options.seed,
            progress=train.Bar("test") if live else train.Lines("test"),
        )
        _write(net, data, history, files, options.epochs)
    if history.diverged:
        rule = f"the loss is not finite in epoch {len(history)}; training stopped."
        print("error:", message("train", rule, "", f"try a smaller --lr than {options.lr:g}."), file=sys.stderr)
        return _DIVERGED
    return INTERRUPTED if history.interrupted else 0


def _places(out: Path) -> list[Path]:
    """The files to be written, known to be possible before any training."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / name for name in _FILES]
    taken = next((path for path in files if path.is_dir()), None)
    if taken is not None:
        raise UsageError(message("--out", f"{str(taken)!r} is a folder, where a file is to be written."))
    try:
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UsageError(message("--out", f"{str(files[0])!r} cannot be written.", str(error.strerror))) from error
    return files


def _header(options: argparse.Namespace, data: train.Dataset, net: nn.Sequential) -> list[tuple[str, str]]:
    """What is about to be run."""
    settings, shape = current(), data.train_images.shape[1:]
    engines = ",".join(settings.engine) if settings.engine else "auto"
    images = f"{len(data.train_images):,} training and {len(data.test_images):,} test images"
    size = "×".join(map(str, shape))
    pixels = f"pixels {data.train_images.min():g} to {data.train_images.max():g}"
    return [
        ("data", f"{options.data}: {images} {size}, {len(data.class_names)} classes, {pixels}"),
        ("model", f"{options.model}: {net.summary(shape).parameters:,} parameters"),
        ("compute", f"backend {settings.backend}, engine {engines}, precision {settings.precision}"),
        (
            "training",
            f"epochs: {options.epochs}, in batches of {options.batch_size}; "
            f"Adam up to {options.lr:g}, then falling to 0 in a cosine; seed {options.seed}",
        ),
        ("output", options.out),
    ]


def _write(net: nn.Sequential, data: train.Dataset, history: train.History, files: list[Path], epochs: int) -> None:
    """Save first, then print, measure and draw: nothing that was learned depends on what comes after it."""
    model, lines, curves, filters, mistakes = files
    height, width, channels = data.train_images.shape[1:]
    model_file.save(net, model_file.Images((height, width, channels), data.class_names), model)
    history.save(lines)
    if history.interrupted:
        say(f"stopped in epoch {len(history) + 1} of {epochs}; what was learned so far is kept")
    tested = not history.interrupted or _is_quick(net, data.test_images)
    verdict = "not tested: that would take a while"
    if tested:
        answers = probabilities(net, data.test_images)
        verdict = f"test accuracy: {np.mean(answers.argmax(axis=1) == data.test_labels):.4f}"
    try:
        plot.learning_curves(curves, **_curves(history), validation_name="test")
        first = next(layer for layer in net.modules().values() if isinstance(layer, nn.Conv2d))
        plot.filters(filters, to_numpy(first.weight.value))
        if tested:
            plot.mistakes(mistakes, data.test_images, data.test_labels, answers, class_names=data.class_names)
        else:
            mistakes.unlink(missing_ok=True)  # an earlier run's would be taken for this one's
        written = files if tested else files[:-1]
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
