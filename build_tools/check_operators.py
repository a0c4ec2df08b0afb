"""Every CPU operator against its plain PyTorch reference, with nothing but torch and retina_ops installed."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

import retina_ops as ops
from retina_ops import reference


def boxes(count: int, dtype: torch.dtype) -> Tensor:
    corner, size = torch.rand(count, 2) * 300, torch.rand(count, 2) * 100 + 4
    return torch.cat([corner, corner + size], dim=1).to(dtype)


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got.double(), expected.double(), rtol=1e-3, atol=1e-4)


def main() -> None:
    torch.manual_seed(0)
    assert "torchvision" not in sys.modules and "torch" in sys.modules
    for dtype in (torch.float32, torch.float64):
        logits = torch.randn(500, 30, dtype=dtype, requires_grad=True)
        labels = torch.randint(-1, 31, (500,))
        for reduction in ("none", "sum", "mean"):
            got = ops.sigmoid_focal_loss(logits, labels, reduction=reduction)
            expected = reference.sigmoid_focal_loss(logits, labels, reduction=reduction)
            close(got, expected)
            close(*(torch.autograd.grad(loss.sum(), logits)[0] for loss in (got, expected)))
        first, second, scores = boxes(400, dtype), boxes(20, dtype), torch.rand(400, dtype=dtype)
        classes = torch.randint(0, 5, (400,))
        close(ops.box_iou(first, second), reference.box_iou(first, second))
        assert torch.equal(ops.match_anchors(first, second), reference.match_anchors(first, second))
        kept = reference.nms(first, scores, 0.5)
        assert torch.equal(ops.nms(first, scores, 0.5), kept) and 0 < len(kept) < 400
        padded, count = ops.nms_padded(first, scores, 0.5, 500)
        assert torch.equal(padded[: int(count)], kept) and int(count) == len(kept)
        expected = reference.batched_nms(first, scores, classes, 0.3)
        assert torch.equal(ops.batched_nms(first, scores, classes, 0.3), expected)
        for method in ("linear", "gaussian"):
            keep, decayed = ops.soft_nms(first, scores, 0.3, method, idxs=classes)
            expected, expected_scores = reference.soft_nms(first, scores, 0.3, method, idxs=classes)
            assert torch.equal(keep, expected)
            close(decayed, expected_scores)
        other = boxes(400, dtype)
        deltas = ops.encode_boxes(other, first)
        close(deltas, reference.encode_boxes(other, first))
        close(ops.decode_boxes(deltas, first), reference.decode_boxes(deltas, first))
        for kind in ("generalized", "distance", "complete"):
            close(*(getattr(module, f"{kind}_box_iou")(first, second) for module in (ops, reference)))
            close(*(getattr(module, f"{kind}_box_iou_loss")(first, other, "sum") for module in (ops, reference)))
        maps = [torch.randn(2, 3 * 5, 8, 6, dtype=dtype) - 2], [torch.randn(2, 3 * 4, 8, 6, dtype=dtype) * 0.2]
        arguments = (
            *maps,
            first[:144],
            [second[:4], second[:0]],
            [torch.tensor([0, 4, 1, 2]), torch.tensor([]).long()],
        )
        for got, expected in zip(ops.retinanet_loss(*arguments), reference.retinanet_loss(*arguments), strict=True):
            close(got, expected)
        sizes = [(300, 400), (280, 390)]
        found, expected = (module.postprocess(*maps, first[:144], sizes) for module in (ops, reference))
        for one, two in zip(found, expected, strict=True):
            close(one, two)
    compiled = torch.compile(ops.nms, backend="eager", fullgraph=True)
    assert torch.equal(compiled(first, scores, 0.5), kept)
    print("17 operators agree with their references")


if __name__ == "__main__":
    main()
