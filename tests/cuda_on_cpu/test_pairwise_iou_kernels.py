"""The kernels of the pairwise kinds of IoU and of their gradient on the emulated device, against the reference."""

from __future__ import annotations

import pytest
import torch
from inputs.boxes import grid_pairs, random_boxes
from torch import Tensor

from retina_ops import reference

from .device import Device
from .inputs import DTYPES
from .rooms.box_iou import KINDS, box_iou, box_iou_backward

TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def batch_of(batch: int, count: int) -> Tensor:
    return torch.stack([random_boxes(count, low=24, width=300, height=300) for _ in range(batch)])


def expected(name: str, a: Tensor, b: Tensor, grad: Tensor) -> list[Tensor]:
    exact = [t.to(torch.float64, copy=True).requires_grad_() for t in (a, b)]
    similarity = getattr(reference, name)(*exact)
    return [similarity.detach(), *torch.autograd.grad(similarity, exact, grad.double())]


def compare(got: tuple[Tensor | None, ...], exact: list[Tensor]) -> None:
    for found, right in zip(got, exact, strict=True):
        if found is not None:
            scale = right.abs().max().item()
            torch.testing.assert_close(found.double(), right, rtol=TOLERANCE[found.dtype], atol=1e-5 * scale + 1e-6)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward_and_backward(gpu: Device, dtype: torch.dtype, name: str) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for batch, n, m, offset, wanted in (
        (1, 1, 1, 0, (True, True)),
        (2, 33, 8, 0, (True, False)),
        (1, 65, 130, 4, (False, True)),
        (2, 64, 128, 0, (True, True)),
        (1, 129, 257, 0, (True, True)),
        (2, 650, 3, 0, (True, True)),  # more tiles than lanes that add them
        (1, 2, 1300, 0, (True, True)),
    ):
        a, b = batch_of(batch, n).to(dtype), batch_of(batch, m).to(dtype)
        grad = torch.randn(batch, n, m, dtype=wide)
        exact = expected(name, a, b, grad)
        compare((box_iou(gpu, a, b, name=name, offset=offset),), exact[:1])
        compare(box_iou_backward(gpu, grad, a, b, name=name, wanted=wanted, offset=offset), exact[1:])


@pytest.mark.parametrize("name", KINDS)
def test_every_relative_position(gpu: Device, name: str) -> None:
    """Equal, touching, flat, apart. The gradient is finite where no value that is NaN has an upstream gradient."""
    pairs = grid_pairs()
    count = int(len(pairs[0]) ** 0.5)
    boxes = pairs[1][:count][None]
    value = getattr(reference, name)(boxes, boxes)
    grad = value.isfinite().double()
    a, b = (each[None].clone().requires_grad_() for each in (boxes[0], boxes[0]))
    exact = torch.autograd.grad(getattr(reference, name)(a, b)[value.isfinite()].sum(), (a, b))
    # The reference's own gradient is NaN where a box takes part in a pair without a value.
    for found, right in zip(box_iou_backward(gpu, grad, boxes, boxes, name=name), exact, strict=True):
        assert found is not None and found.isfinite().all()
        known = right.isfinite()
        torch.testing.assert_close(found[known], right[known], rtol=1e-11, atol=1e-11)


def test_no_rows_or_no_columns(gpu: Device) -> None:
    boxes, none = batch_of(1, 5), torch.empty(1, 0, 4)
    assert (box_iou_backward(gpu, torch.empty(1, 5, 0), boxes, none)[0] == 0).all()
    assert (box_iou_backward(gpu, torch.empty(1, 0, 5), none, boxes)[1] == 0).all()
