"""The ratios as a picture: a dot for each row and peer, on a logarithmic axis around 1."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

from xpconv.bench.result import Result, Row
from xpconv.plot import canvas

# Colours of the Okabe-Ito palette, told apart with every kind of colour vision, and shapes for print.
_PEERS = {
    "torch": ("#D55E00", "o"),
    "torch-graph": ("#CC79A7", "^"),
    "jax": ("#0072B2", "s"),
    "im2col": ("#009E73", "D"),
    "launch": ("#56B4E9", "v"),
}
_OTHERS = ("#999999", "X")  # xpconv on other engines
_LINE = 0.19  # inches
# Ticks, the most wanted first; each has its inverse too.
_TICKS = (1, 2, 10, 5, 100, 3, 1.5, 20, 50, 1.25, 1.1, 1000, 200, 500)

Label = tuple[str, int, str]  # set, batch, layer


def draw(result: Result, path: str | os.PathLike[str]) -> None:
    """Write the picture: forward and backward side by side, rows by set, training steps below; faster is to the right.

    Parameters
    ----------
    result : Result
        With at least one peer.
    path : path-like
        The PNG file; replaced whole.
    """
    found = list(dict.fromkeys(row.case.direction for row in result.rows))
    above, below = [d for d in found if d != "step"], [d for d in found if d == "step"]
    labels = {d: _labels(row for row in result.rows if (row.case.direction == "step") == (d == "step")) for d in found}
    ratios = [r for row in result.rows for peer in result.plan.peers if (r := row.ratio(peer)) is not None]
    slowest, fastest = min([0.8, *ratios]) / 1.1, max([1.25, *ratios]) * 1.1

    columns = max(1, len(above))
    mosaic = [row for row in (above, below + ["."] * (columns - 1) if below else []) if row] or [["nothing"]]
    heights = [_lines(labels.get(row[0], [])) for row in mosaic]
    figure = canvas.figure(1.6 + 3.6 * columns, 0.7 + 0.8 * len(mosaic) + _LINE * sum(heights))
    panels = figure.subplot_mosaic(mosaic, height_ratios=heights)
    for direction, axes in panels.items():
        rows = [row for row in result.rows if row.case.direction == direction]
        _panel(axes, labels.get(direction, []), rows, result.plan.peers)
        axes.set_title(direction, loc="left", color=canvas.INK, fontsize=11)
        axes.tick_params(labelleft=direction not in above[1:])
        _scale(axes, slowest, fastest)
    figure.suptitle(f"xpconv beside its peers: {_machine(result)}", color=canvas.INK, fontsize=11)
    _legend(figure, result)
    canvas.write(figure, path)


def _machine(result: Result) -> str:
    """What it was measured on, and in which precision."""
    facts = result.facts
    threads = facts.get("threads", 0)
    where = facts.get("gpu") or f"{facts.get('cpu', 'unknown')}, {threads} thread" + "s" * (threads != 1)
    return f"{where}; {facts.get('dtype', 'float32')}, {facts.get('precision', 'ieee')}"


def _labels(rows: Iterable[Row]) -> list[Label]:
    """What the rows are called, each once, a group's together."""
    labels = dict.fromkeys((row.case.layer.set, row.case.batch, row.case.layer.name) for row in rows)
    groups = list(dict.fromkeys(label[:2] for label in labels))
    return sorted(labels, key=lambda label: groups.index(label[:2]))


def _lines(labels: Sequence[Label]) -> int:
    """Lines of a panel: its rows, and one for each group's name."""
    return max(2, len(labels) + len({label[:2] for label in labels}))


def _panel(axes: Any, labels: Sequence[Label], rows: Sequence[Row], peers: Sequence[str]) -> None:
    """One line for each label, under a line for each group's name."""
    lines: list[tuple[str, bool]] = []
    for i, label in enumerate(labels):
        if i == 0 or label[:2] != labels[i - 1][:2]:
            lines.append((f"{label[0]}, batch {label[1]}", True))
        axes.axhline(len(lines), color=canvas.FAINT, linewidth=0.6, zorder=0)
        for row in rows:
            if (row.case.layer.set, row.case.batch, row.case.layer.name) == label:
                _dots(axes, len(lines), row, peers)
        lines.append((label[2], False))
    axes.set_yticks(range(len(lines)), [text for text, _ in lines])
    for tick, (_, is_head) in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set(fontsize=8, color=canvas.INK, fontweight="bold" if is_head else "normal", parse_math=False)
    axes.axvline(1, color=canvas.INK, linewidth=1.0, zorder=1)
    axes.set_ylim(_lines(labels) - 0.4, -0.8)


def _dots(axes: Any, at: int, row: Row, peers: Sequence[str]) -> None:
    for peer in peers:
        ratio = row.ratio(peer)
        if ratio is not None:
            colour, marker = _PEERS.get(peer, _OTHERS)
            look = (
                {"fillstyle": "none", "markersize": 4}
                if row.doubtful(peer)
                else {"markeredgewidth": 0, "markersize": 5}
            )
            axes.plot([ratio], [at], marker, color=colour, zorder=2, **look)


def _scale(axes: Any, slowest: float, fastest: float) -> None:
    """A logarithmic axis with ticks at plain numbers."""
    from matplotlib.ticker import NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(slowest, fastest)
    ticks = _ticks(slowest, fastest)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.grid(axis="x", color=canvas.FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(canvas.FAINT)
    axes.tick_params(colors=canvas.INK, length=0, labelsize=8)
    axes.set_xlabel("slower  ←  peer's time / xpconv's time  →  faster", color=canvas.INK, fontsize=9)


def _ticks(slowest: float, fastest: float) -> dict[float, str]:
    """Places and texts, those most wanted first, as many as there is room for."""
    apart = 0.11 * math.log(fastest / slowest)
    kept: dict[float, str] = {}
    for tick in _TICKS:
        for place, text in ((float(tick), f"{tick:g}"), (1 / tick, f"1/{tick:g}")):
            if slowest < place < fastest and all(abs(math.log(place / other)) >= apart for other in kept):
                kept[place] = text
    return kept


def _legend(figure: Any, result: Result) -> None:
    from matplotlib.lines import Line2D

    marks = []
    for peer in result.plan.peers:
        colour, marker = _PEERS.get(peer, _OTHERS)
        name = f"{peer} {result.facts.get('versions', {}).get(peer, '')}".strip()
        marks.append(Line2D([], [], linestyle="", marker=marker, color=colour, markeredgewidth=0, label=name))
    if any(row.doubtful(peer) for row in result.rows for peer in result.plan.peers):
        marks.append(
            Line2D([], [], linestyle="", marker="o", color=canvas.INK, fillstyle="none", label="hollow: unsteady")
        )
    figure.legend(
        handles=marks,
        loc="outside lower center",
        ncols=max(1, len(marks)),
        frameon=False,
        fontsize=9,
        labelcolor=canvas.INK,
    )
