"""The table of operators: one row per public function. Every contract of tests/ops is tested from it.

A new operator is added here: its row, and the functions that make its inputs, in this file or in one of its own.
"""

from __future__ import annotations

import torch

from . import ap_loss, boxes, focal_loss, head, matching, suppression
from .row import EXACT, FLOATS, Operator, Tolerance

f16, bf16, f32, f64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

# Losses carry the error of exp and log1p, 4e-6 for the specialised gammas and 1e-5 for others; half results are
# rounded once; float64 uses the C library's functions. Below `absolute` a loss is subnormal in float16.
FOCAL_LOSS = {
    f64: Tolerance(1e-12, absolute=1e-14, of_scalars=1e-13),
    f32: Tolerance(1e-5, absolute=1e-7, of_scalars=1e-6),
    f16: Tolerance(2**-10.9, absolute=6e-8, of_scalars=1e-4),
    bf16: Tolerance(2**-7.9, absolute=6e-8, of_scalars=1e-4),
}
# Gradients are rounded once more, for the factor from above; those of soft targets are differences, of terms that for
# half inputs have the error of an approximate exp.
FOCAL_LOSS_GRADIENT = {
    f64: Tolerance(2e-12, absolute=1e-14),
    f32: Tolerance(2e-5, absolute=1.2e-7),
    f16: Tolerance(3 * 2**-10.9, absolute=1e-6),
    bf16: Tolerance(3 * 2**-7.9, absolute=1e-6),
}

# A similarity is of size 1, with a few roundings of float32 arithmetic, also for half boxes. A gradient is a sum of
# terms of both signs over many pairs, rounded once more to the boxes' dtype.
SIMILARITY = {dtype: Tolerance(5e-6, absolute=5e-6) for dtype in FLOATS} | {f64: Tolerance(1e-12, absolute=1e-12)}
SIMILARITY_GRADIENT = {
    f64: Tolerance(1e-12, of_largest=4e-12),
    f32: Tolerance(5e-6, of_largest=2e-5),
    f16: Tolerance(2**-10, of_largest=2**-8),
    bf16: Tolerance(2**-7, of_largest=2**-5),
}
# As for a similarity; gradients have few terms.
PAIR_LOSS = {dtype: Tolerance(3e-6, absolute=3e-6) for dtype in FLOATS} | {f64: Tolerance(1e-12, absolute=1e-12)}
PAIR_LOSS_GRADIENT = {
    f64: Tolerance(1e-12, absolute=4e-12),
    f32: Tolerance(3e-6, absolute=1.2e-5),
    f16: Tolerance(2**-10, absolute=1.2e-5),
    bf16: Tolerance(2**-7, absolute=1.2e-5),
}

# A sum of positions, which are integers of more than 30 bits; half updates are rounded once, and again where the
# gradient from above scales them.
AP_LOSS = {dtype: Tolerance(1e-6, absolute=1e-7) for dtype in FLOATS} | {f64: Tolerance(1e-9, absolute=1e-11)}
AP_LOSS_UPDATE = {
    f64: Tolerance(1e-9, absolute=1e-11),
    f32: Tolerance(4e-6, absolute=1e-8),
    f16: Tolerance(2**-10, absolute=6e-8),
    bf16: Tolerance(2**-7, absolute=1e-8),
}

# A delta or a corner is a difference: its error is that of the largest values that it is made of.
CODING = {
    f64: Tolerance(1e-12, of_largest=1e-13),
    f32: Tolerance(2e-6, of_largest=2e-6),
    f16: Tolerance(2**-10, of_largest=2**-20),
    bf16: Tolerance(2**-7, of_largest=2**-20),
}
CODING_GRADIENT = {
    f64: Tolerance(of_largest=1e-14),
    f32: Tolerance(of_largest=1e-5),
    f16: Tolerance(2**-9, of_largest=2**-9),
    bf16: Tolerance(2**-6, of_largest=2**-6),
}

# float32 arithmetic and sums; half gradients are rounded twice, the second time for the factor from above.
FUSED_LOSS = {dtype: Tolerance(2e-5, absolute=2e-5) for dtype in FLOATS} | {f64: Tolerance(1e-10, absolute=1e-10)}
FUSED_LOSS_GRADIENT = {
    f64: Tolerance(of_largest=1e-10),
    f32: Tolerance(of_largest=2e-5),
    f16: Tolerance(of_largest=2**-10),
    bf16: Tolerance(of_largest=2**-7),
}

# Boxes hold an exponential of our own: far from the origin a few ulps of it are left. float64 scores are within 4 ulps
# of the C library's. Labels and counts are equal.
DETECTIONS = {dtype: (Tolerance(1e-5, absolute=1e-4), EXACT, EXACT, EXACT) for dtype in FLOATS}
DETECTIONS[f64] = (Tolerance(1e-12, absolute=1e-9), Tolerance(1e-15, absolute=1e-300), EXACT, EXACT)


def pairwise(name: str, samples: boxes.Samples = boxes.pairwise, numerical: bool = True) -> Operator:
    return Operator(
        name=name,
        room="box_iou",
        samples=samples,
        small=boxes.small_pairwise,
        large=boxes.large_pairwise,
        refused=boxes.refused_pairwise(name),
        differentiable=("boxes1", "boxes2"),
        has_numerical_derivatives=numerical,
        tolerances=SIMILARITY,
        gradient_tolerances=SIMILARITY_GRADIENT,
    )


