"""What to look at before training: the ground truth drawn, class counts, box sizes, and how the anchors fit them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from .._deprecated import MATCHING, renamed_arguments
from ..errors import needs_extra
from ..files import write_json
from .dataset import DetectionDataset
from .drawing import draw_detections, save_png

with needs_extra("train"):
    import torch
    from torch import Tensor

Anchors = Tensor | Callable[[int, int], Tensor]
SIZE_EDGES = (0, 8, 16, 32, 64, 96, 128, 256, 512, 1024)  # square root of a box's area, pixels


@renamed_arguments(**MATCHING)
def inspect_dataset(
    dataset: DetectionDataset,
    anchors: Anchors,
    output: str | Path | None = None,
    *,
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
    pictures: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Summarise a data set and match its boxes with a model's anchors.

    Args:
        dataset: the data set; images are read for the pictures only.
        anchors: ``[A, 4]`` (x1, y1, x2, y2) in pixels of the images as stored, or a function of (height, width) that
            returns them, for images of differing sizes. A model that resizes images must scale its anchors back.
        output: folder for ``summary.json``, ``class_counts.png``, ``box_sizes.png``, ``anchor_iou.png`` and
            ``ground_truth/*.png``. None: nothing is written.
        fg_iou_thresh, bg_iou_thresh: the model's matching thresholds, as in `retina_ops.match_anchors`.
        pictures: how many images are drawn, evenly spread over the data set.
        progress: called with (images done, images in all).

    Returns:
        The summary, JSON-ready:

        - ``images``, ``images_without_boxes``, ``boxes``, ``crowd_boxes``
        - ``classes``: name -> ``boxes``, ``images``, ``median_size`` (square root of the area), ``mean_best_iou``
        - ``box_sizes``: ``edges`` and ``counts`` of the histogram; ``small``, ``medium``, ``large`` (32 and 96 pixels)
        - ``best_anchor_iou``: ``mean``, ``p10``, ``p50``, ``below_bg_iou``, ``below_fg_iou`` (shares of the boxes)
        - ``anchors_an_image``: means of ``positive``, ``ignored`` and ``negative``; ``fewest_positive`` and
          ``most_positive`` on one image; ``images_without_positives``
        - ``remarks``: sentences on what deserves a look
    """
    from retina_ops import box_iou, match_anchors

    anchors_of = lru_cache(maxsize=64)(anchors) if callable(anchors) else lambda height, width: anchors
    columns: dict[str, list[Tensor]] = {"labels": [], "sizes": [], "best_iou": []}
    positives, ignored, negatives = [], [], []
    images_of_class = torch.zeros(len(dataset.categories), dtype=torch.int64)
    empty = crowds = 0
    for index in range(len(dataset)):
        target = dataset.target(index)
        crowd = target["iscrowd"].bool()
        boxes, labels = target["boxes"][~crowd], target["labels"][~crowd]
        grid = anchors_of(*dataset.image_size(index)).to(boxes)
        regions = target["boxes"][crowd] if crowd.any() else None
        matches = match_anchors(grid, boxes, fg_iou_thresh, bg_iou_thresh, True, ignore_regions=regions)
        positives.append(int((matches >= 0).sum()))
        negatives.append(int((matches == -1).sum()))
        ignored.append(int((matches == -2).sum()))
        columns["labels"].append(labels)
        columns["sizes"].append((boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt())
        columns["best_iou"] += [box_iou(part, grid).amax(dim=1) for part in boxes.split(32) if len(part)]
        images_of_class[labels.unique()] += 1
        empty += len(boxes) == 0
        crowds += int(crowd.sum())
        if progress is not None:
            progress(index + 1, len(dataset))
    label, size, best = (torch.cat(column) if column else torch.zeros(0) for column in columns.values())
    summary: dict[str, Any] = {
        "name": dataset.name,
        "images": len(dataset),
        "images_without_boxes": empty,
        "boxes": len(size),
        "crowd_boxes": crowds,
        "classes": _class_rows(dataset.category_names, label, size, best, images_of_class),
        "box_sizes": _size_rows(size),
        "best_anchor_iou": _iou_rows(best, fg_iou_thresh, bg_iou_thresh),
        "anchors_an_image": {
            "positive": _mean(positives),
            "ignored": _mean(ignored),
            "negative": _mean(negatives),
            "fewest_positive": min(positives, default=0),
            "most_positive": max(positives, default=0),
            "images_without_positives": sum(count == 0 for count in positives),
        },
    }
    summary["remarks"] = _remarks(summary, fg_iou_thresh)
    if output is not None:
        folder = Path(output)
        _draw_ground_truth(dataset, folder / "ground_truth", pictures)
        _plot(summary, best, fg_iou_thresh, bg_iou_thresh, folder)
        write_json(folder / "summary.json", summary, indent=2)
    return summary


def _class_rows(
    names: list[str], label: Tensor, size: Tensor, best: Tensor, images_of_class: Tensor
) -> dict[str, dict[str, Any]]:
    rows = {}
    for index, name in enumerate(names):
        mine = label == index
        some = bool(mine.any())
        rows[name] = {
            "boxes": int(mine.sum()),
            "images": int(images_of_class[index]),
            "median_size": round(float(size[mine].median()), 2) if some else None,
            "mean_best_iou": round(float(best[mine].mean()), 4) if some else None,
        }
    return rows


def _size_rows(size: Tensor) -> dict[str, Any]:
    edges = torch.tensor(SIZE_EDGES[1:], dtype=size.dtype)
    counts = torch.bincount(torch.bucketize(size, edges, right=True), minlength=len(SIZE_EDGES))
    small, large = int((size < 32).sum()), int((size >= 96).sum())
    return {
        "edges": list(SIZE_EDGES),
        "counts": counts.tolist(),
        "small": small,
        "medium": len(size) - small - large,
        "large": large,
    }


def _iou_rows(best: Tensor, fg_iou_thresh: float, bg_iou_thresh: float) -> dict[str, float | None]:
    if len(best) == 0:
        return dict.fromkeys(("mean", "p10", "p50", "below_bg_iou", "below_fg_iou"))
    order = best.sort().values
    return {
        "mean": round(float(best.mean()), 4),
        "p10": round(float(order[int(0.1 * (len(order) - 1))]), 4),
        "p50": round(float(order[int(0.5 * (len(order) - 1))]), 4),
        "below_bg_iou": round(float((best < bg_iou_thresh).float().mean()), 4),
        "below_fg_iou": round(float((best < fg_iou_thresh).float().mean()), 4),
    }


def _remarks(summary: dict[str, Any], fg_iou_thresh: float) -> list[str]:
    remarks = []
    rows = summary["classes"]
    missing = [name for name, row in rows.items() if row["boxes"] == 0]
    rare = [f"{name} ({row['boxes']})" for name, row in rows.items() if 0 < row["boxes"] < 10]
    if missing:
        remarks.append(f"{len(missing)} classes have no box: {', '.join(missing[:10])}")
    if rare:
        remarks.append(f"{len(rare)} classes have fewer than 10 boxes: {', '.join(rare[:10])}")
    below = summary["best_anchor_iou"]["below_fg_iou"] or 0.0
    if below > 0.1:
        remarks.append(
            f"{below:.0%} of the boxes reach no anchor by IoU {fg_iou_thresh}: they train through their single "
            "best anchor alone; other anchor sizes or a larger image would fit them better"
        )
    if summary["images_without_boxes"]:
        remarks.append(f"{summary['images_without_boxes']} images have no box: they train as background")
    unmatched = summary["anchors_an_image"]["images_without_positives"] - summary["images_without_boxes"]
    if unmatched > 0:
        remarks.append(f"{unmatched} images have boxes that no anchor touches")
    return remarks


def _draw_ground_truth(dataset: DetectionDataset, folder: Path, pictures: int) -> None:
    count = min(pictures, len(dataset))
    for index in sorted({i * len(dataset) // count for i in range(count)}):
        image, target = dataset[index]
        drawn = draw_detections(
            image, target["boxes"], target["labels"], dataset.category_names, dashed=target["iscrowd"].bool()
        )
        save_png(drawn, folder / Path(dataset.file_name(index)).with_suffix(".png").name)


def _plot(summary: dict[str, Any], best: Tensor, fg_iou_thresh: float, bg_iou_thresh: float, folder: Path) -> None:
    with needs_extra("train"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    def chart(file: str, title: str, draw: Callable[[Any], None], width: float = 6.4) -> None:
        figure = Figure(figsize=(width, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / file, dpi=110)

    def class_counts(axes: Any) -> None:
        names = list(summary["classes"])
        axes.bar(range(len(names)), [row["boxes"] for row in summary["classes"].values()])
        axes.set_xticks(range(len(names)), names, rotation=0 if len(names) <= 10 else 90)
        axes.set_ylabel("boxes")

    def box_sizes(axes: Any) -> None:
        edges, counts = summary["box_sizes"]["edges"], summary["box_sizes"]["counts"]
        ticks = [f"{low}-{high}" for low, high in pairwise(edges)] + [f">{edges[-1]}"]
        axes.bar(range(len(counts)), counts)
        axes.set_xticks(range(len(counts)), ticks, rotation=45)
        axes.set_xlabel("square root of the area, pixels")
        axes.set_ylabel("boxes")

    def anchor_iou(axes: Any) -> None:
        axes.hist(best.tolist(), bins=[i / 20 for i in range(21)])
        for name, value in (("background below", bg_iou_thresh), ("foreground from", fg_iou_thresh)):
            axes.axvline(
                value, color="black", linestyle=":" if value == bg_iou_thresh else "--", label=f"{name} {value}"
            )
        axes.set_xlabel("IoU with the best anchor")
        axes.set_ylabel("boxes")
        axes.legend(frameon=False)

    folder.mkdir(parents=True, exist_ok=True)
    chart("class_counts.png", "Boxes a class", class_counts, min(20.0, max(6.4, 0.25 * len(summary["classes"]))))
    chart("box_sizes.png", "Box sizes", box_sizes)
    chart("anchor_iou.png", "How the anchors fit", anchor_iou)


def _mean(values: list[int]) -> float:
    return round(sum(values) / len(values), 2) if values else 0.0
