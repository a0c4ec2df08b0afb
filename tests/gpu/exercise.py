"""Every CUDA kernel at small shapes, for compute-sanitizer; determinism; equality with the CPU. Needs a GPU.

PYTHONPATH=.:tests python tests/gpu/exercise.py kernels [dtype ...] | determinism [runs] | equality [cases] | graph
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

import torch
from inputs.boxes import odd_boxes, random_boxes
from inputs.heads import channels_last, head_outputs, random_head
from torch import Tensor

import retina_ops as ops

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SIZES = ((0, 3), (1, 1), (7, 5), (33, 80), (130, 17), (257, 91))


def focal_loss(rows: int, classes: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Index, dense and soft targets, all reductions, gradient, second derivative."""
    results = []
    base = torch.randn(rows, classes, dtype=torch.float64).to(dtype).to(device)
    labels = torch.randint(-1, classes + 1, (rows,)).to(device)
    soft = torch.rand(rows, classes, dtype=torch.float64).to(dtype).to(device)
    alpha = torch.rand(classes).to(device)
    for targets in (labels, soft, soft.round()):
        for reduction in ("none", "sum", "mean"):
            for gamma in (0.0, 1.5, 2.0, 3.3):
                logits = base.clone().requires_grad_()
                weight = alpha if targets is labels and gamma == 2 else 0.25
                loss = ops.sigmoid_focal_loss(logits, targets, weight, gamma, reduction)
                total = loss.sum() * 1.5
                (gradient,) = torch.autograd.grad(total, logits, create_graph=True)
                results += [loss.detach(), gradient.detach()]
                if dtype in (torch.float32, torch.float64) and gamma:
                    (second,) = torch.autograd.grad(gradient.sum(), logits)
                    results.append(second)
    return results


def boxes_of(count: int, device: str) -> Tensor:
    mixed = torch.cat([random_boxes(max(0, count - 25)), odd_boxes()])[:count]
    return mixed.to(device)