def pair_loss(name: str, numerical: bool = True) -> Operator:
    return Operator(
        name=name,
        room="iou_losses",
        samples=boxes.losses,
        small=boxes.small_losses,
        large=boxes.large_losses,
        refused=boxes.refused_losses(name),
        differentiable=("boxes1", "boxes2"),
        has_numerical_derivatives=numerical,
        tolerances=PAIR_LOSS,
        gradient_tolerances=PAIR_LOSS_GRADIENT,
    )


OPERATORS = (
    Operator(
        name="sigmoid_focal_loss",
        room="focal_loss",
        samples=focal_loss.samples,
        small=focal_loss.small,
        large=focal_loss.large,
        refused=focal_loss.refused,
        differentiable=("inputs",),
        tolerances=FOCAL_LOSS,
        gradient_tolerances=FOCAL_LOSS_GRADIENT,
    ),
    Operator(
        name="ap_loss",
        room="ap_loss",
        samples=ap_loss.samples,
        small=ap_loss.small,
        large=ap_loss.large,
        refused=ap_loss.refused,
        differentiable=("logits",),
        has_second_derivatives=False,
        has_numerical_derivatives=False,
        tolerances=AP_LOSS,
        gradient_tolerances=AP_LOSS_UPDATE,
        same_bits_on_every_isa=True,
    ),
    pairwise("box_iou", boxes.box_iou),
    pairwise("generalized_box_iou"),
    pairwise("distance_box_iou"),
    pairwise("complete_box_iou", numerical=False),  # the gradient holds the penalty's weight fixed
    pair_loss("generalized_box_iou_loss"),
    pair_loss("distance_box_iou_loss"),
    pair_loss("complete_box_iou_loss", numerical=False),  # as above
    Operator(
        name="encode_boxes",
        room="box_coding",
        samples=boxes.encode,
        small=boxes.small_encode,
        large=boxes.large_encode,
        refused=boxes.refused_coding("encode_boxes", "reference_boxes", "proposals"),
        differentiable=("reference_boxes", "proposals"),
        tolerances=CODING,
        gradient_tolerances=CODING_GRADIENT,
    ),
    Operator(
        name="decode_boxes",
        room="box_coding",
        samples=boxes.decode,
        small=boxes.small_decode,
        large=boxes.large_decode,
        refused=boxes.refused_coding("decode_boxes", "rel_codes", "boxes"),
        differentiable=("rel_codes", "boxes"),
        tolerances=CODING,
        gradient_tolerances=CODING_GRADIENT,
    ),
    Operator(
        name="match_anchors",
        room="anchor_matching",
        samples=matching.samples,
        small=matching.small,
        large=matching.large,
        refused=matching.refused,
        reference_function=matching.by_image,
        reference_in_float64=False,
    ),
    Operator(
        name="nms",
        room="nms",
        samples=suppression.nms,
        small=suppression.small_nms,
        large=suppression.large_nms,
        refused=suppression.refused("nms"),
        reference_in_float64=False,
    ),
    Operator(
        name="batched_nms",
        room="nms",
        samples=suppression.batched_nms,
        small=suppression.small_batched_nms,
        large=suppression.large_batched_nms,
        refused=suppression.refused("batched_nms"),
        reference_in_float64=False,
    ),
    Operator(
        name="nms_padded",
        room="nms",
        samples=suppression.nms_padded,
        small=suppression.small_nms_padded,
        large=suppression.large_nms_padded,
        refused=suppression.refused("nms_padded", max_output=4),
        reference_function=suppression.pad,
        reference_in_float64=False,
    ),
    Operator(
        name="soft_nms",
        room="soft_nms",
        samples=suppression.soft_nms,
        small=suppression.small_soft_nms,
        large=suppression.large_soft_nms,
        refused=suppression.refused("soft_nms"),
        reference_in_float64=False,
        differentiable=("scores",),
        has_batched_gradients=False,  # torch cannot batch the indexing of scores
        always_returns_derivatives=True,
        same_bits_on_every_isa=True,
        # A half gradient is rounded before and after the factor from above.
        gradient_tolerances={f64: EXACT, f32: EXACT, f16: Tolerance(2**-10), bf16: Tolerance(2**-7)},
    ),
    Operator(
        name="retinanet_loss",
        room="retinanet_loss",
        samples=head.loss,
        small=head.small_loss,
        large=head.large_loss,
        refused=head.refused_loss,
        differentiable=("cls_logits", "bbox_regression"),
        has_batched_gradients=False,  # torch cannot batch operators that take lists
        tolerances=FUSED_LOSS,
        gradient_tolerances=FUSED_LOSS_GRADIENT,
    ),
    Operator(
        name="postprocess",
        room="postprocess",
        samples=head.detections,
        small=head.small_detections,
        large=head.large_detections,
        refused=head.refused_detections,
        reference_in_float64=False,
        differentiable=("cls_logits", "bbox_regression"),
        has_numerical_derivatives=False,  # a step may change which detections are kept
        has_batched_gradients=False,  # torch cannot batch the indexing of the maps
        tolerances=DETECTIONS,
        gradient_tolerances=CODING_GRADIENT,
    ),
)
