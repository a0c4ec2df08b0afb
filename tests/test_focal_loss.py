"""sigmoid_focal_loss: its values against the float64 definition and torchvision."""

from __future__ import annotations

import pytest
import torch
import torchvision
from focal import DTYPES, GAMMAS, HALVES, SHAPES, TINY, dense, gradient, labels_for, tolerance

from retina_ops import reference, sigmoid_focal_loss


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_reference(device: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    logits = (torch.randn(shape, device=device) * 3).to(dtype)
    labels = labels_for(shape, device)
    for gamma in GAMMAS:
        loss = sigmoid_focal_loss(logits, labels, gamma=gamma)
        expected = reference.sigmoid_focal_loss(logits.double(), labels, gamma=gamma)
        assert loss.dtype == dtype and loss.shape == logits.shape
        torch.testing.assert_close(loss.double(), expected, rtol=tolerance(dtype), atol=6e-8)
        grad = gradient(sigmoid_focal_loss, logits, labels, gamma=gamma)
        expected = gradient(reference.sigmoid_focal_loss, logits.double(), labels, gamma=gamma)
        assert grad.dtype == dtype
        torch.testing.assert_close(grad.double(), expected, rtol=2 * tolerance(dtype), atol=6e-8)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("positive", [True, False])
def test_accuracy_over_all_logits(device: str, gamma: float, positive: bool) -> None:
    """Relative error where the true magnitude is at least 2^-126, absolute below it: DESIGN's contract."""
    logits = torch.cat(
        [torch.linspace(-110, 110, 100_001), torch.logspace(-30, 2, 20_001), -torch.logspace(-30, 2, 20_001)]
    )
    logits = logits.to(device)[:, None]
    labels = torch.full((len(logits),), 0 if positive else 1, device=device)
    limit = 4e-6 if gamma in (0, 0.5, 1, 1.5, 2, 3) else 1e-5
    # The definition in mpmath-like care: float64 with log p_t = -softplus, exact to 1e-13 over this range.
    z = (logits if positive else -logits).double()
    s, p, u = torch.nn.functional.softplus(-z), torch.sigmoid(z), torch.sigmoid(-z)
    s = torch.where(z > 30, torch.exp(-z), s)
    weight = 0.25 if positive else 0.75
    true_loss = weight * u**gamma * s
    true_grad = -weight * u**gamma * (gamma * p * s + u) * (1 if positive else -1)
    for got, true in (
        (sigmoid_focal_loss(logits, labels, gamma=gamma), true_loss),
        (gradient(sigmoid_focal_loss, logits, labels, gamma=gamma), true_grad),
    ):
        error = (got.double() - true).abs()
        large = true.abs() >= TINY
        assert large.sum() > 50_000
        assert (error[large] / true.abs()[large]).max() < limit
        assert error[~large].numel() == 0 or error[~large].max() < TINY


@pytest.mark.parametrize("gamma", GAMMAS)
def test_soft_labels_match_reference(device: str, gamma: float) -> None:
    logits = torch.linspace(-40, 40, 4001, device=device)[:, None].expand(-1, 7).contiguous()
    soft = torch.rand(4001, 7, device=device)
    soft[:, 0], soft[:, 1] = 0, 1
    for function in (sigmoid_focal_loss, lambda *a, **k: gradient(sigmoid_focal_loss, *a, **k)):
        got = function(logits, soft, gamma=gamma)
        expected = (
            reference.sigmoid_focal_loss(logits.double(), soft.double(), gamma=gamma)
            if function is sigmoid_focal_loss
            else gradient(reference.sigmoid_focal_loss, logits.double(), soft.double(), gamma=gamma)
        )
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("alpha", [0.25, -1, 0.0, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 2.0, 1.7])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_matches_torchvision(device: str, alpha: float, gamma: float, reduction: str) -> None:
    """Dense 0/1, soft, and class-index targets against torchvision's function in float64."""
    logits = torch.randn(33, 5, 7, device=device, dtype=torch.float64) * 4
    labels = torch.randint(0, 8, (33, 5), device=device)
    one_hot = dense(labels, 7)
    soft = torch.rand_like(logits)
    theirs = torchvision.ops.sigmoid_focal_loss
    for ours, target in ((labels, one_hot), (one_hot, one_hot), (soft, soft)):
        torch.testing.assert_close(
            sigmoid_focal_loss(logits, ours, alpha, gamma, reduction), theirs(logits, target, alpha, gamma, reduction)
        )
        torch.testing.assert_close(
            gradient(sigmoid_focal_loss, logits, ours, alpha, gamma, reduction),
            gradient(theirs, logits, target, alpha, gamma, reduction),
        )


@pytest.mark.parametrize("dtype", HALVES)
def test_half_reductions_return_float32(device: str, dtype: torch.dtype) -> None:
    logits = torch.randn(3000, 7, device=device).to(dtype)
    labels = labels_for((3000, 7), device)
    for reduction in ("sum", "mean"):
        loss = sigmoid_focal_loss(logits, labels, reduction=reduction)
        assert loss.dtype == torch.float32
        expected = reference.sigmoid_focal_loss(logits.double(), labels, reduction=reduction)
        torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("soft", [False, True])
def test_alpha_per_class(device: str, soft: bool) -> None:
    logits = torch.randn(700, 37, device=device)
    labels = torch.rand(700, 37, device=device) if soft else labels_for((700, 37), device)
    alpha = torch.rand(37, device=device)
    for reduction in ("none", "sum", "mean"):
        got = sigmoid_focal_loss(logits, labels, alpha, reduction=reduction)
        target = labels.double() if soft else labels
        expected = reference.sigmoid_focal_loss(logits.double(), target, alpha.double(), reduction=reduction)
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    uniform = torch.full((37,), 0.25, device=device)
    assert torch.equal(sigmoid_focal_loss(logits, labels, uniform), sigmoid_focal_loss(logits, labels, 0.25))


def test_ignored_rows_are_selected_away(device: str) -> None:
    logits = torch.randn(6, 5, device=device)
    logits[2], logits[4] = float("nan"), float("inf")
    labels = torch.tensor([0, 5, -7, 3, -7, 1], device=device)
    loss = sigmoid_focal_loss(logits, labels, ignore_index=-7)
    assert torch.equal(loss[[2, 4]], torch.zeros(2, 5, device=device)) and torch.isfinite(loss).all()
    for reduction in ("none", "sum", "mean"):
        grad = gradient(sigmoid_focal_loss, logits, labels, reduction=reduction, ignore_index=-7)
        assert torch.equal(grad[[2, 4]], torch.zeros(2, 5, device=device)) and torch.isfinite(grad).all()
    kept = sigmoid_focal_loss(logits[[0, 1, 3, 5]], labels[[0, 1, 3, 5]], reduction="mean")
    torch.testing.assert_close(sigmoid_focal_loss(logits, labels, reduction="mean", ignore_index=-7), kept)


def test_ignore_index_may_be_a_class(device: str) -> None:
    logits = torch.randn(6, 3, device=device)
    labels = torch.tensor([0, 1, 2, 3, 1, 0], device=device)
    loss = sigmoid_focal_loss(logits, labels, ignore_index=1)
    assert (loss[[1, 4]] == 0).all() and (loss[[0, 2, 3, 5]] > 0).all()
    for reduction in ("none", "sum"):  # the background's own label, wherever its rows stand
        labels = torch.tensor([3, 0, 3, 3, 1, 3], device=device)
        logits = torch.randn(6, 3, device=device)
        logits[labels == 3] = torch.nan
        logits.requires_grad_()
        loss = sigmoid_focal_loss(logits, labels, ignore_index=3, reduction=reduction)
        expected = reference.sigmoid_focal_loss(logits, labels, ignore_index=3, reduction=reduction)
        torch.testing.assert_close(loss, expected)
        assert (torch.autograd.grad(loss.sum(), logits)[0][labels == 3] == 0).all()


def test_all_ignored_and_empty(device: str) -> None:
    ignored = torch.full((3,), -1, device=device)
    assert sigmoid_focal_loss(torch.randn(3, 2, device=device), ignored, reduction="sum") == 0
    assert sigmoid_focal_loss(torch.randn(3, 2, device=device), ignored, reduction="mean").isnan()
    empty = torch.empty(0, 4, device=device, requires_grad=True)
    labels = torch.empty(0, dtype=torch.int64, device=device)
    assert sigmoid_focal_loss(empty, labels, reduction="mean").isnan()
    total = sigmoid_focal_loss(empty, labels, reduction="sum")
    total.backward()
    assert total == 0 and empty.grad.shape == (0, 4)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_finite_for_every_finite_logit(device: str, gamma: float, dtype: torch.dtype) -> None:
    limit = torch.finfo(dtype).max
    values = [0.0, -0.0, 9.39, -9.39, 88, -88, 104, -104, 1e4, -1e4, limit, -limit, limit / 3, torch.finfo(dtype).tiny]
    logits = torch.tensor(values, device=device).to(dtype).clamp(-limit, limit)[:, None]
    for label in (0, 1):
        labels = torch.full((len(logits),), label, device=device)
        assert torch.isfinite(sigmoid_focal_loss(logits, labels, gamma=gamma)).all()
        assert torch.isfinite(gradient(sigmoid_focal_loss, logits, labels, gamma=gamma)).all()
        assert torch.isfinite(gradient(sigmoid_focal_loss, logits, labels[:, None].to(dtype), gamma=gamma)).all()


def test_nan_logits_give_nan(device: str) -> None:
    logits = torch.tensor([[float("nan"), 1.0]], device=device)
    for label in (0, 2):
        loss = sigmoid_focal_loss(logits, torch.tensor([label], device=device))
        grad = gradient(sigmoid_focal_loss, logits, torch.tensor([label], device=device))
        assert loss[0, 0].isnan() and grad[0, 0].isnan() and loss[0, 1].isfinite() and grad[0, 1].isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nan_of_any_payload_stays_nan(device: str, dtype: torch.dtype) -> None:
    # A NaN whose mantissa is all ones would be rounded up to -0 if only its upper half counted.
    nan = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32).to(device)
    logits = torch.randn(3, 2, device=device).to(dtype)
    labels = torch.tensor([0, 1, 2], device=device)
    for alpha in (nan, torch.stack([nan[0], torch.tensor(0.5, device=device)])):
        assert sigmoid_focal_loss(logits, labels, alpha=alpha)[:, 0].isnan().all()
        assert gradient(sigmoid_focal_loss, logits, labels, alpha=alpha)[:, 0].isnan().all()
    soft = nan.expand(3, 2).contiguous()
    assert sigmoid_focal_loss(logits, soft).isnan().all()
    assert gradient(sigmoid_focal_loss, logits, soft).isnan().all()
    leaf = logits.clone().requires_grad_()
    sigmoid_focal_loss(leaf, labels, reduction="sum").backward(nan[0].to(dtype))
    assert leaf.grad is not None and leaf.grad.isnan().all()


