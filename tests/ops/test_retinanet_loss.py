"""retinanet_loss: the composed operators, torchvision's results, memory, tracing, and what the contracts do not ask."""

from __future__ import annotations

import pytest
import torch
from inputs.heads import Head, random_head
from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

from retina_ops import encode_boxes, match_anchors, reference, retinanet_loss, sigmoid_focal_loss
from retina_ops.ops._host_values import fill_on_device, to_device
from retina_ops.reference.head_outputs import by_anchor

LAYOUTS = ("planar", "channels_last", "rows")
SIZES = [(11, 13), (5, 7), (2, 3), (1, 1)]


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
def test_gradients_have_the_layout_of_the_outputs(device: str, layout: str) -> None:
    check(random_head(SIZES, [4, 2], layout=layout, device=device), 2e-5)


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
    """A view of one anchor in a level ``[1, 3 * C, H, W]`` or ``[1, N, C]``; a cell has three anchors."""
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


# --- tracing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_with_sizes_and_numbers_of_a_tracer(backend: str, device: str) -> None:
    """dynamic=True: heights, widths and gamma are symbols."""
    torch._dynamo.reset()

    def total(logits, deltas, anchors, boxes, labels, gamma, beta):  # type: ignore[no-untyped-def]
        losses = retinanet_loss(
            logits, deltas, anchors, boxes, labels, gamma=gamma, box_loss="smooth_l1", smooth_l1_beta=beta
        )
        return losses[0] + losses[1]

    compiled = torch.compile(total, fullgraph=True, dynamic=True, backend=backend)
    for sizes, gamma, beta in (([(6, 5), (3, 2)], 1.3, 0.2), ([(7, 9), (4, 2)], 2.2, 0.4)):
        head = random_head(sizes, [3, 2], device=device)
        arguments = (head.cls_logits, head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels, gamma, beta)
        got, expected = compiled(*arguments), total(*arguments)
        torch.testing.assert_close(got, expected)
        mine, theirs = torch.autograd.grad(got, head.outputs), torch.autograd.grad(expected, head.outputs)
        torch.testing.assert_close(mine, theirs)


def test_numbers_of_the_host(device: str) -> None:
    """The same whether they are copied or are arguments of kernels."""
    rows = [[3.5, 4.0], [7.0, -1.0], [0.0, 2.0]]
    for dtype in (torch.float64, torch.int32):
        expected = torch.tensor(rows, dtype=dtype)
        for function in (to_device, fill_on_device):
            got = function(rows, dtype, torch.device(device))
            assert got.device.type == device and got.dtype == dtype and torch.equal(got.cpu(), expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replays_in_a_cuda_graph() -> None:
    """Losses and gradients of new outputs and boxes, with pinned memory that others have written since the capture."""
    head = random_head([(20, 30), (4, 5)], [5, 3], device="cuda")

    def step() -> list[torch.Tensor]:
        losses = loss_of(head)
        return [*losses, *torch.autograd.grad(sum(losses), head.outputs)]

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        others = [torch.full((16,), 99, dtype=torch.int32, pin_memory=True) for _ in range(64)]
        with torch.no_grad():
            for level in head.outputs:
                level.copy_(torch.randn_like(level))
            for boxes in head.gt_boxes:
                boxes.add_(1)
        graph.replay()
        for mine, theirs in zip(captured, step(), strict=True):
            torch.testing.assert_close(mine, theirs)
        del others


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_beyond_the_gradients() -> None:
    """At most 32 bytes per anchor and image: no copy of the logits, no matrix of IoUs."""
    head = random_head([(60, 50), (30, 25)], [40, 30], classes=30)
    loss_of(head)  # a first call keeps memory
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        losses = loss_of(head)
        sum(losses).backward()
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
    gradients = sum(level.numel() * level.element_size() for level in head.outputs)
    assert allocated >= gradients  # the profiler has seen them
    assert allocated <= gradients + 32 * len(head.anchors) * len(head.gt_boxes)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_does_not_wait_for_the_device() -> None:
    head = random_head([(20, 30), (4, 5)], [5, 0, 3], device="cuda")
    sum(loss_of(head)).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sum(loss_of(head)).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_label_out_of_range(device: str) -> None:
    head = random_head(SIZES, [2, 1], device=device)
    head.gt_labels[0][1] = 7
    if device == "cpu":
        with pytest.raises(RuntimeError, match=r"retinanet_loss: matches must be under 8 and gt_labels in \[0, 7\)"):
            loss_of(head)
    else:
        assert loss_of(head)[0].isnan()
