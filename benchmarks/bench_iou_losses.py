"""The IoU losses, and the pairwise kinds of IoU: ours, the plain PyTorch reference, the same compiled, torchvision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from cases import random_boxes
from harness import assert_close, measure
from torch import Tensor

import retina_ops
from retina_ops import reference

ROWS = ("retina_ops", "reference", "reference_compiled", "torchvision")
LOSSES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")
PAIRWISE = ("generalized_box_iou", "distance_box_iou", "complete_box_iou")
# Operations a pair that our kernels compute, a division and a comparison counted as one.
LOSS_OPERATIONS = {"generalized_box_iou_loss": 35, "distance_box_iou_loss": 40, "complete_box_iou_loss": 90}
BOTH_OPERATIONS = {"generalized_box_iou_loss": 85, "distance_box_iou_loss": 100, "complete_box_iou_loss": 165}
PAIR_OPERATIONS = {"generalized_box_iou": 26, "distance_box_iou": 36, "complete_box_iou": 42}
PAIR_GRADIENT_OPERATIONS = {"generalized_box_iou": 105, "distance_box_iou": 115, "complete_box_iou": 130}


def function_of(row: str, name: str) -> Callable[..., Tensor]:
    if row == "torchvision":
        return getattr(torchvision.ops, name)
    if row == "reference_compiled":
        return torch.compile(getattr(reference, name))
    return getattr(retina_ops if row == "retina_ops" else reference, name)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("direction", ["forward", "sum + gradient"])
# The foreground of a batch of 16 images, and all anchors of one (800 x 1344).
@pytest.mark.parametrize("count", [4_000, 200_000])
def bench_iou_loss(benchmark, device: str, count: int, direction: str, name: str, row: str) -> None:
    target = random_boxes(count, device)
    boxes = target + torch.randn_like(target) * 4
    with_gradient = direction != "forward"
    boxes.requires_grad_(with_gradient)
    function = function_of(row, name)

    def call() -> Tensor:
        if not with_gradient:
            return function(boxes, target)
        boxes.grad = None
        loss = function(boxes, target, reduction="sum")
        loss.backward()
        return loss

    def verify() -> None:
        exact = boxes.detach().double().requires_grad_()
        expected = getattr(reference, name)(exact, target.double(), reduction="sum" if with_gradient else "none")
        assert_close(call(), expected.detach(), 1e-4, 1e-5)
        if with_gradient:
            expected.backward()
            assert_close(boxes.grad, exact.grad, 1e-3, 1e-5)

    size = count * 16
    benchmark.group = f"{name} {direction}, {count} pairs, float32, {device}"
    measure(
        benchmark,
        device,
        call,
        operator=f"{name}, {direction}",
        size=count,
        operations=count * (BOTH_OPERATIONS if with_gradient else LOSS_OPERATIONS)[name],
        moved=3 * size if with_gradient else 2 * size + 4 * count,
        tensor_bytes=size,
        verify=verify,
    )


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("direction", ["forward", "forward + backward"])
def bench_pairwise(benchmark, device: str, direction: str, name: str, row: str) -> None:
    first, second = random_boxes(100, device), random_boxes(20_000, device)
    with_gradient = direction != "forward"
    second.requires_grad_(with_gradient)
    upstream = torch.randn(100, 20_000, device=device)
    function = function_of(row, name)

    def call() -> Tensor:
        result = function(first, second)
        if with_gradient:
            second.grad = None
            result.backward(upstream)
        return result

    def verify() -> None:
        exact = second.detach().double().requires_grad_()
        expected = getattr(reference, name)(first.double(), exact)
        assert_close(call(), expected.detach(), 1e-4, 1e-5)
        if with_gradient:
            expected.backward(upstream.double())
            assert_close(second.grad, exact.grad, 1e-3, 1e-4)

    matrix = len(first) * len(second) * 4
    boxes = (first.numel() + second.numel()) * 4
    operations = PAIR_OPERATIONS[name] + (PAIR_GRADIENT_OPERATIONS[name] if with_gradient else 0)
    benchmark.group = f"{name} {direction}, 100 x 20000, float32, {device}"
    measure(
        benchmark,
        device,
        call,
        operator=f"{name}, {direction}",
        size=len(first) * len(second),
        operations=operations * len(first) * len(second),
        moved=2 * matrix + 3 * boxes if with_gradient else matrix + boxes,
        tensor_bytes=matrix,
        verify=verify,
    )