def test_non_contiguous(device: str) -> None:
    logits = torch.randn(9, 40, device=device).t()[::2]
    labels = labels_for((40, 9), device)[::2]
    assert not logits.is_contiguous() and not labels.is_contiguous()
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, labels), sigmoid_focal_loss(logits.contiguous(), labels.contiguous())
    )
    offset = torch.randn(1000, device=device)[1:].view(111, 9)  # contiguous, but not 16-byte aligned
    labels = labels_for((111, 9), device)
    assert torch.equal(sigmoid_focal_loss(offset, labels), sigmoid_focal_loss(offset.clone(), labels))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_integer_label_dtypes(device: str, dtype: torch.dtype) -> None:
    logits = torch.randn(50, 4, device=device)
    labels = torch.randint(0, 5, (50,), device=device)
    assert torch.equal(sigmoid_focal_loss(logits, labels.to(dtype)), sigmoid_focal_loss(logits, labels))


@pytest.mark.parametrize("dtype", HALVES)
def test_float32_soft_targets_beside_half_logits(device: str, dtype: torch.dtype) -> None:
    logits = torch.randn(50, 4, device=device).to(dtype)
    soft = torch.rand(50, 4, device=device)
    expected = reference.sigmoid_focal_loss(logits.double(), soft.double()).to(dtype)
    torch.testing.assert_close(sigmoid_focal_loss(logits, soft), expected)


# --- derivatives ------------------------------------------------------------------------------------------------------
