"""The plots of an evaluation report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import needs_extra
from .outcomes import Outcomes, ScoreCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEPARATE = 10  # with more classes, lines have no legend and cells no numbers
SHORT = 18  # characters of a class name on an axis


def new_figure(width: float = 8.0, height: float = 4.2) -> Figure:
    with needs_extra("train"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def plain_name(name: str) -> str:
    """A class name on a plot: shortened, without control characters; matplotlib's mathematics is not read in it."""
    shown = "".join(c if c.isprintable() else "?" for c in name)
    shown = shown if len(shown) <= SHORT else shown[: SHORT - 1] + "…"
    return shown.replace("$", r"\$")


def precision_recall(curves: Mapping[float, Mapping[str, ScoreCurve]]) -> Figure:
    """Precision over recall, one panel per IoU, one line per class."""
    figure = new_figure(3.4 * len(curves) + 1.2, 3.8)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (iou, by_class) in zip(panels, curves.items(), strict=True):
        many = len(by_class) > SEPARATE
        for name, curve in by_class.items():
            label = None if many else plain_name(name)
            axes.plot([0.0, *curve.recall], [1.0, *curve.precision], linewidth=1, alpha=0.6 if many else 1, label=label)
        axes.set(title=f"IoU {iou:g}", xlabel="recall", xlim=(0, 1.01), ylim=(0, 1.01))
        _plain(axes)
    panels[0].set_ylabel("precision")
    _legend(panels[-1])
    return figure


def f1_over_threshold(curves: Mapping[str, ScoreCurve]) -> Figure:
    """F1 over the score threshold, one line per class; a dot at its best threshold."""
    figure = new_figure()
    axes = figure.subplots()
    many = len(curves) > SEPARATE
    for name, curve in curves.items():
        line = axes.plot(curve.thresholds, curve.f1, linewidth=1, alpha=0.6 if many else 1,
                         label=None if many else plain_name(name))[0]  # fmt: skip
        if curve.best >= 0:
            axes.plot(curve.thresholds[curve.best], curve.f1[curve.best], "o", color=line.get_color(), markersize=4)
    axes.set(xlabel="score threshold", ylabel="F1", xlim=(0, 1), ylim=(0, 1.01))
    _plain(axes)
    _legend(axes)
    return figure


def score_histogram(outcomes: Outcomes) -> Figure:
    """How many detections of each score are right and wrong. The counts are on a logarithmic axis."""
    figure = new_figure()
    axes = figure.subplots()
    right = [item.score for item in outcomes.detections if item.kind == "hit"]
    wrong = [item.score for item in outcomes.detections if item.kind not in ("hit", "ignored")]
    axes.hist([right, wrong], bins=[i / 20 for i in range(21)], label=["right", "wrong"], color=["C0", "C3"])
    axes.set(xlabel="score", ylabel="detections", xlim=(0, 1))
    if right or wrong:
        axes.set_yscale("log")
    _plain(axes)
    _legend(axes)
    return figure


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Figure:
    """Shares of each row. Up to ten classes have the counts in the cells."""
    labels = [*map(plain_name, names), "background"]
    side = min(12.0, 2.8 + 0.42 * len(labels))
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    shares = [[value / max(1, sum(row)) for value in row] for row in matrix]
    picture = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    size = 9 if len(labels) <= 30 else 5
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(len(labels)), labels, fontsize=size)
    axes.set(xlabel="detected as", ylabel="object")
    if len(names) <= SEPARATE:
        for row, values in enumerate(matrix):
            for column, value in enumerate(values):
                color = "white" if shares[row][column] > 0.6 else "black"
                axes.text(column, row, str(value), ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(picture, ax=axes, label="share of the row")
    return figure


def recall_over_size(outcomes: Outcomes) -> Figure:
    """The share of objects that are found, over the square root of their area, with the number of objects."""
    figure = new_figure()
    axes = figure.subplots()
    sides = [_side(item.box) for item in outcomes.objects]
    edges = _size_edges(sides)
    found, count = [0] * (len(edges) - 1), [0] * (len(edges) - 1)
    for side, item in zip(sides, outcomes.objects, strict=True):
        place = min(max(sum(side >= edge for edge in edges) - 1, 0), len(count) - 1)
        count[place] += 1
        found[place] += item.score is not None
    shares = [f / c if c else 0.0 for f, c in zip(found, count, strict=True)]
    axes.bar(range(len(count)), shares, color="C0")
    names = [f"{edges[i]:.0f}-{edges[i + 1]:.0f}\n{count[i]} objects" for i in range(len(count))]
    axes.set_xticks(range(len(count)), names, fontsize=8)
    axes.set(xlabel="square root of the area, pixels", ylabel="share found", ylim=(0, 1.01))
    _plain(axes)
    return figure


def sizes(outcomes: Outcomes) -> Figure:
    """The sizes of objects and of detections, each as shares."""
    figure = new_figure()
    axes = figure.subplots()
    objects = [_side(item.box) for item in outcomes.objects]
    detections = [_side(item.box) for item in outcomes.detections]
    edges = _size_edges(objects + detections, 24)
    for values, name in ((objects, "objects"), (detections, "detections")):
        if values:
            axes.hist(values, bins=edges, weights=[1 / len(values)] * len(values), histtype="step", label=name)
    axes.set_xscale("log")
    axes.set(xlabel="square root of the area, pixels", ylabel="share")
    _plain(axes)
    _legend(axes)
    return figure


def class_counts(objects: Mapping[str, int], detections: Mapping[str, int]) -> Figure:
    """Objects and detections per class."""
    names = list(objects)
    figure = new_figure(min(14.0, 3 + 0.35 * len(names)), 4.2)
    axes = figure.subplots()
    for offset, (label, values) in zip((-0.2, 0.2), (("objects", objects), ("detections", detections)), strict=True):
        axes.bar([i + offset for i in range(len(names))], [values[name] for name in names], 0.4, label=label)
    size = 9 if len(names) <= 30 else 6
    axes.set_xticks(
        range(len(names)), list(map(plain_name, names)), rotation=90 if len(names) > 6 else 0, fontsize=size
    )
    axes.set_ylabel("count")
    _plain(axes)
    _legend(axes)
    return figure


def _size_edges(sides: Sequence[float], bins: int = 8) -> list[float]:
    """Edges with equal ratios that hold all sides."""
    low, high = max(1.0, min(sides, default=1.0)), max(2.0, max(sides, default=2.0))
    if high <= low * 1.01:
        low, high = low / 2, high * 2
    step = (math.log(high * 1.001) - math.log(low)) / bins
    return [low * math.exp(step * i) for i in range(bins + 1)]


def _side(box: tuple[float, float, float, float]) -> float:
    return math.sqrt(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Any) -> None:
    """Beside the data, never over it."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
