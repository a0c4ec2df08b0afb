"""The IoU losses' kernels on the emulated device, against `retina_ops.reference`."""

from __future__ import annotations

import pytest
import torch
from inputs.boxes import grid_pairs, random_boxes
from torch import Tensor

from retina_ops import reference

from . import operators as emulated
from .build import build
from .device import Device
from .inputs import DTYPES, HALF
from .operators import IOU_LOSSES

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
    for mine, right in zip(got, exact, strict=True):
        if mine is not None:
            torch.testing.assert_close(mine.double(), right, rtol=TOLERANCE[mine.dtype], atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("name", IOU_LOSSES)
@pytest.mark.parametrize(("first", "second"), MIXED, ids=str)
def test_elementwise(gpu: Device, first: torch.dtype, second: torch.dtype, name: str) -> None:
    for count, offset in ((1, 0), (256, 0), (257, 1)):
        a, b = (t.to(dtype) for t, dtype in zip(pairs_of(count), (first, second), strict=True))
        start = offset * a.element_size()
        upstream = torch.rand(count).to(torch.float64 if first == torch.float64 else torch.float32)
        exact = expected(name, a, b, upstream.double())
        compare(emulated.iou_loss(gpu, name, a, b, offset=start), exact[:1])
        compare(emulated.iou_loss(gpu, name, a, b, upstream=upstream, offset=start), exact[1:])
        one_alone = emulated.iou_loss(gpu, name, a, b, upstream=0.5, wanted=(False, True))
        assert one_alone[0] is None
        compare(one_alone, expected(name, a, b, 0.5)[1:])


@pytest.mark.parametrize("name", IOU_LOSSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reduced(gpu: Device, dtype: torch.dtype, name: str) -> None:
    for count, wanted in ((0, (False, False)), (1, (True, True)), (700, (True, False)), (513, (False, False))):
        a, b = (t.to(dtype) for t in pairs_of(count))
        exact = expected(name, a, b, 0.25)
        compare(
            emulated.iou_loss_reduced(gpu, name, a, b, scale=0.25, wanted=wanted), [exact[0].sum() * 0.25, *exact[1:]]
        )


@pytest.mark.parametrize("name", IOU_LOSSES)
def test_every_way_to_lie(gpu: Device, name: str) -> None:
    """Equal, touching, flat, apart: the fused kernel arithmetic against the reference's autograd."""
    a, b = grid_pairs()
    exact = expected(name, a, b, 1.0)
    known = exact[0].isfinite()
    got = [emulated.iou_loss(gpu, name, a, b)[0], *emulated.iou_loss(gpu, name, a, b, upstream=1.0)]
    for mine, right in zip(got, exact, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine[known], right[known], rtol=1e-12, atol=1e-12)


def test_large_indices(gpu: Device) -> None:
    a, b = pairs_of(300)
    for name in IOU_LOSSES[:1]:
        for here, far in zip(
            (*emulated.iou_loss(gpu, name, a, b), *emulated.iou_loss_reduced(gpu, name, a, b, wanted=(True, True))),
            (
                *emulated.iou_loss(gpu, name, a, b, first=2**31 + 4),
                *emulated.iou_loss_reduced(gpu, name, a, b, wanted=(True, True), first=2**31 + 4),
            ),
            strict=True,
        ):
            assert here is not None and far is not None and torch.equal(here, far)


def test_more_blocks_than_the_grid() -> None:
    """The reducing kernel goes round: more pairs than 1024 blocks have threads; results alone."""
    gpu = Device(build("coverage", parts=["iou_losses"]))
    a, b = pairs_of(1024 * 256 + 300)
    exact = reference.generalized_box_iou_loss(a.double(), b.double()).sum()
    torch.testing.assert_close(
        emulated.iou_loss_reduced(gpu, IOU_LOSSES[0], a, b)[0].double(), exact, rtol=1e-5, atol=0
    )


def test_random_schedules(schedule: int) -> None:
    gpu = Device(build("races"), "random", schedule)
    a, b = pairs_of(700)
    here = emulated.iou_loss_reduced(Device(gpu.program), IOU_LOSSES[1], a, b)
    for mine, other in zip(emulated.iou_loss_reduced(gpu, IOU_LOSSES[1], a, b), here, strict=True):
        assert (mine is None) == (other is None) and (mine is None or torch.equal(mine, other))
