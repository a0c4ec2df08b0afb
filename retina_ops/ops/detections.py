"""From the fixed-size output of `retina_ops.postprocess` to torchvision's list of images."""

from __future__ import annotations

from torch import Tensor


def by_image(boxes: Tensor, scores: Tensor, labels: Tensor, counts: Tensor) -> list[dict[str, Tensor]]:
    """Each image's detections without the padding; waits for the device once.

    Args:
        boxes, scores, labels, counts: as `retina_ops.postprocess` returns them.

    Returns:
        For each image ``boxes`` ``[n, 4]``, ``scores`` ``[n]`` and ``labels`` ``[n]``: views.
    """
    return [
        {"boxes": boxes[image, :count], "scores": scores[image, :count], "labels": labels[image, :count]}
        for image, count in enumerate(counts.tolist())
    ]
