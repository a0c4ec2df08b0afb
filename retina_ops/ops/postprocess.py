"""From head outputs to detections: the public function and shapes. The rule: ``csrc/postprocess/postprocess.h``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retina_ops._deprecated import BOX_CODER, POSTPROCESSING, renamed_arguments
from retina_ops.ops._autograd import no_forward_mode
from retina_ops.ops._checks import accumulate_dtype, expect, four_weights
from retina_ops.ops._head_outputs import as_levels, count_anchors
from retina_ops.ops._host_values import to_device
from retina_ops.ops._postprocess_gradients import with_gradients
from retina_ops.ops._torchscript import no_torchscript

_postprocess = torch.ops.retina_ops.postprocess.default


@renamed_arguments(**POSTPROCESSING, **BOX_CODER)
@no_torchscript
def postprocess(
    cls_logits: Sequence[Tensor],
    bbox_regression: Sequence[Tensor],
    anchors: Tensor,
    image_sizes: Sequence[tuple[int, int]] | Tensor,
    *,
    score_thresh: float = 0.05,
    topk_candidates: int = 1000,
    nms_thresh: float = 0.5,
    detections_per_img: int = 300,
    bbox_reg_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Detections of a batch, computed from the outputs of a detection head on each level.

    The score of an anchor and class is the sigmoid of its logit. For each level and image, the best ``topk_candidates``
    scores above ``score_thresh`` become boxes, clipped to the image; then non-maximum suppression runs within each
    class over all levels. Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4, as torchvision's
    ``RetinaNet.postprocess_detections`` except for the rows of ``docs/differences.md``. Nothing is permuted or
    concatenated, the number of kernel launches depends on neither batch size nor classes, and the host does not wait
    for the device.

    Args:
        cls_logits: each level ``[B, A * K, H, W]``, contiguous or channels-last, or ``[B, H * W * A, K]``; float16,
            bfloat16, float32 or float64.
        bbox_regression: each level ``[B, A * 4, H, W]`` or ``[B, H * W * A, 4]``, of any of these dtypes: deltas as of
            :func:`retina_ops.encode_boxes`.
        anchors: ``[N, 4]`` (x1, y1, x2, y2) in pixels: level by level, ordered by row, column and index within the
            cell.
        image_sizes: (height, width) of each image in pixels, or a tensor ``[B, 2]`` of any dtype on the device. A CUDA
            graph reads the tensor in each replay, and ``torch.compile`` compiles once for all sizes in it.
        score_thresh: scores at or below this are dropped, and so are NaN scores.
        topk_candidates: the largest number of candidates per level and image, at least 0. On CUDA at most 65,536 if a
            level has more scores than that.
        nms_thresh: a box is dropped if its IoU with a better box of its class is above this.
        detections_per_img: D, the size of the output, at least 0.
        bbox_reg_weights: factors (wx, wy, ww, wh) of the deltas.

    Returns:
        - boxes ``[B, D, 4]`` in float32, or float64 if anchors or ``bbox_regression`` are;
        - scores ``[B, D]`` in float32 (float64 for float64 logits), descending; detections of equal score are ordered
          by level, anchor and class;
        - labels int64 ``[B, D]`` in [0, K);
        - counts int64 ``[B]``: how many of the D are detections. The others have box 0, score 0 and label -1.

        Boxes and scores are differentiable with respect to ``bbox_regression``, ``cls_logits`` and ``anchors``, with
        the choice and the order of the detections held fixed; a clipped coordinate gets no gradient. The values do not
        depend on whether a graph is recorded.

    Raises:
        ValueError: a negative ``topk_candidates`` or ``detections_per_img``; other than four ``bbox_reg_weights``.
        RuntimeError: shapes, dtypes or devices that do not fit; a weight that is 0 or not finite.

    Example:
        >>> import torch
        >>> cls_logits = [torch.tensor([[[2.0], [1.0], [-9.0]]])]  # one image, one level of three anchors, one class
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
        >>> boxes, scores, labels, counts = postprocess(
        ...     cls_logits, [torch.zeros(1, 3, 4)], anchors, [(8, 32)], detections_per_img=2
        ... )
        >>> boxes
        tensor([[[ 0.,  0., 10.,  8.],
                 [ 0.,  0.,  0.,  0.]]])
        >>> scores, labels, counts
        (tensor([[0.8808, 0.0000]]), tensor([[ 0, -1]]), tensor([1]))
    """
    for name, value in (("topk_candidates", topk_candidates), ("detections_per_img", detections_per_img)):
        if value < 0:
            raise ValueError(f"postprocess: {name} must be at least 0, got {value}")
    weights = four_weights("postprocess", "bbox_reg_weights", bbox_reg_weights)
    logits, deltas = as_levels("postprocess", cls_logits, bbox_regression)
    dtype = torch.promote_types(torch.promote_types(anchors.dtype, deltas[0].dtype), torch.float32)
    no_forward_mode("postprocess", *logits, *deltas, anchors)
    anchors = anchors.to(dtype)
    sizes = _sizes(image_sizes, anchors.device).to(dtype)
    boxes, scores, labels, counts, indices = _postprocess(
        [level.detach() for level in logits],
        [level.detach() for level in deltas],
        anchors.detach(),
        sizes,
        float(score_thresh),
        topk_candidates,
        float(nms_thresh),
        detections_per_img,
        *weights,
    )
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*logits, *deltas, anchors)):
        boxes, scores = with_gradients(logits, deltas, anchors, sizes, weights, (boxes, scores, labels), indices)
    return boxes, scores, labels, counts


