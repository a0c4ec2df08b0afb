"""The IoU losses' kernels on the emulated device, against `retina_ops.reference`."""

from __future__ import annotations

import pytest
import torch
from inputs.boxes import grid_pairs, random_boxes
from torch import Tensor

from retina_ops import reference

from .build import build
from .device import Device
from .inputs import DTYPES, HALF
from .rooms.iou_losses import IOU_LOSSES, MAX_BLOCKS, iou_loss, iou_loss_reduced

MIXED = [(dtype, dtype) for dtype in DTYPES] + [(dtype, torch.float32) for dtype in HALF] + [HALF]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def pairs_of(count: int) -> tuple[Tensor, Tensor]:
    boxes = random_boxes(count, low=24)
    return boxes, boxes + torch.randn_like(boxes) * 4


def expected(name: str, a: Tensor, b: Tensor, upstream: Tensor | float) -> list[Tensor]:
    exact = [t.to(torch.float64, copy=True).requires_grad_() for t in (a, b)]
    loss = getattr(reference, name)(*exact)
    return [loss.detach(), *torch.autograd.grad((loss * upstream).sum(), exact)]


def compare(got: tuple[Tensor | None, ...], exact: list[Tensor]) -> None:
    for found, right in zip(got, exact, strict=True):
        if found is not None:
            torch.testing.assert_close(
                found.double(), right, rtol=TOLERANCE[found.dtype], atol=TOLERANCE[torch.float32]
            )


@pytest.mark.parametrize("name", IOU_LOSSES)
@pytest.mark.parametrize(("first", "second"), MIXED, ids=str)
def test_elementwise(gpu: Device, first: torch.dtype, second: torch.dtype, name: str) -> None:
    for count, offset in ((1, 0), (256, 0), (257, 1)):
        a, b = (t.to(dtype) for t, dtype in zip(pairs_of(count), (first, second), strict=True))
        upstream = torch.rand(count).to(torch.float64 if first == torch.float64 else torch.float32)
        exact = expected(name, a, b, upstream.double())
        compare(iou_loss(gpu, name, a, b, offset=offset), exact[:1])
        compare(iou_loss(gpu, name, a, b, upstream=upstream, offset=offset), exact[1:])
        one_alone = iou_loss(gpu, name, a, b, upstream=0.5, wanted=(False, True))
        assert one_alone[0] is None
        compare(one_alone, expected(name, a, b, 0.5)[1:])


@pytest.mark.parametrize("name", IOU_LOSSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reduced(gpu: Device, dtype: torch.dtype, name: str) -> None:
    for count, wanted in ((0, (False, False)), (1, (True, True)), (700, (True, False)), (513, (False, False))):
        a, b = (t.to(dtype) for t in pairs_of(count))
        exact = expected(name, a, b, 0.25)
        compare(iou_loss_reduced(gpu, name, a, b, scale=0.25, wanted=wanted), [exact[0].sum() * 0.25, *exact[1:]])


@pytest.mark.parametrize("name", IOU_LOSSES)
def test_every_relative_position(gpu: Device, name: str) -> None:
    """Equal, touching, flat, apart: the fused kernel arithmetic against the reference's autograd."""
    a, b = grid_pairs()
    exact = expected(name, a, b, 1.0)
    known = exact[0].isfinite()
    got = [iou_loss(gpu, name, a, b)[0], *iou_loss(gpu, name, a, b, upstream=1.0)]
    for found, right in zip(got, exact, strict=True):
        assert found is not None
        torch.testing.assert_close(found[known], right[known], rtol=1e-12, atol=1e-12)


def test_more_blocks_than_the_grid() -> None:
    """More pairs than the blocks of the reducing kernel have threads; without sanitizers."""
    gpu = Device(build("coverage", rooms=["iou_losses"]))
    a, b = pairs_of(MAX_BLOCKS * 256 + 300)
    exact = reference.generalized_box_iou_loss(a.double(), b.double()).sum()
    loss, _, _ = iou_loss_reduced(gpu, IOU_LOSSES[0], a, b, most_blocks=MAX_BLOCKS + 1)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
