"""Sigmoid focal loss, forward and backward of the sum: ours, the plain PyTorch reference, torchvision, compiled."""

from __future__ import annotations

import pytest
import torch
import torchvision
from harness import assert_close, measure
from torch import Tensor

from retina_ops import reference, sigmoid_focal_loss

# Anchors of a 600 x 600 image over P3-P7, and of 800 x 1066; COCO's classes.
SIZES = {"67995x80": (67_995, 80)}
FULL_SIZES = {**SIZES, "512x80": (512, 80), "4096x80": (4_096, 80), "200880x80": (200_880, 80)}
ON_A_GPU = {"8x200880x91": (8, 200_880, 91)}
OPERATIONS = 45  # an element: exp, log1p, a division, and the formula
DTYPES = (torch.float32, torch.bfloat16)


def torchvision_dense(logits: Tensor, dense: Tensor) -> Tensor:
    return torchvision.ops.sigmoid_focal_loss(logits, dense, reduction="sum")


def ours(logits: Tensor, targets: Tensor) -> Tensor:
    return sigmoid_focal_loss(logits, targets, reduction="sum")


def reference_sum(logits: Tensor, targets: Tensor) -> Tensor:
    return reference.sigmoid_focal_loss(logits, targets, reduction="sum")


ROWS = {
    "retina_ops": (ours, "index"),
    "retina_ops_dense": (ours, "dense"),
    "reference": (reference_sum, "index"),
    "reference_compiled": (torch.compile(reference_sum), "index"),
    "torchvision": (torchvision_dense, "dense"),
    "torchvision_compiled": (torch.compile(torchvision_dense), "dense"),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("size", [*FULL_SIZES, *ON_A_GPU])
def bench_forward_backward(benchmark, device: str, size: str, dtype: torch.dtype, row: str, full: bool) -> None:
    if size in FULL_SIZES and size not in SIZES and not full:
        pytest.skip("--full")
    if size in ON_A_GPU and device != "cuda":
        pytest.skip("on a GPU")
    *anchors, classes = {**FULL_SIZES, **ON_A_GPU}[size]
    logits = (torch.randn(*anchors, classes, device=device) - 3).to(dtype).requires_grad_()
    labels = torch.where(
        torch.rand(anchors, device=device) < 0.01, torch.randint(classes, anchors, device=device), classes
    )
    labels[torch.rand(anchors, device=device) < 0.05] = -1 if ROWS[row][1] == "index" else classes
    dense = torch.nn.functional.one_hot(labels.clamp(min=0), classes + 1)[..., :classes].to(dtype)
    function, kind = ROWS[row]
    targets = labels if kind == "index" else dense

    def forward_backward() -> Tensor:
        logits.grad = None
        loss = function(logits, targets)
        loss.backward()
        return loss

    def verify() -> None:
        exact = logits.detach().double().requires_grad_()
        expected = reference_sum(exact, targets if kind == "index" else dense.double())
        expected.backward()
        # Wide enough for plain PyTorch in bfloat16, whose small gradients have no correct digit.
        relative, absolute = (0.05, 1e-3) if dtype == torch.bfloat16 else (1e-4, 1e-6)
        assert_close(forward_backward(), expected, relative)
        assert_close(logits.grad, exact.grad, relative, absolute)

    benchmark.group = f"focal loss forward + backward, sum, {size} {dtype}, {device}"
    bytes_of_logits = logits.numel() * logits.element_size()
    measure(
        benchmark,
        device,
        forward_backward,
        operator=f"focal loss, {str(dtype).removeprefix('torch.')}",
        size=logits.numel(),
        operations=OPERATIONS * logits.numel(),
        moved=2 * bytes_of_logits + (labels.numel() * 8 if kind == "index" else bytes_of_logits),
        tensor_bytes=bytes_of_logits,
        verify=verify,
    )
