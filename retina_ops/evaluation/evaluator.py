"""`CocoEvaluator`: collects a model's predictions batch by batch, on one process or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..coco_format import Json
from ..data.dataset import DetectionDataset
from ..data.export import ground_truth_of
from ..errors import needs_extra
from .coco import MAX_DETECTIONS, Evaluation, Metrics, evaluate
from .detections import coco_detections, load_ground_truth

with needs_extra("train"):
    import torch.distributed as dist
    from torch import Tensor


class CocoEvaluator:
    """COCO metrics of a model's predictions on a data set.

    Under `torch.distributed` each process updates with its share; `compute` gathers all shares, counts an image once
    even if several processes saw it, and returns the same metrics on every process.

    Args:
        ground_truth: a data set of this package, or a COCO JSON file or dict.
        category_ids: the original id of each label. None: the data set's, or ascending ids of the ground truth.
        seen_only: evaluate only the images given to `update`; otherwise an image that was never given counts as an
            image without detections.
        iou_thresholds, max_detections: as for `evaluate_detections`.

    Example:
        >>> from retina_ops.data.digits import DigitScenes
        >>> scenes = DigitScenes("val", 4)
        >>> evaluator = CocoEvaluator(scenes)
        >>> for _, target in (scenes[index] for index in range(4)):
        ...     perfect = {**target, "scores": target["boxes"].new_ones(len(target["boxes"]))}
        ...     evaluator.update([target], [perfect])
        >>> round(evaluator.compute()["AP50"], 3)
        1.0
    """

    def __init__(
        self,
        ground_truth: DetectionDataset | str | Path | Json,
        *,
        category_ids: Sequence[int] | None = None,
        seen_only: bool = False,
        iou_thresholds: Sequence[float] | None = None,
        max_detections: int = MAX_DETECTIONS,
    ) -> None:
        if isinstance(ground_truth, DetectionDataset):
            listed = ground_truth.categories
            self.ground_truth = load_ground_truth(ground_truth_of(ground_truth))
        else:
            self.ground_truth = load_ground_truth(ground_truth)
            listed = sorted(self.ground_truth["categories"], key=lambda category: category["id"])
        self.category_ids = [category["id"] for category in listed] if category_ids is None else list(category_ids)
        self.seen_only = seen_only
        self.iou_thresholds, self.max_detections = iou_thresholds, max_detections
        self.evaluation: Evaluation | None = None
        self._found: dict[int, list[Json]] = {}

    def update(self, targets: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Tensor]]) -> None:
        """Add a batch; an image given before is replaced.

        Args:
            targets: for each image a dict with ``image_id`` (int or tensor of one element).
            predictions: for each image ``boxes`` [n, 4] (x1, y1, x2, y2) in the pixels of the published annotations,
                ``scores`` [n], ``labels`` [n] in 0..K-1.
        """
        for target, prediction in zip(targets, predictions, strict=True):
            image_id = int(target["image_id"])
            self._found[image_id] = coco_detections([image_id], [prediction], self.category_ids)

    @property
    def detections(self) -> list[Json]:
        """COCO detections by image id: this process's, or after `compute` those of all processes."""
        return [entry for image_id in sorted(self._found) for entry in self._found[image_id]]

    def compute(self) -> Metrics:
        """Metrics as `evaluate_detections` gives them. ``self.evaluation`` keeps them with the curves.

        Every process must call this. Image order and number of processes do not change the result.
        """
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            shares: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(shares, self._found)
            for share in reversed(shares):  # the lowest rank takes precedence, on every rank
                self._found.update(share)
        seen = list(self._found) if self.seen_only else None
        self.evaluation = evaluate(
            self.ground_truth,
            self.detections,
            image_ids=seen,
            iou_thresholds=self.iou_thresholds,
            max_detections=self.max_detections,
        )
        return self.evaluation.metrics

    def reset(self) -> None:
        """Forget all predictions, for the next epoch."""
        self._found.clear()
        self.evaluation = None
