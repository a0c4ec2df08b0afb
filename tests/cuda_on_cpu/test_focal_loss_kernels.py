"""The focal loss kernels on the emulated device, against `retina_ops.reference` in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from .arguments import arithmetic
from .device import Device
from .inputs import DTYPES, GAMMAS, HALF, close, focal_expected, focal_inputs
from .rooms.focal_loss import count_labels, focal_loss, focal_loss_reduced, scale_gradient

# Rows x classes: every residue of a pack of 16 bytes, one element, one and several blocks.
SHAPES = [(1, 1), (1, 2), (1, 3), (5, 3), (3, 16), (7, 17), (31, 33), (70, 80)]


ELEMENTS = [
    (order, dtype, kind)
    for order, dtype, kind in itertools.product((0, 1, 2), DTYPES, ("labels", "soft", "soft float32"))
    if (order < 2 or dtype not in HALF) and (kind != "soft float32" or dtype in HALF)
]


@pytest.mark.parametrize(("order", "dtype", "kind"), ELEMENTS, ids=str)
def test_focal_loss_elements(gpu: Device, order: int, dtype: torch.dtype, kind: str) -> None:
    for number, (rows, classes) in enumerate(SHAPES):
        logits, targets = focal_inputs(rows, classes, dtype, kind)
        gamma = GAMMAS[number % len(GAMMAS)] if order < 2 else (2.0, 3.0)[number % 2]
        alpha = (0.25, -1.0, torch.rand(classes, dtype=torch.float64))[number % 3]
        alpha = alpha.to(arithmetic(dtype)) if isinstance(alpha, Tensor) else alpha
        upstream = torch.rand(logits.shape, dtype=torch.float64).to(dtype) if number % 2 else 1.5
        # At an address that does not allow 16-byte accesses, elements are read one by one.
        offset = 1 if number % 4 == 3 else 0
        got = focal_loss(gpu, logits, targets, alpha, gamma, order=order, upstream=upstream, offset=offset)
        expected = focal_expected(logits, targets, alpha, gamma, order)
        if order:
            expected = expected * (upstream.double() if isinstance(upstream, Tensor) else upstream)
        close(got, expected, dtype)


@pytest.mark.parametrize("kind", ["labels", "soft"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_focal_loss_reduced(gpu: Device, gamma: float, dtype: torch.dtype, kind: str) -> None:
    for mean, (rows, classes) in itertools.product((False, True), [(1, 3), (37, 41), (600, 16)]):
        logits, targets = focal_inputs(rows, classes, dtype, kind)
        loss, grad = focal_loss_reduced(gpu, logits, targets, 0.25, gamma, mean=mean)
        assert grad is not None
        count = int((targets != -1).sum()) * classes if kind == "labels" else logits.numel()
        divisor = count if mean else 1
        elements = focal_expected(logits, targets, 0.25, gamma, 0)
        expected = elements.sum() / divisor if count else torch.tensor(float("nan") if mean else 0.0)
        torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-4, atol=1e-9, equal_nan=True)
        close(grad, focal_expected(logits, targets, 0.25, gamma, 1) / max(1, divisor), dtype)
        alone, none = focal_loss_reduced(gpu, logits, targets, 0.25, gamma, mean=mean, with_grad=False)
        assert none is None and torch.equal(alone.nan_to_num(), loss.nan_to_num())


def test_focal_loss_of_nothing(gpu: Device) -> None:
    loss, _ = focal_loss_reduced(gpu, torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    assert loss.item() == 0
    loss, _ = focal_loss_reduced(gpu, torch.randn(4, 3), torch.full((4,), -1), mean=True)
    assert loss.isnan()


def test_focal_loss_sum_does_not_depend_on_the_schedule(gpu: Device) -> None:
    """The last block to finish adds the others' sums in their order, whichever it is."""
    logits, labels = focal_inputs(3000, 8, torch.float32, "labels")
    first = focal_loss_reduced(gpu, logits, labels)
    for order, seed in (("reverse", 1), ("random", 1), ("random", 2)):
        again = focal_loss_reduced(Device(gpu.program, order, seed), logits, labels)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_focal_loss_bad_labels_are_nan(gpu: Device) -> None:
    logits = torch.randn(4, 5)
    got = focal_loss(gpu, logits, torch.tensor([0, 6, -3, 5]))
    assert got[[1, 2]].isnan().all() and got[[0, 3]].isfinite().all()
    ignored = torch.tensor([[float("nan")] * 5, [1.0] * 5])
    got = focal_loss(gpu, ignored, torch.tensor([-7, 0]), ignore_index=-7)
    assert (got[0] == 0).all() and got[1].isfinite().all()


def test_count_labels(gpu: Device) -> None:
    labels = torch.randint(-2, 8, (1000,))
    counts = count_labels(gpu, labels, 5)
    bad = int(((labels < -1) | (labels > 5)).sum())
    assert counts.tolist() == [int((labels != -1).sum()) * 5, bad]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scale_gradient(gpu: Device, dtype: torch.dtype) -> None:
    for count, scale in ((1, 2.0), (17, -0.5), (5000, 3.0), (300, 1.0)):
        grad = torch.randn(count, dtype=torch.float64).to(dtype)
        assert torch.equal(scale_gradient(gpu, grad, scale, offset=1 if count == 17 else 0), grad * scale)
