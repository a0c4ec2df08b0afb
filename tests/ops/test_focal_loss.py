"""sigmoid_focal_loss: accuracy, torchvision's results, special values, and what the contracts do not ask."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from inputs.focal import DTYPES, GAMMAS, HALVES, TINY, dense, gradient, labels_for, tolerance

from retina_ops import reference, sigmoid_focal_loss


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("positive", [True, False])
def test_accuracy_over_all_logits(device: str, gamma: float, positive: bool) -> None:
    """Relative error where the true magnitude is at least 2^-126, absolute error below it."""
    logits = torch.cat(
        [torch.linspace(-110, 110, 100_001), torch.logspace(-30, 2, 20_001), -torch.logspace(-30, 2, 20_001)]
    )
    logits = logits.to(device)[:, None]
    labels = torch.full((len(logits),), 0 if positive else 1, device=device)
    limit = 4e-6 if gamma in (0, 0.5, 1, 1.5, 2, 3) else 1e-5
    # The definition in float64 with log p_t = -softplus: exact to 1e-13 over this range.
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


@pytest.mark.parametrize("dtype", HALVES)
def test_half_gradients_of_class_indices(device: str, dtype: torch.dtype) -> None:
    """One rounding; those of soft targets are differences, which the contracts allow more."""
    logits = (torch.randn(401, 91, device=device) * 3).to(dtype)
    labels = labels_for((401, 91), device)
    for gamma in GAMMAS:
        grad = gradient(sigmoid_focal_loss, logits, labels, gamma=gamma)
        expected = gradient(reference.sigmoid_focal_loss, logits.double(), labels, gamma=gamma)
        torch.testing.assert_close(grad.double(), expected, rtol=2 * tolerance(dtype), atol=6e-8)


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
    for reduction in ("none", "sum"):  # the label of the background, in the first row, in the last and between
        labels = torch.tensor([3, 0, 3, 3, 1, 3], device=device)
        logits = torch.randn(6, 3, device=device)
        logits[labels == 3] = torch.nan
        logits.requires_grad_()
        loss = sigmoid_focal_loss(logits, labels, ignore_index=3, reduction=reduction)
        expected = reference.sigmoid_focal_loss(logits, labels, ignore_index=3, reduction=reduction)
        torch.testing.assert_close(loss, expected)
        assert (torch.autograd.grad(loss.sum(), logits)[0][labels == 3] == 0).all()


def test_uniform_alpha_per_class_is_alpha(device: str) -> None:
    logits, labels = torch.randn(700, 37, device=device), labels_for((700, 37), device)
    uniform = torch.full((37,), 0.25, device=device)
    for targets in (labels, torch.rand(700, 37, device=device)):
        assert torch.equal(sigmoid_focal_loss(logits, targets, uniform), sigmoid_focal_loss(logits, targets, 0.25))


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


# --- derivatives ------------------------------------------------------------------------------------------------------


def test_second_derivative_matches_reference(device: str) -> None:
    logits = torch.randn(40, 6, device=device, dtype=torch.float64, requires_grad=True)
    labels = labels_for((40, 6), device)
    for gamma in GAMMAS:
        seconds = []
        for function in (sigmoid_focal_loss, reference.sigmoid_focal_loss):
            loss = function(logits, labels, gamma=gamma, reduction="sum")
            (first,) = torch.autograd.grad(loss * 2.5, logits, create_graph=True)
            seconds.append(torch.autograd.grad((first**2).sum(), logits)[0])
        torch.testing.assert_close(seconds[0], seconds[1])


def test_third_derivative_is_refused(device: str) -> None:
    logits = torch.randn(4, 3, device=device, dtype=torch.float64, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 3, 1, 2], device=device), reduction="sum")
    (first,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivatives"):
        torch.autograd.grad(first.sum(), logits, create_graph=True)


def test_half_loss_scale_reaches_the_gradient(device: str) -> None:
    """float16: the mean's gradients are below the smallest float16 until the loss scale is in them."""
    logits = torch.full((4000, 80), -4.6, device=device, dtype=torch.float16, requires_grad=True)
    labels = torch.full((4000,), 80, device=device)
    (sigmoid_focal_loss(logits, labels, reduction="mean") * 65536).backward()
    expected = gradient(lambda x: reference.sigmoid_focal_loss(x, labels, reduction="mean") * 65536, logits.double())
    assert (logits.grad != 0).all()
    torch.testing.assert_close(logits.grad.double(), expected, rtol=2e-2, atol=6e-8)


# --- tracing ----------------------------------------------------------------------------------------------------------


def test_compiles_with_numbers_of_a_tracer(device: str) -> None:
    """dynamic=True: sizes, alpha and gamma are symbols."""
    torch._dynamo.reset()
    compiled = torch.compile(sigmoid_focal_loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows, alpha, gamma in ((40, 0.25, 2.0), (30, 0.3, 1.7)):
        logits, labels = torch.randn(rows, 7, device=device), labels_for((rows, 7), device)
        torch.testing.assert_close(
            compiled(logits, labels, alpha, gamma, "sum"), sigmoid_focal_loss(logits, labels, alpha, gamma, "sum")
        )


# --- bad input --------------------------------------------------------------------------------------------------------


def test_rejects_bad_labels_on_cpu() -> None:
    with pytest.raises(RuntimeError, match=r"in \[0, 2\] \(2 = background\) or ignore_index -1, got 3 at row 1"):
        sigmoid_focal_loss(torch.randn(3, 2), torch.tensor([0, 3, 1]))
    with pytest.raises(RuntimeError, match="got 5 at row 1"):
        sigmoid_focal_loss(torch.randn(3, 0), torch.tensor([0, 5, 0]))
    with pytest.raises(RuntimeError, match="got -7 at row 9999"):  # in the last of several chunks
        sigmoid_focal_loss(torch.randn(10_000, 9), torch.tensor([9] * 9_999 + [-7]))
    with pytest.raises(RuntimeError, match="got -2 at row 2"):
        sigmoid_focal_loss(torch.randn(3, 2), torch.tensor([0, 1, -2]), reduction="sum")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bad_labels_are_nan_on_cuda() -> None:
    loss = sigmoid_focal_loss(torch.randn(3, 2, device="cuda"), torch.tensor([0, 3, 1], device="cuda"))
    assert loss[1].isnan().all() and loss[[0, 2]].isfinite().all()


def test_gamma_0_is_nearer_to_float64_than_bce() -> None:
    """torchvision gives the bits of binary cross-entropy, which is 0 for logits of 20; the true loss is 2e-9."""
    logits = torch.linspace(-20, 20, 4001)
    targets = (torch.arange(4001) % 2).float()
    exact = F.binary_cross_entropy_with_logits(logits.double(), targets.double(), reduction="none")
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert torch.equal(torchvision.ops.sigmoid_focal_loss(logits, targets, -1, 0.0), bce)
    ours = sigmoid_focal_loss(logits, targets, -1, 0.0)
    errors = [((loss.double() - exact) / exact).abs().max() for loss in (ours, bce)]
    assert errors[0] < 1e-6 and errors[1] > 0.5
    torch.testing.assert_close(ours, bce, rtol=1e-6, atol=1e-6)


def test_targets_that_require_grad() -> None:
    """torchvision differentiates by them."""
    logits, targets = torch.randn(4, 3), torch.rand(4, 3, requires_grad=True)
    assert torchvision.ops.sigmoid_focal_loss(logits, targets, reduction="sum").requires_grad
    with pytest.raises(ValueError, match="targets must not require grad"):
        sigmoid_focal_loss(logits, targets, reduction="sum")
