"""retinanet_loss: values and gradients against the float64 definition, the composed operators and torchvision."""

from __future__ import annotations

import pytest
import torch
from heads import Head, random_head
from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

from retina_ops import encode_boxes, match_anchors, reference, retinanet_loss, sigmoid_focal_loss
from retina_ops.reference.head_outputs import by_anchor

LAYOUTS = ("planar", "channels_last", "rows")
# One cell; a level narrower than a vector; more than a block of 64 cells; more than one strip is tested apart.
SIZES = [(11, 13), (5, 7), (2, 3), (1, 1)]
BOX_LOSSES = ("l1", "smooth_l1", "giou", "diou", "ciou")


def loss_of(head: Head, **options: object) -> tuple[Tensor, Tensor]:
    return retinanet_loss(head.cls_logits, head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels, **options)


def expected_of(head: Head, **options: object) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """The definition in float64: losses, and gradients of 1.5 times the first plus 0.7 times the second."""
    outputs = [level.detach().double().requires_grad_() for level in head.outputs]
    count = len(head.cls_logits)
    losses = reference.retinanet_loss(
        outputs[:count], outputs[count:], head.anchors.double(), [boxes.double() for boxes in head.gt_boxes],
        head.gt_labels, **options,
    )  # fmt: skip
    return losses, gradients_of(losses, outputs)


