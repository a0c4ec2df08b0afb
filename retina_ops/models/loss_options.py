"""`LossOptions`: the options of the loss, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from .._deprecated import MATCHING, renamed_fields
from ..ops.retinanet_loss import BOX_LOSSES
from ..settings import Range, check_when_made

Classification = Literal["focal", "cross_entropy", "focal_star", "ohem", "ap_loss"]
NORMALIZATIONS = ("image", "batch", "ema")


@renamed_fields(**MATCHING, box_weight="box_loss_weight")
@dataclass(frozen=True)
class LossOptions:
    """Options of the loss.

    Attributes:
        classification: ``"focal"``; ``"cross_entropy"``: the same with gamma 0, balanced by ``alpha`` unless it is -1;
            ``"focal_star"``: FL* of the paper's appendix A, whose slope is ``gamma``; ``"ohem"``: cross entropy of the
            hardest anchors; ``"ap_loss"``: `retina_ops.ap_loss` of the batch, which has no normalization.
        fg_iou_thresh: IoU from which an anchor is foreground.
        bg_iou_thresh: IoU under which it is background; between the two it is ignored.
        alpha: weight of a positive; a negative has 1 - alpha. -1: no weights.
        gamma: exponent of the focal loss: larger values reduce the weight of easy anchors further.
        box_loss: one of ``BOX_LOSSES``.
        smooth_l1_beta: where ``smooth_l1`` changes from quadratic to linear, in units of the deltas.
        box_loss_weight: factor of the box loss.
        normalization: ``"image"``: each image's sum over its foreground anchors, the mean over images, as
            torchvision's. ``"batch"``: the sum over all foreground anchors of the batch and of all processes.
            ``"ema"``: the sum over a moving average of the batch's foreground anchors, as detectron2's
            (`retina_ops.EmaNormalizer`; one more tensor in the model's state dict).
        allow_low_quality_matches: also the anchors that overlap a box best are foreground, see
            `retina_ops.match_anchors`.
        min_pos_iou: lowest IoU of such a match.
        focal_star_beta: shift of FL*.
        ap_delta: half the width of the ramp of the AP loss, in logits.
        ohem_examples: number of anchors per image that OHEM counts.
        ohem_ratio: with OHEM, background anchors per foreground anchor; 0: whatever is hardest.
    """

    classification: Classification = "focal"

    fg_iou_thresh: Annotated[float, Range(0, 1)] = 0.5
    bg_iou_thresh: Annotated[float, Range(0, 1)] = 0.4
    alpha: Annotated[float, Range(-1, 1)] = 0.25
    gamma: Annotated[float, Range(0)] = 2.0
    box_loss: str = "l1"
    smooth_l1_beta: Annotated[float, Range(0)] = 1.0
    box_loss_weight: Annotated[float, Range(0)] = 1.0
    normalization: str = "image"
    allow_low_quality_matches: bool = True
    min_pos_iou: Annotated[float, Range(0, 1)] = 0.0
    focal_star_beta: Annotated[float, Range(0)] = 1.0
    ap_delta: Annotated[float, Range(1e-6, 1e6)] = 1.0
    ohem_examples: Annotated[int, Range(1)] = 512
    ohem_ratio: Annotated[float, Range(0)] = 0.0

    def matching_and_box_loss(self) -> dict[str, Any]:
        """The arguments of `retina_ops.retinanet_loss` that do not depend on the classification loss."""
        return {
            "fg_iou_thresh": self.fg_iou_thresh,
            "bg_iou_thresh": self.bg_iou_thresh,
            "allow_low_quality_matches": self.allow_low_quality_matches,
            "min_pos_iou": self.min_pos_iou,
            "box_loss": self.box_loss,
            "smooth_l1_beta": self.smooth_l1_beta,
        }

    def __post_init__(self) -> None:
        check_when_made(self)

    def check_combination(self) -> None:
        """Raises ValueError for settings that do not fit together."""
        if self.bg_iou_thresh > self.fg_iou_thresh:
            raise ValueError(
                f"bg_iou_thresh must be at most fg_iou_thresh, {self.fg_iou_thresh}, got {self.bg_iou_thresh}"
            )
        if -1 < self.alpha < 0:
            raise ValueError(f"alpha must be in [0, 1], or -1 for none, got {self.alpha}")
        if self.classification not in get_args(Classification):
            names = ", ".join(get_args(Classification))
            raise ValueError(f"classification must be one of {names}, got {self.classification!r}")
        if self.classification == "focal_star" and not self.gamma > 0:
            raise ValueError(f"gamma must be positive with the classification focal_star, got {self.gamma}")
        if self.box_loss not in BOX_LOSSES:
            raise ValueError(f"box_loss must be one of {', '.join(BOX_LOSSES)}, got {self.box_loss!r}")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {self.normalization!r}")
