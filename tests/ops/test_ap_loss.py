"""The AP loss against a ranking of every pair in float64, which shares no code with the operator or its reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from retina_ops import ap_loss, reference


def ranked_pair_by_pair(logits: Tensor, positive: Tensor, negative: Tensor, delta: float) -> tuple[float, Tensor]:
    """Loss and update from the matrix of H(x_j - s_i), in float64."""
    x = logits.double().flatten()
    is_positive, is_negative = positive.flatten(), negative.flatten()
    update = torch.zeros_like(x)
    s = x[is_positive]
    if len(s) == 0:
        return 0.0, update.view(logits.shape)
    height = ((x[None, :] - s[:, None]) / (2 * delta) + 0.5).clamp(0, 1)  # [positives, logits]
    a, b = height[:, is_positive].sum(1) + 0.5, height[:, is_negative].sum(1)
    precision = a / (a + b)
    not_above = s[None, :] <= s[:, None]
    interpolated = torch.where(not_above, precision[None, :], -1.0).amax(1)  # the best at this logit or a lower one
    scale = torch.where(b > 0, (1 - interpolated) / (1 - precision), 0.0) / (a + b)
    update[is_negative] = (height[:, is_negative] * scale[:, None]).sum(0) / len(s)
    update[is_positive] = -(1 - interpolated) / len(s)
    return float((1 - interpolated).mean()), update.view(logits.shape)


def assert_ranked(logits: Tensor, targets: Tensor, delta: float = 1.0, ignore_index: int = -1) -> None:
    if targets.is_floating_point():
        positive, negative = targets > 0, targets == 0
    else:
        counted = (targets != ignore_index)[..., None]
        positive = (targets[..., None] == torch.arange(logits.shape[-1])) & counted
        negative = ~positive & counted
    loss, update = ranked_pair_by_pair(logits, positive, negative, delta)
    for function in (ap_loss, reference.ap_loss):
        leaf = logits.detach().clone().requires_grad_()
        got = function(leaf, targets, delta=delta, ignore_index=ignore_index)
        got.backward()
        assert leaf.grad is not None
        relative = 1e-9 if logits.dtype == torch.float64 else 1e-4
        torch.testing.assert_close(got.item(), loss, rtol=relative, atol=1e-6 if relative > 1e-9 else 1e-11)
        torch.testing.assert_close(leaf.grad.double(), update, rtol=relative, atol=1e-7 if relative > 1e-9 else 1e-11)


LOGITS = {
    "spread": lambda: torch.randn(60, 7) * 3,
    "ties": lambda: torch.randn(60, 7).round(),
    "all equal": lambda: torch.zeros(60, 7),
    "within delta": lambda: torch.rand(60, 7) / 100,
    "exactly delta apart": lambda: torch.randint(-3, 4, (60, 7)) * 0.75,
    "far apart": lambda: torch.randn(60, 7) * 1000,
    "gaps of 1e8, with ties": lambda: torch.randint(-2, 3, (60, 7)) * 1e8 + torch.randint(-1, 2, (60, 7)) * 0.5,
    "gaps of 1e30, with ties": lambda: torch.randint(-2, 3, (60, 7)) * 1e30,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("kind", LOGITS)
def test_matches_a_ranking_of_every_pair(kind: str, share: float, dtype: torch.dtype) -> None:
    logits = LOGITS[kind]().to(dtype)
    labels = torch.where(torch.rand(60) < share, torch.randint(0, 7, (60,)), 7)
    labels[::11] = -1
    dense = (torch.rand(60, 7) < share).to(dtype)
    dense[:, 3][::5] = -1
    for delta in (0.01, 0.75, 20.0):
        assert_ranked(logits, labels, delta)
        assert_ranked(logits, dense, delta)


def test_many_positives() -> None:
    """More breakpoints than buckets of the look-up table."""
    logits = torch.randn(9000, 1, dtype=torch.float64)
    loss, _ = ranked_pair_by_pair(logits, (targets := (torch.rand(9000, 1) < 0.5).double()) > 0, targets == 0, 0.3)
    assert ap_loss(logits, targets, delta=0.3).item() == pytest.approx(loss, rel=1e-9)


def test_a_perfect_ranking_has_no_loss() -> None:
    logits = torch.tensor([[9.0, -9.0], [-8.0, 7.0], [-9.0, -7.0]], requires_grad=True)
    loss = ap_loss(logits, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(3, 2))


def test_a_pass_of_updates_improves_the_ranking() -> None:
    logits = torch.randn(200, 4)
    targets = torch.randint(0, 9, (200,)).clamp(max=4)
    before = ap_loss(logits, targets).item()
    for _ in range(300):
        leaf = logits.requires_grad_()
        (update,) = torch.autograd.grad(ap_loss(leaf, targets), leaf)
        logits = (leaf - 20 * update).detach()
    assert ap_loss(logits, targets).item() < 0.1 * before


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_infinite_logits_are_the_largest_number(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    logits = torch.randn(40, 3).to(dtype)
    logits[:6, 0], logits[4:9, 1] = most, -most
    infinite = torch.where(logits.abs() == most, logits * 2, logits)
    assert infinite.isinf().any()
    labels = torch.arange(40) % 4
    for function in (ap_loss, reference.ap_loss):
        assert torch.equal(function(infinite, labels), function(logits, labels))


def test_nan_of_a_counted_logit_alone() -> None:
    logits = torch.randn(4, 2)
    logits[1, 0] = torch.nan
    for labels, is_nan in (([0, 2, 1, 2], True), ([0, 0, 1, 2], True), ([2, 2, 2, 2], True), ([0, -1, 1, 2], False)):
        leaf = logits.clone().requires_grad_()
        loss = ap_loss(leaf, torch.tensor(labels))
        loss.backward()
        counted = (torch.tensor(labels) != -1)[:, None].expand(4, 2)
        assert loss.isnan().item() is is_nan
        assert torch.equal(leaf.grad.isnan(), counted & is_nan)


@pytest.mark.parametrize("label", [-2, 3, 1000])
def test_rejects_label_out_of_range(label: int) -> None:
    with pytest.raises(RuntimeError, match=rf"class-index targets must be in \[0, 2\].*got {label} at row 1"):
        ap_loss(torch.zeros(2, 2), torch.tensor([0, label]))


def test_half_updates_keep_the_factor_of_a_loss_scaler() -> None:
    """Updates below the smallest float16 are scaled before they are rounded."""
    logits = torch.randn(3000, 4, dtype=torch.float16, requires_grad=True)
    labels = torch.where(torch.arange(3000) % 3 == 0, 1, 4)
    loss = ap_loss(logits, labels, delta=0.01)
    (scaled,) = torch.autograd.grad(loss * 65536, logits)
    exact = logits.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(reference.ap_loss(exact, labels, delta=0.01) * 65536, exact)
    torch.testing.assert_close(scaled.double(), expected, rtol=2e-3, atol=1e-4)
