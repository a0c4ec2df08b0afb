"""Pictures of a data set before training: ground truth drawn on images, and plots of the summary's statistics."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import needs_extra
from ..files import NewNames
from ..output_folder import OutputFolder
from .dataset import DetectionDataset
from .drawing import draw_detections, to_picture

with needs_extra("train"):
    from torch import Tensor

_MOST_LEVEL_NAMES = 10  # with more classes, their names are rotated by 90 degrees


PLOTS = ("class_counts.png", "box_sizes.png", "anchor_iou.png")


def picture_names(dataset: DetectionDataset, pictures: int) -> dict[int, str]:
    """The images to draw, evenly spread over the data set, and a name for the picture of each."""
    count, names = min(pictures, len(dataset)), NewNames(".png")
    indices = sorted({number * len(dataset) // count for number in range(count)})
    return {index: "ground_truth/" + names.add(Path(dataset.file_name(index)).name) for index in indices}


def draw_ground_truth(dataset: DetectionDataset, output: OutputFolder, names: dict[int, str]) -> None:
    """Writes images with their boxes as PNG files of the given names."""
    for index, name in names.items():
        image, target = dataset[index]
        drawn = draw_detections(
            image, target["boxes"], target["labels"], dataset.category_names, thin=target["iscrowd"].bool()
        )
        with output.writing(name) as temporary:
            to_picture(drawn).save(temporary, format="PNG")


def plot_inspection(
    summary: dict[str, Any], best_ious: Tensor, fg_iou_thresh: float, bg_iou_thresh: float, output: OutputFolder
) -> None:
    """Writes ``class_counts.png``, ``box_sizes.png`` and ``anchor_iou.png``.

    Args:
        summary: what `retina_ops.data.inspect_dataset` returns.
        best_ious: ``[boxes]``, the IoU of each box with its best anchor.
        fg_iou_thresh, bg_iou_thresh: the model's matching thresholds, drawn as lines.
        output: folder of the files.
    """
    width = min(20.0, max(6.4, 0.25 * len(summary["classes"])))
    counts, sizes, ious = PLOTS
    _plot(output, counts, "Boxes per class", lambda axes: _class_counts(axes, summary["classes"]), width)
    _plot(output, sizes, "Box sizes", lambda axes: _box_sizes(axes, summary["box_sizes"]))
    _plot(
        output,
        ious,
        "How well the anchors fit the boxes",
        lambda axes: _anchor_iou(axes, best_ious, fg_iou_thresh, bg_iou_thresh),
    )


def _plot(output: OutputFolder, name: str, title: str, draw: Callable[[Any], None], width: float = 6.4) -> None:
    """Writes a plot of one pair of axes; ``width`` is in inches."""
    with needs_extra("train"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    with output.writing(name) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _class_counts(axes: Any, classes: dict[str, dict[str, Any]]) -> None:
    names = list(classes)
    axes.bar(range(len(names)), [row["boxes"] for row in classes.values()])
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) <= _MOST_LEVEL_NAMES else 90)
    axes.set_ylabel("boxes")


def _box_sizes(axes: Any, histogram: dict[str, Any]) -> None:
    edges, counts = histogram["edges"], histogram["counts"]
    ticks = [f"{low}-{high}" for low, high in pairwise(edges)] + [f"≥{edges[-1]}"]
    axes.bar(range(len(counts)), counts)
    axes.set_xticks(range(len(counts)), ticks, rotation=45)
    axes.set_xlabel("square root of the area, pixels")
    axes.set_ylabel("boxes")


def _anchor_iou(axes: Any, best_ious: Tensor, fg_iou_thresh: float, bg_iou_thresh: float) -> None:
    axes.hist(best_ious.tolist(), bins=[step / 20 for step in range(21)])
    axes.axvline(bg_iou_thresh, color="black", linestyle=":", label=f"background below {bg_iou_thresh}")
    axes.axvline(fg_iou_thresh, color="black", linestyle="--", label=f"foreground from {fg_iou_thresh}")
    axes.set_xlabel("IoU with the best anchor")
    axes.set_ylabel("boxes")
    axes.legend(frameon=False)
