"""Precision-recall curves as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import needs_extra
from ..files import atomic_write
from .coco import PrecisionRecall

_NAMED = 12  # with more classes only the mean has a label


def plot_precision_recall(
    curves: Mapping[str, PrecisionRecall], path: str | Path, *, title: str = "Precision and recall at IoU 0.5"
) -> Path:
    """Draw precision over recall, one line per class and a black line for their mean.

    Args:
        curves: ``Evaluation.precision_recall``. The axes stay empty if there are none.
        path: the PNG to write; missing folders are created.
        title: above the axes.

    Returns:
        The path.
    """
    with needs_extra("train"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    classes = {name: curve for name, curve in curves.items() if name != "mean"}
    for name, curve in classes.items():
        average = sum(curve.precision) / len(curve.precision)
        many = len(classes) > _NAMED
        label = None if many else f"{name} (AP50 {average:.3f})"
        axes.plot(curve.recall, curve.precision, linewidth=0.6 if many else 1.2, alpha=0.5 if many else 1, label=label)
    if "mean" in curves:
        mean = curves["mean"]
        average = sum(mean.precision) / len(mean.precision)
        axes.plot(mean.recall, mean.precision, color="black", linewidth=2.2, label=f"mean (AP50 {average:.3f})")
        axes.legend(loc="lower left", fontsize="small", frameon=False)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return Path(path)
