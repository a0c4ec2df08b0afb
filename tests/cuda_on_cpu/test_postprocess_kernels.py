"""Post-processing on the emulated device, against `retina_ops.reference`."""

from __future__ import annotations

import pytest
import torch
from inputs.heads import channels_last, head_outputs

from .device import Device
from .inputs import DTYPES, HALF
from .rooms.postprocess import check

SIZES = [(70, 90), (60, 96)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_trained(gpu: Device, dtype: torch.dtype) -> None:
    """Candidates fit at once; both orders in memory, every alignment of a slab, dtypes of deltas and anchors."""
    logits, deltas, anchors = head_outputs(2, 5, dtype=dtype)
    for offset in (0, 1):
        assert check(gpu, (logits, deltas, anchors, SIZES), offset=offset).min() > 20
    check(
        gpu,
        (channels_last(logits), channels_last(deltas), anchors, SIZES),
        offset=3,
        topk_candidates=7,
        detections_per_img=15,
    )
    check(gpu, (channels_last(logits), deltas, anchors.double(), SIZES), bbox_reg_weights=(10.0, 10.0, 5.0, 5.0))
    if dtype in HALF:
        check(gpu, (logits, [level.float() for level in deltas], anchors, SIZES))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16), ids=str)
def test_radix_selection(gpu: Device, dtype: torch.dtype) -> None:
    """More candidates than fit: digits of the score, and where scores are equal, of the place; several strips."""
    for kind in ("dense", "ties", "constant"):
        logits, deltas, anchors = head_outputs(2, 11, sizes=((33, 29), (3, 2)), kind=kind, dtype=dtype)
        for topk, layout in ((1000, list), (100, channels_last)):
            check(gpu, (layout(logits), deltas, anchors, SIZES), topk_candidates=topk, score_thresh=0.01)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_large_topk(gpu: Device, dtype: torch.dtype) -> None:
    """Sorted in global memory; a block collects more than it can stage; scores of any value pass."""
    logits, deltas, anchors = head_outputs(1, 3, sizes=((20, 31), (2, 2)), kind="dense", dtype=dtype)
    for topk, threshold in ((5000, 0.3), (2500, -1.0), (1100, 0.6)):
        check(gpu, (logits, deltas, anchors, SIZES[:1]), topk_candidates=topk, score_thresh=threshold, nms_thresh=0.2)


def test_nothing_found(gpu: Device) -> None:
    logits, deltas, anchors = head_outputs(2, 3)
    arguments = (logits, deltas, anchors, SIZES)
    nan = float("nan")
    options: list[dict[str, float]] = [{"score_thresh": 1.0}, {"score_thresh": nan}, {"topk_candidates": 0}]
    for option in (*options, {"detections_per_img": 0}):
        assert check(gpu, arguments, **option).sum() == 0
    for sizes in (((0, 4), (3, 2)), ((0, 0), (0, 0))):
        check(gpu, (*head_outputs(2, 3, sizes=sizes), SIZES))


def test_all_detections_of_one_class(gpu: Device) -> None:
    """Many tiles, in which most candidates are suppressed; every one is asked for."""
    logits, deltas, anchors = head_outputs(2, 1, sizes=((16, 16), (8, 8)), kind="dense")
    for threshold in (0.0, 0.3, 0.9):
        check(gpu, (logits, deltas, anchors, SIZES), nms_thresh=threshold, detections_per_img=2000)
