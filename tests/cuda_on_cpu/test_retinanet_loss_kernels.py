"""The kernels of the RetinaNet loss on the emulated device, against `retina_ops.reference` in float64."""

from __future__ import annotations

import pytest
import torch
from inputs.heads import random_head
from torch import Tensor

from .build import build
from .device import Device
from .fused_loss import arguments_of, expected_of
from .inputs import DTYPES, close
from .rooms.retinanet_loss import retinanet_loss

# A cell, a level narrower than a pack, planes that begin at 16 bytes and such that do not; two images, one empty.
SIZES = [(1, 1), (2, 3), (8, 8), (5, 7)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["planar", "channels_last"])
def test_matches_reference(gpu: Device, dtype: torch.dtype, layout: str) -> None:
    for classes, offset, gamma, box_loss in ((5, 0, 2.0, "l1"), (35, 1, 0.0, "smooth_l1"), (8, 0, 1.3, "giou")):
        head = random_head(SIZES, [6, 0], classes=classes, layout=layout, dtype=dtype)
        arguments = arguments_of(head)
        options = {"gamma": gamma, "box_loss": box_loss, "smooth_l1_beta": 0.2}
        losses, gradients = expected_of(head, *arguments[-2:], **options)
        got = retinanet_loss(gpu, *arguments, offset=offset, **options)
        for found, right in zip(got[:2], losses, strict=True):
            close(found, right, torch.float64 if dtype == torch.float64 else torch.float32)
        for found, right in zip([*got[2], *got[3]], gradients, strict=True):
            assert found.shape == right.shape
            near_enough(found, right, dtype)
        alone = retinanet_loss(gpu, *arguments, offset=offset, with_grad=False, **options)
        assert torch.equal(alone[0], got[0]) and torch.equal(alone[1], got[1])


def near_enough(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Each gradient relative to the largest: a decoded box's is a difference of large terms."""
    relative = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert (got.double() - expected).abs().max() <= relative * max(float(expected.abs().max()), 1e-6)


@pytest.mark.parametrize("box_loss", ["diou", "ciou"])
def test_backward_with_upstream(gpu: Device, box_loss: str) -> None:
    head = random_head(SIZES, [3, 5], dtype=torch.float64)
    arguments = arguments_of(head)
    options = {"alpha": -1.0, "box_loss": box_loss, "bbox_reg_weights": (10.0, 10.0, 5.0, 5.0)}
    _, gradients = expected_of(head, *arguments[-2:], upstream=(1.5, -0.7), **options)
    got = retinanet_loss(gpu, *arguments, upstream=(1.5, -0.7), **options)
    for found, right in zip([*got[2], *got[3]], gradients, strict=True):
        near_enough(found, right, torch.float64)
    assert got[0].isnan() and got[1].isnan()


def test_ignored_and_bad(gpu: Device) -> None:
    """NaN logits of ignored anchors give nothing; a label or match out of range gives NaN and reads nothing."""
    for layout in ("planar", "channels_last"):
        head = random_head([(4, 4)], [4], layout=layout)
        arguments = list(arguments_of(head))
        logits, labels, matches = arguments[0][0], arguments[4], arguments[5]
        matches[0, 7] = -2
        row = logits[0, 7 % 3, :, 7 // 3] if layout == "planar" else logits[0, 7]
        row.fill_(torch.nan)
        got = retinanet_loss(gpu, *arguments)
        assert got[0].isfinite() and all(g.isfinite().all() for g in got[2])
        labels[0, :] = 7
        assert retinanet_loss(gpu, *arguments)[0].isnan()
        labels[0, :] = 0
        matches[0, 3] = 2**40
        got = retinanet_loss(gpu, *arguments)
        assert got[0].isnan()


def test_more_items_than_threads() -> None:
    """Blocks go round more than once, and every level has blocks; without sanitizers."""
    gpu = Device(build("coverage", rooms=["retinanet_loss"]))
    for layout in ("planar", "channels_last"):
        head = random_head([(96, 128), (2, 2)], [5, 9], classes=90, layout=layout)
        arguments = arguments_of(head)
        losses, gradients = expected_of(head, *arguments[-2:])
        got = retinanet_loss(gpu, *arguments)
        for found, right in zip(got[:2], losses, strict=True):
            close(found, right, torch.float32)
        for found, right in zip([*got[2], *got[3]], gradients, strict=True):
            near_enough(found, right, torch.float32)
