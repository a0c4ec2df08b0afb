"""What stands in for torchvision's helpers of its detectors: suppression, overlaps, matchers, box coders, losses.

Each of them asks at each call whether torchvision's own function is still in its place. A function that was replaced
since is called instead, so that no monkeypatch is ignored.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torchvision.models.detection import _utils
from torchvision.ops import boxes as torchvision_boxes

from ..ops.anchor_matching import match_anchors
from ..ops.box_coding import decode_boxes, encode_boxes
from ..ops.box_iou import box_iou
from ..ops.nms import batched_nms, nms
from .classes import Fused
from .stock import is_torchvisions, unwrapped

LOG_LIMIT = math.log(1000.0 / 16)  # torchvision's default; decode_boxes clips at no other
_STOCK = {name: unwrapped(getattr(torchvision_boxes, name)) for name in ("batched_nms", "nms", "box_iou")}
_ENCODE = unwrapped(_utils.encode_boxes)


def has_stock_boxes(name: str) -> bool:
    """Whether ``torchvision.ops.boxes`` has its own function of a name."""
    stock = _STOCK[name]
    return unwrapped(getattr(torchvision_boxes, name)) is stock and is_torchvisions(stock)


class Overlaps:
    """The pairs of two sets of boxes. A fused matcher matches them without a matrix; `matrix` computes it."""

    def __init__(self, boxes: Tensor, anchors: Tensor) -> None:
        self.boxes, self.anchors = boxes, anchors

    def matrix(self) -> Tensor:
        """The IoUs ``[M, A]``, with whatever function torchvision has now."""
        if has_stock_boxes("box_iou"):
            return box_iou(self.boxes, self.anchors)
        found: Tensor = torchvision_boxes.box_iou(self.boxes, self.anchors)
        return found


class BoxFunctions:
    """``torchvision.ops.boxes`` with this package's ``batched_nms``, ``nms`` and ``box_iou``.

    Args:
        lazy: ``box_iou`` returns `Overlaps`, for a fused matcher.
    """

    def __init__(self, lazy: bool = False) -> None:
        self._lazy = lazy

    def __getattr__(self, name: str) -> Any:
        return getattr(torchvision_boxes, name)

    def batched_nms(self, boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
        if has_stock_boxes("batched_nms") and has_stock_boxes("nms"):
            return batched_nms(boxes, scores, idxs, iou_threshold)
        kept: Tensor = torchvision_boxes.batched_nms(boxes, scores, idxs, iou_threshold)
        return kept

    def nms(self, boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        if has_stock_boxes("nms"):
            return nms(boxes, scores, iou_threshold)
        kept: Tensor = torchvision_boxes.nms(boxes, scores, iou_threshold)
        return kept

    def box_iou(self, boxes1: Tensor, boxes2: Tensor) -> Any:
        overlaps = Overlaps(boxes1, boxes2)
        return overlaps if self._lazy else overlaps.matrix()


class FusedMatcher(Fused):
    """torchvision's ``Matcher``, which takes `Overlaps` as well."""

    def __call__(self: Any, match_quality_matrix: Any) -> Tensor:
        stock = type(self)._patched.__call__
        if not isinstance(match_quality_matrix, Overlaps):
            return stock(self, match_quality_matrix)  # type: ignore[no-any-return]
        overlaps = match_quality_matrix
        is_plain = (
            unwrapped(stock) is _MATCH
            and has_stock_boxes("box_iou")
            and type(self)._patched.set_low_quality_matches_ is _MATCH_LOW
            and "set_low_quality_matches_" not in vars(self)
            and (self.BELOW_LOW_THRESHOLD, self.BETWEEN_THRESHOLDS) == (-1, -2)
            and len(overlaps.boxes) > 0
            and len(overlaps.anchors) > 0  # torchvision's error otherwise
        )
        if not is_plain:
            return stock(self, overlaps.matrix())  # type: ignore[no-any-return]
        return match_anchors(
            overlaps.anchors, overlaps.boxes, self.high_threshold, self.low_threshold, self.allow_low_quality_matches
        )


class FusedBoxCoder(Fused):
    """torchvision's ``BoxCoder`` on `encode_boxes` and `decode_boxes`. Results have torchvision's dtypes."""

    def encode_single(self: Any, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        stock = type(self)._patched.encode_single
        if stock is not _ENCODE_SINGLE or unwrapped(_utils.encode_boxes) is not _ENCODE:
            return stock(self, reference_boxes, proposals)  # type: ignore[no-any-return]
        return encode_boxes(reference_boxes, proposals, self.weights)

    def decode_single(self: Any, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        stock = type(self)._patched.decode_single
        if stock is not _DECODE_SINGLE or self.bbox_xform_clip != LOG_LIMIT:
            return stock(self, rel_codes, boxes)  # type: ignore[no-any-return]
        codes = rel_codes.reshape(rel_codes.shape[0], rel_codes.shape[1] // 4, 4)
        decoded = decode_boxes(codes, boxes[:, None].expand_as(codes), self.weights)
        return decoded.to(rel_codes.dtype).flatten(1)


_MATCH, _MATCH_LOW = _utils.Matcher.__call__, _utils.Matcher.set_low_quality_matches_
_ENCODE_SINGLE, _DECODE_SINGLE = _utils.BoxCoder.encode_single, _utils.BoxCoder.decode_single
