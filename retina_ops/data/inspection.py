"""What to look at before training: class counts, box sizes, and how well a model's anchors fit the boxes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from .._deprecated import MATCHING, renamed_arguments
from ..errors import needs_extra
from ..ops.anchor_matching import match_anchors
from ..ops.box_iou import box_iou
from ..output_folder import OutputFolder
from .dataset import DetectionDataset
from .export import source_files
from .inspection_plots import PLOTS, draw_ground_truth, picture_names, plot_inspection

with needs_extra("train"):
    import torch
    from torch import Tensor

Anchors = Tensor | Callable[[int, int], Tensor]
SIZE_EDGES = (0, 8, 16, 32, 64, 96, 128, 256, 512, 1024)  # square root of a box's area, pixels
_BOXES_AT_ONCE = 32  # rows of the IoU matrix that are in memory at the same time


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
    """Summarizes a data set and matches its boxes with a model's anchors.

    Args:
        dataset: the data set. Its images are read only for the pictures.
        anchors: ``[A, 4]`` (x1, y1, x2, y2) in pixels of the images as stored; or, for images of different sizes, a
            function of (height, width) that returns them. The anchors of a model that resizes images have to be
            scaled back to the stored image.
        output: folder for ``summary.json``, ``class_counts.png``, ``box_sizes.png``, ``anchor_iou.png`` and
            ``ground_truth/*.png``. None: no files are written. A file that exists is replaced only if this function
            wrote it.
        fg_iou_thresh, bg_iou_thresh: the model's matching thresholds, see `retina_ops.match_anchors`.
        pictures: number of images to draw, evenly spread over the data set.
        progress: called with (images done, images in all).

    Returns:
        The summary, as plain values for JSON:

        - ``images``, ``images_without_boxes``, ``boxes``, ``crowd_boxes``
        - ``changed_boxes``: numbers of boxes that were clipped or left out, by kind, see `CheckedBoxes`
        - ``classes``: name -> ``boxes``, ``images``, ``median_size`` (square root of the area), ``mean_best_iou``
        - ``box_sizes``: ``edges`` and ``counts`` of the histogram; ``small``, ``medium``, ``large`` (32 and 96 pixels)
        - ``best_anchor_iou``: ``mean``, ``p10``, ``p50``, ``below_bg_iou``, ``below_fg_iou`` (fractions of the boxes)
        - ``anchors_per_image``: means of ``positive``, ``ignored`` and ``negative``; ``fewest_positive`` and
          ``most_positive`` on one image; ``images_without_positives``
        - ``remarks``: sentences about what may be a problem

    Raises:
        DataError: a file exists in ``output`` that this function did not write.
        OSError: a file cannot be written.
    """
    folder = OutputFolder("" if output is None else output, "inspect", inputs=source_files(dataset))
    names = picture_names(dataset, pictures)
    if output is not None:
        folder.check([*PLOTS, "summary.json", *names.values()])
    statistics = _Statistics(dataset, fg_iou_thresh, bg_iou_thresh)
    anchors_of = lru_cache(maxsize=64)(anchors) if callable(anchors) else lambda height, width: anchors
    for index in range(len(dataset)):
        statistics.add(dataset.target(index), anchors_of(*dataset.image_size(index)))
        if progress is not None:
            progress(index + 1, len(dataset))
    summary = statistics.summary()
    if output is not None:
        draw_ground_truth(dataset, folder, names)
        plot_inspection(summary, statistics.best_ious(), fg_iou_thresh, bg_iou_thresh, folder)
        folder.write_json("summary.json", summary, indent=2)
    return summary


class _Statistics:
    """Boxes and matches of a data set, collected image by image.

    Args:
        dataset: gives the name and the classes.
        fg_iou_thresh, bg_iou_thresh: the model's matching thresholds.
    """

    def __init__(self, dataset: DetectionDataset, fg_iou_thresh: float, bg_iou_thresh: float) -> None:
        self.dataset = dataset
        self.fg_iou_thresh, self.bg_iou_thresh = fg_iou_thresh, bg_iou_thresh
        # Per box, crowd regions excluded: label, square root of the area, IoU with the best anchor.
        self._labels: list[Tensor] = []
        self._sizes: list[Tensor] = []
        self._best_ious: list[Tensor] = []
        # Per image: numbers of anchors.
        self._positive: list[int] = []
        self._ignored: list[int] = []
        self._negative: list[int] = []
        self._images_of_class = torch.zeros(len(dataset.categories), dtype=torch.int64)
        self._images_without_boxes = self._crowd_boxes = 0

    def add(self, target: dict[str, Any], anchors: Tensor) -> None:
        """Adds an image; ``anchors`` are ``[A, 4]`` in its pixels."""
        is_crowd = target["iscrowd"].bool()
        boxes, labels = target["boxes"][~is_crowd], target["labels"][~is_crowd]
        anchors = anchors.to(boxes)
        crowd_regions = target["boxes"][is_crowd] if is_crowd.any() else None
        matches = match_anchors(
            anchors, boxes, self.fg_iou_thresh, self.bg_iou_thresh, True, ignore_regions=crowd_regions
        )
        self._positive.append(int((matches >= 0).sum()))
        self._negative.append(int((matches == -1).sum()))
        self._ignored.append(int((matches == -2).sum()))
        self._labels.append(labels)
        self._sizes.append((boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt())
        self._best_ious += [box_iou(part, anchors).amax(dim=1) for part in boxes.split(_BOXES_AT_ONCE) if len(part)]
        self._images_of_class[labels.unique()] += 1
        self._images_without_boxes += len(boxes) == 0
        self._crowd_boxes += int(is_crowd.sum())

    def best_ious(self) -> Tensor:
        """``[boxes]``: the IoU of each box with its best anchor."""
        return _joined(self._best_ious)

    def summary(self) -> dict[str, Any]:
        """What `inspect_dataset` returns."""
        sizes, best_ious = _joined(self._sizes), self.best_ious()
        summary: dict[str, Any] = {
            "name": self.dataset.name,
            "images": len(self.dataset),
            "images_without_boxes": self._images_without_boxes,
            "boxes": len(sizes),
            "crowd_boxes": self._crowd_boxes,
            "changed_boxes": getattr(self.dataset, "box_counts", {}),
            "classes": self._class_rows(sizes, best_ious),
            "box_sizes": _size_counts(sizes),
            "best_anchor_iou": _iou_quantiles(best_ious, self.fg_iou_thresh, self.bg_iou_thresh),
            "anchors_per_image": {
                "positive": _mean(self._positive),
                "ignored": _mean(self._ignored),
                "negative": _mean(self._negative),
                "fewest_positive": min(self._positive, default=0),
                "most_positive": max(self._positive, default=0),
                "images_without_positives": self._positive.count(0),
            },
        }
        summary["remarks"] = _remarks(summary, self.fg_iou_thresh)
        return summary

    def _class_rows(self, sizes: Tensor, best_ious: Tensor) -> dict[str, dict[str, Any]]:
        labels = _joined(self._labels)
        rows = {}
        for label, name in enumerate(self.dataset.category_names):
            in_class = labels == label
            has_boxes = bool(in_class.any())
            rows[name] = {
                "boxes": int(in_class.sum()),
                "images": int(self._images_of_class[label]),
                "median_size": round(float(sizes[in_class].median()), 2) if has_boxes else None,
                "mean_best_iou": round(float(best_ious[in_class].mean()), 4) if has_boxes else None,
            }
        return rows


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0)


def _size_counts(sizes: Tensor) -> dict[str, Any]:
    edges = torch.tensor(SIZE_EDGES[1:], dtype=sizes.dtype)
    counts = torch.bincount(torch.bucketize(sizes, edges, right=True), minlength=len(SIZE_EDGES))
    small, large = int((sizes < 32).sum()), int((sizes >= 96).sum())
    return {
        "edges": list(SIZE_EDGES),
        "counts": counts.tolist(),
        "small": small,
        "medium": len(sizes) - small - large,
        "large": large,
    }


def _iou_quantiles(best_ious: Tensor, fg_iou_thresh: float, bg_iou_thresh: float) -> dict[str, float | None]:
    if len(best_ious) == 0:
        return dict.fromkeys(("mean", "p10", "p50", "below_bg_iou", "below_fg_iou"))
    ascending = best_ious.sort().values
    return {
        "mean": round(float(best_ious.mean()), 4),
        "p10": round(float(ascending[int(0.1 * (len(ascending) - 1))]), 4),
        "p50": round(float(ascending[int(0.5 * (len(ascending) - 1))]), 4),
        "below_bg_iou": round(float((best_ious < bg_iou_thresh).float().mean()), 4),
        "below_fg_iou": round(float((best_ious < fg_iou_thresh).float().mean()), 4),
    }


def _remarks(summary: dict[str, Any], fg_iou_thresh: float) -> list[str]:
    remarks = []
    rows = summary["classes"]
    changed = [f"{count} {kind}" for kind, count in summary["changed_boxes"].items() if count]
    if changed:
        remarks.append(f"boxes that do not fit their image: {', '.join(changed)}")
    absent = [name for name, row in rows.items() if row["boxes"] == 0]
    rare = [f"{name} ({row['boxes']})" for name, row in rows.items() if 0 < row["boxes"] < 10]
    if absent:
        remarks.append(f"classes without a box ({len(absent)}): {_listed(absent)}")
    if rare:
        remarks.append(f"classes with fewer than 10 boxes ({len(rare)}): {_listed(rare)}")
    below = summary["best_anchor_iou"]["below_fg_iou"] or 0.0
    if below > 0.1:
        remarks.append(
            f"{below:.0%} of the boxes have no anchor with an IoU of at least {fg_iou_thresh}, so that only their best "
            "anchor is trained on them; other anchor sizes or a larger image size would fit better"
        )
    without_boxes = summary["images_without_boxes"]
    if without_boxes:
        remarks.append(f"images without a box, which are trained on as background: {without_boxes}")
    unmatched = summary["anchors_per_image"]["images_without_positives"] - without_boxes
    if unmatched > 0:
        remarks.append(f"images with boxes that no anchor overlaps: {unmatched}")
    return remarks


def _listed(items: list[str], most: int = 10) -> str:
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def _mean(values: list[int]) -> float:
    return round(sum(values) / len(values), 2) if values else 0.0