def _sizes(image_sizes: Sequence[tuple[int, int]] | Tensor, device: torch.device) -> Tensor:
    """The sizes as a tensor ``[B, 2]`` on the device."""
    if isinstance(image_sizes, Tensor):
        return image_sizes
    rows = [list(map(float, size)) for size in image_sizes]
    if any(len(row) != 2 for row in rows):
        raise ValueError(f"postprocess: image_sizes must be (height, width) of each image, got {image_sizes}")
    return to_device(rows, torch.float64, device) if rows else torch.empty(0, 2, dtype=torch.float64, device=device)


@torch.library.register_fake("retina_ops::postprocess")
def _(  # type: ignore[no-untyped-def]
    cls_logits, bbox_regression, anchors, image_sizes, score_thresh, topk_candidates, nms_thresh, detections_per_img, *w
):
    batch, total = cls_logits[0].shape[0], sum(count_anchors(level) for level in cls_logits)
    levels = "[B, anchors, C] or [B, anchors of a cell, C, cells] of one batch"
    for logits, deltas in zip(cls_logits, bbox_regression, strict=True):
        fits = deltas.shape[2] == 4 and count_anchors(logits) == count_anchors(deltas) and logits.shape[0] == batch
        requirement = f"postprocess: levels must be {levels}, with 4 values per anchor in bbox_regression"
        expect(fits, requirement, logits.shape, deltas.shape)
    fits = anchors.dim() == 2 and anchors.shape[0] == total and anchors.shape[1] == 4
    expect(fits, f"postprocess: anchors must be [{total}, 4]", anchors.shape)
    fits = image_sizes.dim() == 2 and image_sizes.shape[0] == batch and image_sizes.shape[1] == 2
    expect(fits, f"postprocess: image_sizes must be [{batch}, 2]", image_sizes.shape)
    return (
        anchors.new_empty(batch, detections_per_img, 4),
        anchors.new_empty(batch, detections_per_img, dtype=accumulate_dtype(cls_logits[0])),
        anchors.new_empty(batch, detections_per_img, dtype=torch.int64),
        anchors.new_empty(batch, dtype=torch.int64),
        anchors.new_empty(batch, detections_per_img, dtype=torch.int64),
    )