def matching(count: int, objects: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """One image and a batch, with and without low-quality matches and regions to ignore."""
    anchors = boxes_of(count, device).to(dtype)
    truth = random_boxes(objects).to(device).to(dtype)
    regions = random_boxes(2).to(device).to(dtype)
    return [
        ops.match_anchors(anchors, truth),
        ops.match_anchors(anchors, truth, 0.5, 0.4, False),
        ops.match_anchors(anchors, truth, 0.7, 0.3, min_pos_iou=0.4),
        ops.match_anchors(anchors, truth, ignore_regions=regions),
        *ops.match_anchors(anchors, [truth, truth[:0], truth[:1]]),
    ]


def suppression(count: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    boxes = boxes_of(count, device).to(dtype)
    scores = (torch.rand(count) * 64).round().to(device)  # many ties
    classes = torch.randint(0, 4, (count,)).to(device)
    return [
        ops.nms(boxes, scores, 0.5),
        ops.nms(boxes, scores, 0.0),
        ops.batched_nms(boxes, scores, classes, 0.3),
        *ops.nms_padded(boxes, scores, 0.5, 16),
        *ops.nms_padded(boxes, scores, 0.5, 2 * count + 1, idxs=classes),
        *ops.soft_nms(boxes, scores, 0.3, "linear", 0.5, 0.0),
        *ops.soft_nms(boxes, scores.to(dtype), 0.3, "gaussian", 0.5, 1.0),
        *ops.soft_nms(boxes, scores, 0.3, "gaussian", 0.2, 0.0, idxs=classes),
    ]


def coding(count: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    anchors = random_boxes(count).to(device).to(dtype)
    truth = random_boxes(count).to(device).to(dtype)
    deltas = (torch.randn(count, 4) * 0.3).to(device).to(dtype).requires_grad_()
    decoded = ops.decode_boxes(deltas, anchors, (10, 10, 5, 5), image_size=(600, 800))
    (gradient,) = torch.autograd.grad(decoded.sum(), deltas)
    source = truth.clone().requires_grad_()
    codes = ops.encode_boxes(source, anchors)
    (back,) = torch.autograd.grad(codes.sum(), source)
    results = [decoded.detach(), gradient, codes.detach(), back, ops.box_iou(truth[:40], anchors)]
    for kind in ("generalized", "distance", "complete"):
        for reduction in ("none", "sum", "mean"):
            loss = getattr(ops, f"{kind}_box_iou_loss")(source, anchors, reduction)
            results += [loss.detach(), *torch.autograd.grad(loss.sum() * 1.5, source)]
        pairs = getattr(ops, f"{kind}_box_iou")(source[:40], anchors)
        results += [pairs.detach(), *torch.autograd.grad(pairs.sum(), source)]
    return results


def fused_loss(side: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """All box losses, in both orders of memory, with and without crowds; two backwards of different upstreams."""
    results: list[Tensor] = []
    for layout in ("planar", "channels_last"):
        for gamma, box_loss in ((2.0, "l1"), (0.0, "smooth_l1"), (1.5, "giou"), (2.0, "diou"), (2.0, "ciou")):
            head = random_head([(side, side), (2, 3)], [5, 0, 9], classes=21, layout=layout, dtype=dtype, device=device)
            crowds = [boxes[:1] for boxes in head.gt_boxes] if box_loss == "giou" else None
            losses = ops.retinanet_loss(
                head.cls_logits, head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels,
                gamma=gamma, box_loss=box_loss, ignore_regions=crowds,
            )  # fmt: skip
            total = losses[0] + 0.5 * losses[1]
            for _ in range(2):
                results += torch.autograd.grad(total, head.outputs, retain_graph=True)
            results += [loss.detach() for loss in losses]
    return results


def detection(side: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Candidates that fit, that do not, and equal ones; both orders in memory; deltas of another dtype."""
    results: list[Tensor] = []
    for kind in ("trained", "dense", "ties", "constant"):
        cls_logits, bbox_regression, anchors = head_outputs(2, 11, sizes=((side, side), (2, 3)), kind=kind, dtype=dtype)
        logits, deltas = ([level.to(device) for level in levels] for levels in (cls_logits, bbox_regression))
        sizes = torch.tensor([(70, 90), (60, 96)], device=device)
        results += ops.postprocess(logits, deltas, anchors.to(device), sizes)
        last = channels_last(logits), [level.float() for level in deltas]
        results += ops.postprocess(*last, anchors.to(device), sizes, topk_candidates=300, nms_thresh=0.3)
        results += ops.postprocess(
            logits, deltas, anchors.double().to(device), sizes, topk_candidates=3000, score_thresh=0.01
        )
    return results


def check_graph() -> dict[str, object]:
    """`postprocess` captured in a CUDA graph, which refuses any host synchronisation, and replayed on new outputs."""
    replays = 0
    for dtype in DTYPES:
        logits, deltas, anchors = head_outputs(4, 11, sizes=((33, 29), (3, 2)), dtype=dtype, device="cuda")
        sizes = torch.full((4, 2), 90.0, device="cuda")
        ops.postprocess(logits, deltas, anchors, sizes)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = ops.postprocess(logits, deltas, anchors, sizes)
        for kind in ("trained", "dense", "constant"):
            fresh = head_outputs(4, 11, sizes=((33, 29), (3, 2)), kind=kind, dtype=dtype, device="cuda")
            for old, new in zip([*logits, *deltas], [*fresh[0], *fresh[1]], strict=True):
                old.copy_(new)
            sizes.copy_(torch.randint(20, 90, (4, 2)))
            graph.replay()
            for a, b in zip(captured, ops.postprocess(logits, deltas, anchors, sizes), strict=True):
                if not torch.equal(a, b):
                    raise AssertionError(f"replay of {kind}, {dtype}, differs")
            replays += 1
    return {"replays": replays}


def kernels(device: str = "cuda", dtypes: Sequence[torch.dtype] | None = None) -> list[Tensor]:
    """All of them, sizes around warps, vectors and blocks."""
    results: list[Tensor] = []
    for dtype in DTYPES if dtypes is None else dtypes:
        for rows, classes in SIZES:
            results += focal_loss(rows, classes, dtype, device)
        for count in (0, 1, 31, 64, 65, 300, 1100):
            results += matching(count, min(count, 37), dtype, device)
            results += suppression(count, dtype, device)
            results += coding(count, dtype, device)
        for side in (1, 7, 33):
            results += detection(side, dtype, device)
            results += fused_loss(side, dtype, device)
    return results


def check_kernels(*names: str) -> dict[str, object]:
    """Of the dtypes with these names, or of all."""
    return {"tensors": len(kernels(dtypes=[dtype for dtype in DTYPES if not names or str(dtype) in names]))}


def check_determinism(times: str = "100") -> dict[str, object]:
    """Bitwise equal results of repeated runs on the same input."""
    runs = int(times)

    def once(function: Callable[..., list[Tensor]], *arguments: object) -> list[Tensor]:
        torch.manual_seed(5)
        return function(*arguments)

    cases: list[tuple[object, ...]] = [
        *[(focal_loss, 5_000, 80, dtype, "cuda") for dtype in DTYPES],
        *[(matching, 50_000, 200, dtype, "cuda") for dtype in DTYPES],
        *[(suppression, 5_000, dtype, "cuda") for dtype in DTYPES],
        *[(coding, 50_000, dtype, "cuda") for dtype in DTYPES],
        *[(detection, 60, dtype, "cuda") for dtype in DTYPES],
        *[(fused_loss, 40, dtype, "cuda") for dtype in DTYPES],
    ]
    for function, *arguments in cases:
        first = once(function, *arguments)  # type: ignore[arg-type]
        for _ in range(runs - 1):
            again = once(function, *arguments)  # type: ignore[arg-type]
            for a, b in zip(first, again, strict=True):
                if not torch.equal(a.nan_to_num(), b.nan_to_num()):
                    raise AssertionError(f"{function} {arguments} differs between runs")
    return {"runs": runs, "cases": len(cases)}


def check_equality(times: str = "1000") -> dict[str, object]:
    """Matches and kept indices of CPU and CUDA are the same, bit by bit."""
    cases = int(times)
    for seed in range(cases):
        dtype = DTYPES[seed % len(DTYPES)]
        count = int(torch.randint(1, 2000, (), generator=torch.Generator().manual_seed(seed)))
        both = []
        for device in ("cpu", "cuda"):
            torch.manual_seed(seed)
            both.append([*matching(count, 1 + seed % 60, dtype, device), *suppression(count, dtype, device)])
        for number, (a, b) in enumerate(zip(*both, strict=True)):
            if not torch.equal(a, b.cpu()):
                raise AssertionError(f"case {seed}, result {number}, {dtype}: CPU and CUDA differ")
    return {"cases": cases}


if __name__ == "__main__":
    torch.manual_seed(0)
    checks = {
        "kernels": check_kernels,
        "determinism": check_determinism,
        "equality": check_equality,
        "graph": check_graph,
    }
    figures = checks[sys.argv[1]](*sys.argv[2:])
    torch.cuda.synchronize()
    print(json.dumps(figures))
