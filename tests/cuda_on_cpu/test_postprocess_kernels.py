"""Post-processing on the emulated device, against `retina_ops.reference`."""

from __future__ import annotations

import pytest
import torch
from inputs.heads import channels_last, head_outputs
from torch import Tensor

from retina_ops import reference

from . import operators as emulated
from .build import build
from .device import Device
from .inputs import DTYPES, HALF

SIZES = [(70, 90), (60, 96)]
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


def same(got: Outputs, expected: Outputs) -> None:
    boxes, scores, labels, counts = got
    assert torch.equal(counts, expected[3]) and torch.equal(labels, expected[2])
    wide = scores.dtype == torch.float64
    torch.testing.assert_close(scores, expected[1], rtol=1e-14 if wide else 0, atol=0)
    torch.testing.assert_close(boxes, expected[0], rtol=1e-5, atol=1e-3)


def check(gpu: Device, arguments: tuple[object, ...], offset: int = 0, **options: float) -> Tensor:
    got = emulated.postprocess(gpu, *arguments, offset=offset, **options)  # type: ignore[arg-type]
    expected = reference.postprocess(*arguments, **options)  # type: ignore[arg-type]
    same(got, expected)
    return got[3]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_trained(gpu: Device, dtype: torch.dtype) -> None:
    """Candidates fit at once; both orders in memory, every alignment of a slab, dtypes of deltas and anchors."""
    logits, deltas, anchors = head_outputs(2, 5, dtype=dtype)
    for offset in (0, 1):
        assert check(gpu, (logits, deltas, anchors, SIZES), offset).min() > 20
    check(gpu, (channels_last(logits), channels_last(deltas), anchors, SIZES), 3, topk=7, detections_per_image=15)
    check(gpu, (channels_last(logits), deltas, anchors.double(), SIZES), box_weights=(10.0, 10.0, 5.0, 5.0))
    if dtype in HALF:
        check(gpu, (logits, [level.float() for level in deltas], anchors, SIZES))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16), ids=str)
def test_radix_selection(gpu: Device, dtype: torch.dtype) -> None:
    """More candidates than fit: digits of the score, and where scores are equal, of the place; several strips."""
    for kind in ("dense", "ties", "constant"):
        logits, deltas, anchors = head_outputs(2, 11, sizes=((33, 29), (3, 2)), kind=kind, dtype=dtype)
        for topk, layout in ((1000, list), (100, channels_last)):
            check(gpu, (layout(logits), deltas, anchors, SIZES), topk=topk, score_threshold=0.01)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_large_topk(gpu: Device, dtype: torch.dtype) -> None:
    """Sorted in global memory; a block collects more than it can stage; scores of any value pass."""
    logits, deltas, anchors = head_outputs(1, 3, sizes=((20, 31), (2, 2)), kind="dense", dtype=dtype)
    for topk, threshold in ((5000, 0.3), (2500, -1.0), (1100, 0.6)):
        check(gpu, (logits, deltas, anchors, SIZES[:1]), topk=topk, score_threshold=threshold, nms_threshold=0.2)


def test_nothing_found(gpu: Device) -> None:
    logits, deltas, anchors = head_outputs(2, 3)
    arguments = (logits, deltas, anchors, SIZES)
    nan = float("nan")
    options: list[dict[str, float]] = [{"score_threshold": 1.0}, {"score_threshold": nan}, {"topk": 0}]
    for option in (*options, {"detections_per_image": 0}):
        assert check(gpu, arguments, **option).sum() == 0
    for sizes in (((0, 4), (3, 2)), ((0, 0), (0, 0))):
        check(gpu, (*head_outputs(2, 3, sizes=sizes), SIZES))


def test_all_detections_of_one_class(gpu: Device) -> None:
    """Many tiles, in which most candidates are suppressed; every one is asked for."""
    logits, deltas, anchors = head_outputs(2, 1, sizes=((16, 16), (8, 8)), kind="dense")
    for threshold in (0.0, 0.3, 0.9):
        check(gpu, (logits, deltas, anchors, SIZES), nms_threshold=threshold, detections_per_image=2000)


def test_large_indices(gpu: Device) -> None:
    """The first image lies past 2^31 of every array."""
    for dtype in (torch.float32, torch.bfloat16):
        maps = head_outputs(2, 11, sizes=((20, 21), (3, 2)), kind="dense", dtype=dtype)
        near, far = (emulated.postprocess(gpu, *maps, SIZES, first=first) for first in (0, 2**31 // 66 + 1))
        for left, right in zip(near, far, strict=True):
            assert torch.equal(left, right)


def test_random_schedules_change_nothing(schedule: int) -> None:
    """Candidates are collected in any order, the last block is any, and the results are the same."""
    gpu = Device(build("races"), "random", schedule)
    for kind in ("trained", "ties"):
        maps = head_outputs(1, 11, sizes=((22, 21), (3, 2)), kind=kind)
        check(gpu, (*maps, SIZES[:1]), topk=100)
