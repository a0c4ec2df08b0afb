"""Box IoU and box coding: ours, the plain PyTorch reference, the same compiled, torchvision."""

from __future__ import annotations

import pytest
import torch
import torchvision
from cases import DTYPES, image_anchors, random_boxes
from harness import assert_close, measure
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from retina_ops import box_iou, decode_boxes, encode_boxes, reference

CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))


def torchvision_encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    return CODER.encode_single(boxes, anchors)


def torchvision_decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    return CODER.decode_single(deltas, anchors)


IOU = {
    "retina_ops": box_iou,
    "reference": reference.box_iou,
    "reference_compiled": torch.compile(reference.box_iou),
    "torchvision": torchvision.ops.box_iou,
}
ENCODE = {
    "retina_ops": encode_boxes,
    "reference": reference.encode_boxes,
    "reference_compiled": torch.compile(reference.encode_boxes),
    "torchvision": torchvision_encode,
}
DECODE = {
    "retina_ops": decode_boxes,
    "reference": reference.decode_boxes,
    "reference_compiled": torch.compile(reference.decode_boxes),
    "torchvision": torchvision_decode,
}


@pytest.mark.parametrize("row", IOU)
def bench_box_iou(benchmark, device: str, row: str) -> None:
    first, second = random_boxes(100, device), random_boxes(20_000, device)

    def verify() -> None:
        assert_close(IOU[row](first, second), reference.box_iou(first.double(), second.double()), 1e-4, 1e-5)

    benchmark.group = f"box_iou, 100 x 20000, float32, {device}"
    matrix = len(first) * len(second) * 4
    moved = matrix + (first.numel() + second.numel()) * 4
    measure(
        benchmark,
        device,
        lambda: IOU[row](first, second),
        operator="box_iou",
        size=len(first) * len(second),
        operations=13 * len(first) * len(second),
        moved=moved,
        tensor_bytes=matrix,
        verify=verify,
    )


# Of the results against float64, by dtype: bfloat16 as plain PyTorch computes it is that far off.
ENCODED_WITHIN = {"float32": (1e-3, 1e-4), "float64": (1e-9, 1e-9), "bfloat16": (0.05, 0.3)}
DECODED_WITHIN = {"float32": (1e-4, 1e-2), "float64": (1e-9, 1e-9), "bfloat16": (0.05, 32)}


def operator_name(name: str, dtype: str) -> str:
    return name if dtype == "float32" else f"{name}, {dtype}"


@pytest.mark.parametrize("row", ENCODE)
@pytest.mark.parametrize("dtype", DTYPES)
def bench_encode(benchmark, device: str, dtype: str, row: str, full: bool) -> None:
    if dtype != "float32" and not full:
        pytest.skip("--full")
    anchors = image_anchors(800, 1344, device)
    boxes = (anchors + torch.rand_like(anchors) * 4).to(DTYPES[dtype])
    anchors = anchors.to(DTYPES[dtype])

    def verify() -> None:
        expected = reference.encode_boxes(boxes.double(), anchors.double())
        assert_close(ENCODE[row](boxes, anchors), expected, *ENCODED_WITHIN[dtype])

    size = anchors.numel() * anchors.element_size()
    benchmark.group = f"encode_boxes, {len(anchors)} boxes, {dtype}, {device}"
    measure(
        benchmark,
        device,
        lambda: ENCODE[row](boxes, anchors),
        operator=operator_name("encode_boxes", dtype),
        size=len(anchors),
        operations=80 * len(anchors),
        moved=3 * size,
        tensor_bytes=size,
        verify=verify,
    )


@pytest.mark.parametrize("row", DECODE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", ["forward", "forward + backward"])
def bench_decode(benchmark, device: str, direction: str, dtype: str, row: str, full: bool) -> None:
    if dtype != "float32" and not full:
        pytest.skip("--full")
    anchors = image_anchors(800, 1344, device).to(DTYPES[dtype])
    deltas = (torch.randn_like(anchors) * 0.2).requires_grad_(direction != "forward")
    ones = torch.ones_like(anchors)

    def call() -> Tensor:
        boxes = DECODE[row](deltas, anchors)
        if direction != "forward":
            deltas.grad = None
            boxes.backward(ones)
        return boxes

    def verify() -> None:
        exact = deltas.detach().double().requires_grad_()
        expected = reference.decode_boxes(exact, anchors.double())
        expected.backward(ones.double())
        assert_close(call(), expected, *DECODED_WITHIN[dtype])
        if direction != "forward":
            assert_close(deltas.grad, exact.grad, *DECODED_WITHIN[dtype])

    size = anchors.numel() * anchors.element_size()
    benchmark.group = f"decode_boxes {direction}, {len(anchors)} boxes, {dtype}, {device}"
    measure(
        benchmark,
        device,
        call,
        operator=operator_name(f"decode_boxes, {direction}", dtype),
        size=len(anchors),
        operations=(60 if direction == "forward" else 150) * len(anchors),
        moved=(3 if direction == "forward" else 7) * size,  # backward: gradient, deltas, anchors in; gradient out
        tensor_bytes=size,
        verify=verify,
    )
