"""``xpconv predict``: ask a trained network what is on images."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from xpconv import ops, train
from xpconv.cli import model_file
from xpconv.cli.console import REFUSED, UsageError, columns, from_options, require
from xpconv.cli.pictures import Picture, read
from xpconv.cli.words import told
from xpconv.nn import Module
from xpconv.settings import use_engine

BATCH = 256  # images asked about at once
_TOP = 3


def run(options: argparse.Namespace) -> int:
    """Read, ask, print; answer the exit status."""
    require("train", ["PIL"])
    net, trained_on = model_file.load(model_file.find(Path(options.model)))
    pictures, refused = _read(options.images, trained_on)
    if not pictures:
        raise refused[0]
    answers = probabilities(net, np.stack([picture.pixels for picture in pictures]))
    results = [_result(picture, row, trained_on.class_names) for picture, row in zip(pictures, answers, strict=True)]
    print(json.dumps(results, indent=2, ensure_ascii=False) if options.json else _table(results, trained_on.shape))
    for error in refused:
        print(f"error: {told(error, options)}", file=sys.stderr)
    return REFUSED if refused else 0


def _read(paths: list[str], trained_on: model_file.Images) -> tuple[list[Picture], list[Exception]]:
    """The pictures of all files that have any, and what is wrong with the others."""
    pictures: list[Picture] = []
    refused: list[Exception] = []
    for path in paths:
        try:
            with from_options():
                pictures += read(Path(path), trained_on)
        except (UsageError, OSError) as error:
            refused.append(error)
    return pictures, refused


def probabilities(net: Module, images: np.ndarray) -> np.ndarray:
    """What the network makes of each class: (N, H, W, C) -> (N, classes), on the host."""
    outputs = train.predict(net, images, BATCH)
    with use_engine("auto"):  # an engine that was asked for serves the network, which may live elsewhere
        return ops.softmax(outputs)


def _result(picture: Picture, row: np.ndarray, class_names: tuple[str, ...]) -> dict[str, Any]:
    best = np.argsort(-row, kind="stable")[:_TOP]
    return {
        "image": picture.name,
        "resized_from": picture.resized_from,
        "converted_from": picture.converted_from,
        "classes": [{"class": class_names[i], "probability": _probability(row[i])} for i in best],
    }


def _probability(value: Any) -> float | None:
    """As JSON can say it: a network that is broken answers nan, and that is null."""
    return round(float(value), 6) if math.isfinite(value) else None


def _table(results: list[dict[str, Any]], shape: tuple[int, int, int]) -> str:
    most = max(len(result["classes"]) for result in results)
    heads = [text for nth in ("class", "second", "third")[:most] for text in (nth, "probability")]
    rows = [["image", *heads, ""]]
    for result in results:
        best = [(found["class"], found["probability"]) for found in result["classes"]]
        cells = [cell for name, p in best for cell in (name, "nan" if p is None else f"{p:.4f}")]
        resized, was = result["resized_from"], result["converted_from"]
        notes = [f"resized from {resized[0]}×{resized[1]} to {shape[0]}×{shape[1]}"] if resized else []
        notes += [f"from {was} to {'grey' if was == 'colour' else 'colour'}"] if was else []
        rows.append([result["image"], *cells, ", ".join(notes)])
    return "\n".join(columns(rows, indent=""))
