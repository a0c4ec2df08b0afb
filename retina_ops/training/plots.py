"""A plot of a run's losses and validation AP."""

from __future__ import annotations

from pathlib import Path

from ..errors import needs_extra
from ..files import atomic_write
from .log import read_metrics


def plot_run(metrics: Path, path: Path) -> Path:
    """Plots losses and validation AP over the updates, from a ``metrics.jsonl``, as a PNG file. Returns its path."""
    with needs_extra("train"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    lines = read_metrics(metrics)
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    train = [line for line in lines if line["kind"] == "train"]
    for name in ("classification", "bbox_regression"):
        axes.plot([line["step"] for line in train], [line[name] for line in train], label=f"{name} loss", linewidth=1)
    axes.set_xlabel("update")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.spines["top"].set_visible(False)
    val = [line for line in lines if line["kind"] == "val"]
    right = axes.twinx()
    right.set_ylim(0, 1)
    right.set_ylabel("validation")
    right.spines["top"].set_visible(False)
    for name, style in (("AP", "-"), ("AP50", "--")):
        steps, values = [line["step"] for line in val], [line[name] or 0.0 for line in val]
        right.plot(steps, values, style, color="black", label=name, marker=".")
    handles = [*axes.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, frameon=False, loc="center right")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return path