def gradients_of(losses: tuple[Tensor, Tensor], outputs: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(1.5 * losses[0] + 0.7 * losses[1], outputs, allow_unused=True)
    return [torch.zeros_like(o) if g is None else g for o, g in zip(outputs, found, strict=True)]


def check(head: Head, tolerance: float, **options: object) -> None:
    losses = loss_of(head, **options)
    expected, gradients = expected_of(head, **options)
    for mine, theirs in zip(losses, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=tolerance, atol=tolerance)
    for mine, theirs, output in zip(gradients_of(losses, head.outputs), gradients, head.outputs, strict=True):
        assert mine.dtype == output.dtype and mine.stride() == output.stride()
        assert (mine.double() - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1e-6)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_matches_reference_to_1e_10(device: str, layout: str, box_loss: str) -> None:
    for gamma, normalization in ((2.0, "image"), (1.3, "batch"), (0.0, lambda foreground: foreground.sum() + 7.5)):
        head = random_head(SIZES, [6, 0, 3], layout=layout, dtype=torch.float64, device=device)
        options = {"gamma": gamma, "normalization": normalization, "box_loss": box_loss, "smooth_l1_beta": 0.3}
        check(head, 1e-10, **options, bbox_reg_weights=(10.0, 10.0, 5.0, 5.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dtypes(device: str, layout: str, dtype: torch.dtype) -> None:
    # Two roundings of a gradient to the dtype, the second for the upstream factor; float32 sums and formulas.
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for classes, box_loss in ((7, "l1"), (91, "giou")):
        head = random_head(SIZES, [4, 2], layout=layout, classes=classes, dtype=dtype, device=device)
        assert [loss.dtype for loss in loss_of(head)] == [torch.float32] * 2
        check(head, tolerance, box_loss=box_loss)


@pytest.mark.parametrize("layout", ["planar", "rows"])
def test_more_than_one_strip(device: str, layout: str) -> None:
    """A level of more cells than a unit of work has, with labels in the first and the last class."""
    head = random_head([(67, 65)], [9], per_cell=1, classes=3, layout=layout, device=device)
    head.gt_labels[0][:] = torch.tensor([0, 2, 1] * 3)
    check(head, 2e-5)


def test_mixed_dtypes_and_layouts(device: str) -> None:
    """Half logits beside float32 deltas; one level contiguous, one channels-last."""
    planar = random_head([(9, 8), (4, 4)], [3, 2], device=device)
    other = random_head([(9, 8), (4, 4)], [3, 2], layout="channels_last", device=device)
    logits = [planar.cls_logits[0], other.cls_logits[1]]
    logits = [level.detach().to(torch.bfloat16).requires_grad_() for level in logits]
    deltas = [other.bbox_regression[0], planar.bbox_regression[1]]
    check(Head(logits, deltas, planar.anchors, planar.gt_boxes, planar.gt_labels), 2**-7)


def test_boxes_are_not_rounded_to_the_anchors(device: str) -> None:
    """float64 boxes beside float32 anchors, and float32 boxes far from the origin beside half ones."""
    head = random_head(SIZES, [4, 2], dtype=torch.float64, device=device)
    narrow = Head(
        head.cls_logits, head.bbox_regression, head.anchors.float(), [boxes + 1e-9 for boxes in head.gt_boxes],
        head.gt_labels,
    )  # fmt: skip
    check(narrow, 1e-10)
    for dtype in (torch.bfloat16, torch.float16):
        head = random_head(SIZES, [4, 2], device=device)
        far = torch.tensor([1000.0, 900, 1000, 900], device=device)
        anchors, boxes = (head.anchors + far).to(dtype), [boxes + far for boxes in head.gt_boxes]
        check(Head(head.cls_logits, head.bbox_regression, anchors, boxes, head.gt_labels), 1e-4)
        for its_boxes in boxes:
            matches = match_anchors(anchors, its_boxes)
            assert torch.equal(matches, reference.match_anchors(anchors.float(), its_boxes))


def test_not_dense_is_copied(device: str) -> None:
    head = random_head([(8, 8)], [3, 2], device=device)
    wide = [torch.cat([level.detach()] * 2, dim=3).requires_grad_() for level in head.outputs]
    half = [level[..., :8] for level in wide]
    losses = loss_of(Head(half[:1], half[1:], head.anchors, head.gt_boxes, head.gt_labels))
    torch.testing.assert_close(losses, loss_of(head))
    sum(losses).backward()
    assert all((level.grad[..., 8:] == 0).all() and level.grad[..., :8].any() for level in wide)


def test_crowds_and_low_quality(device: str) -> None:
    head = random_head(SIZES, [5, 1], dtype=torch.float64, device=device)
    regions = [boxes + 3 for boxes in head.gt_boxes]
    check(head, 1e-10, ignore_regions=regions, ignore_iof=0.4)
    check(head, 1e-10, allow_low_quality_matches=False, fg_iou_thresh=0.6, bg_iou_thresh=0.3, alpha=-1)
    check(head, 1e-10, ignore_regions=[regions[0], regions[1][:0]], alpha=1.0)


def test_no_objects_at_all(device: str) -> None:
    head = random_head(SIZES, [0, 0], device=device)
    losses = loss_of(head)
    assert losses[1] == 0 and losses[0] > 0
    check(head, 2e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_ignored_anchors_may_be_nan(device: str, layout: str, create_graph: bool) -> None:
    """An anchor between the thresholds is selected away, whatever its outputs are."""
    head = random_head([(6, 6)], [4], layout=layout, device=device)
    matches = match_anchors(head.anchors, head.gt_boxes[0], 0.9, 0.1)
    ignored = torch.where(matches == -2)[0]
    assert len(ignored) > 0
    with torch.no_grad():
        for level in head.outputs:
            for anchor in ignored.tolist():
                outputs_of(level, anchor).fill_(torch.nan)
    losses = loss_of(head, fg_iou_thresh=0.9, bg_iou_thresh=0.1)
    gradients = torch.autograd.grad(sum(losses), head.outputs, create_graph=create_graph)
    assert all(loss.isfinite() for loss in losses) and all(g.isfinite().all() for g in gradients)
    assert all((outputs_of(g, anchor) == 0).all() for g in gradients for anchor in ignored.tolist())


def outputs_of(level: Tensor, anchor: int) -> Tensor:
    """A view of what a level ``[1, 3 * C, H, W]`` or ``[1, N, C]`` says of an anchor, three a cell."""
    if level.dim() == 3:
        return level[0, anchor]
    (row, column), values = divmod(anchor // 3, level.shape[3]), level.shape[1] // 3
    return level[0, anchor % 3 * values : (anchor % 3 + 1) * values, row, column]


def test_equals_composed_operators(device: str) -> None:
    """Without fusing: match, focal loss of rows, encode, L1."""
    head = random_head(SIZES, [6, 2], device=device)
    logits, deltas = (torch.cat(levels, dim=1) for levels in by_anchor(head.cls_logits, head.bbox_regression))
    expected = [torch.zeros((), device=device), torch.zeros((), device=device)]
    for image, (boxes, labels) in enumerate(zip(head.gt_boxes, head.gt_labels, strict=True)):
        match = match_anchors(head.anchors, boxes)
        found = match >= 0
        classes = torch.where(match == -1, 7, -1)
        classes[found] = labels[match[found]]
        divisor = found.sum().clamp(min=1) * 2
        expected[0] = expected[0] + sigmoid_focal_loss(logits[image], classes, reduction="sum") / divisor
        wanted = encode_boxes(boxes[match[found]], head.anchors[found])
        expected[1] = expected[1] + (deltas[image][found] - wanted).abs().sum() / divisor
    for mine, theirs in zip(loss_of(head), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("box_loss", ["l1", "smooth_l1", "giou"])
def test_matches_torchvision(device: str, box_loss: str) -> None:
    head = random_head(SIZES, [6, 2], dtype=torch.float64, device=device)
    classification = RetinaNetClassificationHead(8, 3, 7)
    regression = RetinaNetRegressionHead(8, 3)
    regression._loss_type = box_loss
    logits, deltas = (torch.cat(levels, dim=1) for levels in by_anchor(head.cls_logits, head.bbox_regression))
    targets = [{"boxes": b, "labels": x} for b, x in zip(head.gt_boxes, head.gt_labels, strict=True)]
    matches = match_anchors(head.anchors, head.gt_boxes)
    expected = (
        classification.compute_loss(targets, {"cls_logits": logits}, matches),
        regression.compute_loss(targets, {"bbox_regression": deltas}, [head.anchors] * 2, matches),
    )
    losses = loss_of(head, box_loss=box_loss)
    torch.testing.assert_close(losses, expected)
    ours, theirs = (gradients_of(loss, head.outputs) for loss in (losses, expected))
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-14)
