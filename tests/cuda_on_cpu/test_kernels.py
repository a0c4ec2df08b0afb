"""Every CUDA kernel on the emulated device, under sanitizers and the race checker, against `retina_ops.reference`."""

from __future__ import annotations

import itertools

import pytest
import torch
from boxes import boxes_at_iou, odd_boxes, random_boxes
from torch import Tensor

from retina_ops import reference

from . import device as emulated
from .build import build
from .device import Device

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
HALF = (torch.float16, torch.bfloat16)
GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


@pytest.fixture(scope="module", params=["sanitizers", "races"])
def gpu(request: pytest.FixtureRequest) -> Device:
    return Device(build(request.param))


def close(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Within the precision of `dtype`, of float64 expectations."""
    relative = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    absolute = {torch.float64: 1e-13, torch.float32: 1e-7, torch.float16: 1e-6, torch.bfloat16: 1e-7}[dtype]
    torch.testing.assert_close(got.double(), expected.double(), rtol=relative, atol=absolute, equal_nan=True)


def focal_inputs(rows: int, classes: int, dtype: torch.dtype, kind: str) -> tuple[Tensor, Tensor]:
    logits = (torch.randn(rows, classes, dtype=torch.float64) * 3).to(dtype)
    if kind == "labels":
        labels = torch.randint(0, classes + 1, (rows,))
        labels[torch.rand(rows) < 0.2] = -1
        return logits, labels
    soft = torch.rand(rows, classes, dtype=torch.float64)
    return logits, (soft.to(dtype) if kind == "soft" else soft.float())


def focal_expected(logits: Tensor, targets: Tensor, alpha: float | Tensor, gamma: float, order: int) -> Tensor:
    x = logits.to(torch.float64, copy=True).requires_grad_()
    precise = targets.double() if targets.is_floating_point() else targets
    weight = alpha.double() if isinstance(alpha, Tensor) else alpha
    result = reference.sigmoid_focal_loss(x, precise, weight, gamma)
    for _ in range(order):
        (result,) = torch.autograd.grad(result.sum(), x, create_graph=True)
    return result.detach()


# Rows x classes: every residue of a pack of 16 bytes, one element, one and several blocks.
SHAPES = [(1, 1), (1, 2), (1, 3), (5, 3), (3, 16), (7, 17), (31, 33), (70, 80)]


ELEMENTS = [
    (order, dtype, kind)
    for order, dtype, kind in itertools.product((0, 1, 2), DTYPES, ("labels", "soft", "soft float32"))
    if (order < 2 or dtype not in HALF) and (kind != "soft float32" or dtype in HALF)
]


@pytest.mark.parametrize(("order", "dtype", "kind"), ELEMENTS, ids=str)
def test_focal_loss_elements(gpu: Device, order: int, dtype: torch.dtype, kind: str) -> None:
    for number, (rows, classes) in enumerate(SHAPES):
        logits, targets = focal_inputs(rows, classes, dtype, kind)
        gamma = GAMMAS[number % len(GAMMAS)] if order < 2 else (2.0, 3.0)[number % 2]
        alpha = (0.25, -1.0, torch.rand(classes, dtype=torch.float64))[number % 3]
        alpha = alpha.to(emulated.arithmetic(dtype)) if isinstance(alpha, Tensor) else alpha
        upstream = torch.rand(logits.shape, dtype=torch.float64).to(dtype) if number % 2 else 1.5
        # A start that 16-byte accesses cannot take: elements are then read one by one.
        offset = logits.element_size() if number % 4 == 3 else 0
        got = emulated.focal_loss(gpu, logits, targets, alpha, gamma, order=order, upstream=upstream, offset=offset)
        expected = focal_expected(logits, targets, alpha, gamma, order)
        if order:
            expected = expected * (upstream.double() if isinstance(upstream, Tensor) else upstream)
        close(got, expected, dtype)


@pytest.mark.parametrize("kind", ["labels", "soft"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_focal_loss_reduced(gpu: Device, gamma: float, dtype: torch.dtype, kind: str) -> None:
    for mean, (rows, classes) in itertools.product((False, True), [(1, 3), (37, 41), (600, 16)]):
        logits, targets = focal_inputs(rows, classes, dtype, kind)
        loss, grad = emulated.focal_loss_reduced(gpu, logits, targets, 0.25, gamma, mean=mean)
        assert grad is not None
        count = int((targets != -1).sum()) * classes if kind == "labels" else logits.numel()
        divisor = count if mean else 1
        elements = focal_expected(logits, targets, 0.25, gamma, 0)
        expected = elements.sum() / divisor if count else torch.tensor(float("nan") if mean else 0.0)
        torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-4, atol=1e-9, equal_nan=True)
        close(grad, focal_expected(logits, targets, 0.25, gamma, 1) / max(1, divisor), dtype)
        alone, none = emulated.focal_loss_reduced(gpu, logits, targets, 0.25, gamma, mean=mean, with_grad=False)
        assert none is None and torch.equal(alone.nan_to_num(), loss.nan_to_num())


def test_focal_loss_of_nothing(gpu: Device) -> None:
    loss, _ = emulated.focal_loss_reduced(gpu, torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    assert loss.item() == 0
    loss, _ = emulated.focal_loss_reduced(gpu, torch.randn(4, 3), torch.full((4,), -1), mean=True)
    assert loss.isnan()


def test_focal_loss_sum_does_not_depend_on_the_schedule(gpu: Device) -> None:
    """The last block to finish adds the others' sums in their order, whichever it is."""
    logits, labels = focal_inputs(3000, 8, torch.float32, "labels")
    first = emulated.focal_loss_reduced(gpu, logits, labels)
    for order, seed in (("reverse", 1), ("random", 1), ("random", 2)):
        again = emulated.focal_loss_reduced(Device(gpu.program, order, seed), logits, labels)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_focal_loss_bad_labels_are_nan(gpu: Device) -> None:
    logits = torch.randn(4, 5)
    got = emulated.focal_loss(gpu, logits, torch.tensor([0, 6, -3, 5]))
    assert got[[1, 2]].isnan().all() and got[[0, 3]].isfinite().all()
    ignored = torch.tensor([[float("nan")] * 5, [1.0] * 5])
    got = emulated.focal_loss(gpu, ignored, torch.tensor([-7, 0]), ignore_index=-7)
    assert (got[0] == 0).all() and got[1].isfinite().all()


def test_count_labels(gpu: Device) -> None:
    labels = torch.randint(-2, 8, (1000,))
    counts = emulated.count_labels(gpu, labels, 5)
    bad = int(((labels < -1) | (labels > 5)).sum())
    assert counts.tolist() == [int((labels != -1).sum()) * 5, bad]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scale_gradient(gpu: Device, dtype: torch.dtype) -> None:
    for count, scale in ((1, 2.0), (17, -0.5), (5000, 3.0), (300, 1.0)):
        grad = torch.randn(count, dtype=torch.float64).to(dtype)
        offset = grad.element_size() if count == 17 else 0
        assert torch.equal(emulated.scale_gradient(gpu, grad, scale, offset), grad * scale)


def test_large_indices(gpu: Device) -> None:
    """The first element is past 2^31: an index of 32 bits would fall outside the arrays."""
    classes = 16
    first = (2**31 // classes + 1) * classes
    logits, labels = focal_inputs(20, classes, torch.float32, "labels")
    far = emulated.focal_loss(gpu, logits, labels, first=first)
    assert torch.equal(far, emulated.focal_loss(gpu, logits, labels))
    boxes, proposals = random_boxes(300), random_boxes(300)
    far_codes, _ = emulated.box_coding(gpu, "encode", boxes, proposals, first=2**31 + 4)
    assert torch.equal(far_codes, emulated.box_coding(gpu, "encode", boxes, proposals)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_box_iou(gpu: Device, dtype: torch.dtype) -> None:
    for batch, n, m, offset in ((1, 1, 1, 0), (2, 33, 7, 0), (1, 5, 516, 0), (2, 31, 130, 4), (1, 40, 513, 0)):
        first = torch.stack([random_boxes(n) for _ in range(batch)]).to(dtype)
        second = torch.stack([random_boxes(m) for _ in range(batch)]).to(dtype)
        start = offset * first.element_size()
        assert torch.equal(emulated.box_iou(gpu, first, second, start), reference.box_iou(first, second))
    odd = odd_boxes().to(dtype)[None]
    got, expected = emulated.box_iou(gpu, odd, odd), reference.box_iou(odd, odd)
    assert torch.equal(got.nan_to_num(nan=-9.0), expected.nan_to_num(nan=-9.0))


CODING = [(dtype, dtype) for dtype in DTYPES] + [(dtype, torch.float32) for dtype in HALF]


@pytest.mark.parametrize(("code_dtype", "proposal_dtype"), CODING, ids=str)
def test_box_coding(gpu: Device, code_dtype: torch.dtype, proposal_dtype: torch.dtype) -> None:
    weights = (10.0, 10.0, 5.0, 5.0)
    for count, period, offset in ((1, 1, 0), (300, 300, 0), (257, 257, 1), (512, 128, 0)):
        proposals, boxes = random_boxes(period).to(proposal_dtype), random_boxes(count).to(code_dtype)
        deltas = (torch.randn(count, 4) * 0.5).to(code_dtype)
        deltas[0, 2] = 90.0  # clamped
        repeated = proposals.repeat(count // period, 1)
        start = offset * boxes.element_size()
        grad = torch.randn(count, 4).to(proposal_dtype)
        for op, codes in (("encode", boxes), ("decode", deltas)):
            size = (480, 640) if op == "decode" else None
            a, p = (t.to(torch.float64, copy=True).requires_grad_() for t in (codes, repeated))
            if op == "encode":
                expected = reference.encode_boxes(a, p, weights)
            else:
                expected = reference.decode_boxes(a, p, weights, image_size=size)
            got, _ = emulated.box_coding(gpu, op, codes, proposals, weights, image_size=size, offset=start)
            near(got, expected.detach(), proposal_dtype)
            gradients = torch.autograd.grad(expected, (a, p), grad.double())
            found = emulated.box_coding(
                gpu, f"{op}_backward", codes, proposals, weights, grad=grad, image_size=size, offset=start
            )
            for mine, theirs in zip(found, gradients, strict=True):
                assert mine is not None
                near(mine, theirs, proposal_dtype)


def near(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Coordinates and deltas: differences of large numbers, relative to the largest."""
    relative = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    scale = float(expected.abs().max())
    assert (got.double() - expected).abs().max() <= relative * max(scale, 1.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_match_anchors(gpu: Device, dtype: torch.dtype) -> None:
    truth = [random_boxes(12), random_boxes(0), random_boxes(70), random_boxes(1)]
    truth = [boxes.to(dtype) for boxes in truth]
    regions = [random_boxes(3).to(dtype), random_boxes(0).to(dtype), random_boxes(40).to(dtype), truth[3]]
    shared = random_boxes(700).to(dtype)
    own = torch.stack([random_boxes(300) for _ in truth]).to(dtype)
    for anchors, low_quality, fg, bg, ignored, offset in (
        (shared, True, 0.5, 0.4, None, 0),
        (shared, False, 0.5, 0.4, regions, 0),
        (own, True, 0.3, 0.3, regions, 1),
        (shared[:1], True, 0.7, 0.0, None, 0),  # background threshold 0: every pair counts
        (own, True, 0.9, 0.9, None, 0),
    ):
        got = emulated.match_anchors(
            gpu, anchors, truth, fg, bg, low_quality, regions=ignored, offset=offset * anchors.element_size()
        )
        for image, boxes in enumerate(truth):
            mine = anchors[image] if anchors.dim() == 3 else anchors
            region = ignored[image] if ignored is not None else None
            expected = reference.match_anchors(mine, boxes, fg, bg, low_quality, ignore_regions=region)
            assert torch.equal(got[image], expected), (image, fg, bg, low_quality)


def test_match_anchors_adversarial(gpu: Device) -> None:
    odd = odd_boxes()
    ties = boxes_at_iou(100, 0.5)
    for anchors, boxes in ((odd, odd), (ties, ties[::2].contiguous()), (random_boxes(200), odd)):
        assert torch.equal(emulated.match_anchors(gpu, anchors, [boxes])[0], reference.match_anchors(anchors, boxes))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nms(gpu: Device, dtype: torch.dtype) -> None:
    for count, score_dtype, threshold, offset in (
        (1, torch.float32, 0.5, 0),
        (64, torch.float64, 0.3, 0),
        (65, torch.float16, 0.0, 1),
        (500, torch.bfloat16, 0.5, 0),
    ):
        boxes = random_boxes(count, high=300).to(dtype)
        scores = torch.rand(count, dtype=torch.float64).to(score_dtype)
        expected = reference.nms(boxes, scores, threshold)
        start = offset * boxes.element_size()
        kept, number = emulated.nms(gpu, boxes, scores, threshold, offset=start)
        assert torch.equal(kept[:number], expected) and (kept[number:] == -1).all()
        few, number = emulated.nms(gpu, boxes, scores, threshold, max_output=3)
        assert torch.equal(few[:number], expected[:3]) and number == min(3, len(expected))
        classes = torch.randint(0, 5, (count,))
        kept, number = emulated.nms(gpu, boxes, scores, threshold, classes, max_output=count + 7)
        assert torch.equal(kept[:number], reference.batched_nms(boxes, scores, classes, threshold))
        assert (kept[number:] == -1).all()


def test_nms_adversarial(gpu: Device) -> None:
    odd = odd_boxes()
    scores = torch.rand(len(odd))
    scores[::5] = float("nan")
    kept, number = emulated.nms(gpu, odd, scores, 0.5)
    assert torch.equal(kept[:number], reference.nms(odd, scores, 0.5))
    ties = boxes_at_iou(150, 0.3)
    same = torch.ones(len(ties))
    kept, number = emulated.nms(gpu, ties, same, 0.3)
    assert torch.equal(kept[:number], reference.nms(ties, same, 0.3))


def test_nms_of_several_chunks(gpu: Device) -> None:
    """More boxes than are resolved together: 4096, and a rest of no whole tile."""
    boxes, scores = random_boxes(4096 + 130, low=2, high=8), torch.rand(4096 + 130)
    boxes[4090:4200] = boxes[:110] + 0.1  # overlaps between the chunks
    expected = reference.nms(boxes, scores, 0.5)
    kept, number = emulated.nms(gpu, boxes, scores, 0.5)
    assert torch.equal(kept[:number], expected) and number < len(boxes)
    classes = torch.randint(0, 3, (len(boxes),))
    kept, number = emulated.nms(gpu, boxes, scores, 0.5, classes)
    assert torch.equal(kept[:number], reference.batched_nms(boxes, scores, classes, 0.5))


@pytest.mark.parametrize("seed", range(1, 21))
def test_random_schedules_find_nothing(seed: int) -> None:
    """Every kernel in 20 random orders of threads and blocks: the same results, and no report."""
    gpu = Device(build("races"), "random", seed)
    logits, labels = focal_inputs(60, 9, torch.float32, "labels")
    forward = Device(gpu.program)
    for mean in (False, True):
        mine = emulated.focal_loss_reduced(gpu, logits, labels, mean=mean)
        assert torch.equal(mine[0], emulated.focal_loss_reduced(forward, logits, labels, mean=mean)[0])
    close(
        emulated.focal_loss(gpu, logits, labels, order=1), focal_expected(logits, labels, 0.25, 2.0, 1), torch.float32
    )
    emulated.scale_gradient(gpu, logits, 2.0)
    boxes, scores = random_boxes(200), torch.rand(200)
    assert torch.equal(emulated.match_anchors(gpu, boxes, [boxes[:20]])[0], reference.match_anchors(boxes, boxes[:20]))
    classes = torch.randint(0, 3, (200,))
    kept, number = emulated.nms(gpu, boxes, scores, 0.3, classes)
    assert torch.equal(kept[:number], reference.batched_nms(boxes, scores, classes, 0.3))
    assert torch.equal(emulated.box_iou(gpu, boxes[None, :40], boxes[None])[0], reference.box_iou(boxes[:40], boxes))
    emulated.box_coding(gpu, "decode", boxes, boxes.flip(0).contiguous())
