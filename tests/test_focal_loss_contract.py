"""sigmoid_focal_loss: derivatives, compilation, determinism, instruction sets and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from focal import DTYPES, GAMMAS, gradient, labels_for, tolerance
from torch import Tensor

from retina_ops import reference, sigmoid_focal_loss


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 2.6])
@pytest.mark.parametrize("soft", [False, True])
def test_gradcheck_and_gradgradcheck(device: str, reduction: str, gamma: float, soft: bool) -> None:
    logits = torch.randn(4, 3, device=device, dtype=torch.float64, requires_grad=True)
    targets = (
        torch.rand(4, 3, device=device, dtype=torch.float64) if soft else torch.tensor([0, 3, -1, 2], device=device)
    )

    def function(x: Tensor) -> Tensor:
        return sigmoid_focal_loss(x, targets, gamma=gamma, reduction=reduction)

    assert torch.autograd.gradcheck(function, (logits,))
    assert torch.autograd.gradgradcheck(function, (logits,))


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_backwards_and_upstream(device: str, dtype: torch.dtype, reduction: str) -> None:
    """The gradient of the forward serves the first backward; the second recomputes it; both are scaled."""
    logits = torch.randn(300, 7, device=device).to(dtype).requires_grad_()
    labels = labels_for((300, 7), device)
    loss = sigmoid_focal_loss(logits, labels, reduction=reduction) * 3.7
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(loss, logits)
    expected = gradient(lambda x: reference.sigmoid_focal_loss(x, labels, reduction=reduction) * 3.7, logits.double())
    for grad in (first, second):
        torch.testing.assert_close(grad.double(), expected, rtol=3 * tolerance(dtype), atol=6e-8)


def test_gradient_of_forward_is_not_shared(device: str) -> None:
    """Accumulating into .grad twice must not add into a tensor that was handed out before."""
    logits = torch.randn(50, 7, device=device, requires_grad=True)
    labels = labels_for((50, 7), device)
    loss = sigmoid_focal_loss(logits, labels, reduction="sum")
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    loss.backward()
    torch.testing.assert_close(logits.grad, 2 * once)


def test_no_gradient_under_no_grad(device: str) -> None:
    logits = torch.randn(50, 7, device=device, requires_grad=True)
    labels = labels_for((50, 7), device)
    op = torch.ops.retina_ops.sigmoid_focal_loss_reduced
    with torch.no_grad():
        assert not sigmoid_focal_loss(logits, labels, reduction="sum").requires_grad
    _, grad = op(logits, labels, None, 0.25, 2.0, -1, False, False)
    assert grad.numel() == 0


def test_half_loss_scale_reaches_the_gradient(device: str) -> None:
    """float16: the mean's gradients are below the smallest float16 until the loss scale is in them."""
    logits = torch.full((4000, 80), -4.6, device=device, dtype=torch.float16, requires_grad=True)
    labels = torch.full((4000,), 80, device=device)
    (sigmoid_focal_loss(logits, labels, reduction="mean") * 65536).backward()
    expected = gradient(lambda x: reference.sigmoid_focal_loss(x, labels, reduction="mean") * 65536, logits.double())
    assert (logits.grad != 0).all()
    torch.testing.assert_close(logits.grad.double(), expected, rtol=2e-2, atol=6e-8)


# --- PyTorch's own contracts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("soft", [False, True])
def test_opcheck(device: str, dtype: torch.dtype, soft: bool) -> None:
    logits = torch.randn(6, 4, device=device).to(dtype).requires_grad_()
    targets = torch.rand(6, 4, device=device).to(dtype) if soft else torch.tensor([0, 1, 4, -1, 3, 2], device=device)
    alpha = torch.rand(4, device=device)
    ops = torch.ops.retina_ops
    for per_class in (None, alpha):
        options = (per_class, 0.25, 2.0, -1)
        torch.library.opcheck(ops.sigmoid_focal_loss.default, (logits, targets, *options))
        for upstream in (torch.randn_like(logits), torch.tensor(1.5, device=device)):
            torch.library.opcheck(ops.sigmoid_focal_loss_backward.default, (upstream, logits, targets, *options, 1))
        for with_grad in (False, True):
            torch.library.opcheck(ops.sigmoid_focal_loss_reduced.default, (logits, targets, *options, True, with_grad))
    torch.library.opcheck(
        ops.scale_gradient_.default, (torch.randn(9, device=device), torch.tensor(2.0, device=device))
    )


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_compiles_without_recompile(device: str, reduction: str) -> None:
    torch._dynamo.reset()
    labels = labels_for((40, 7), device)

    def function(x: Tensor) -> Tensor:
        return sigmoid_focal_loss(x, labels, reduction=reduction).sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            logits = torch.randn(40, 7, device=device, requires_grad=True)
            compiled(logits).backward()
            torch.testing.assert_close(logits.grad, gradient(function, logits))


def test_compiles_with_numbers_of_a_tracer(device: str) -> None:
    """dynamic=True: sizes, alpha and gamma are symbols."""
    torch._dynamo.reset()
    compiled = torch.compile(sigmoid_focal_loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows, alpha, gamma in ((40, 0.25, 2.0), (30, 0.3, 1.7)):
        logits, labels = torch.randn(rows, 7, device=device), labels_for((rows, 7), device)
        torch.testing.assert_close(
            compiled(logits, labels, alpha, gamma, "sum"), sigmoid_focal_loss(logits, labels, alpha, gamma, "sum")
        )


def test_threads_do_not_change_results() -> None:
    logits = torch.randn(9000, 80, requires_grad=True)
    labels = labels_for((9000, 80), "cpu")
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            loss = sigmoid_focal_loss(logits, labels, reduction="sum")
            results.append((loss.detach(), torch.autograd.grad(loss, logits)[0]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for result in results for a, b in zip(result, results[0], strict=True))


def test_deterministic(device: str) -> None:
    logits = torch.randn(5000, 80, device=device)
    labels = labels_for((5000, 80), device)
    first = sigmoid_focal_loss(logits, labels, reduction="sum")
    assert all(torch.equal(sigmoid_focal_loss(logits, labels, reduction="sum"), first) for _ in range(10))


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "nonsense"])
def test_every_instruction_set(isa: str) -> None:
    """Each path that the processor has gives the reference's values; a name it lacks is an error."""
    code = (
        "import torch; from retina_ops import reference, sigmoid_focal_loss\n"
        "x = torch.randn(300, 91, requires_grad=True); t = torch.randint(-1, 92, (300,))\n"
        "for gamma in (0, .5, 1, 1.5, 2, 3, 2.2):\n"
        "    loss = sigmoid_focal_loss(x, t, gamma=gamma, reduction='sum'); y = x.detach().double().requires_grad_()\n"
        "    expected = reference.sigmoid_focal_loss(y, t, gamma=gamma, reduction='sum')\n"
        "    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)\n"
        "    torch.testing.assert_close(torch.autograd.grad(loss, x)[0].double(), torch.autograd.grad(expected, y)[0],"
        " rtol=1e-5, atol=1e-7)\n"
        "    expected = reference.sigmoid_focal_loss(y, t, gamma=gamma, reduction='sum')\n"
        "    wide = sigmoid_focal_loss(y, t, gamma=gamma, reduction='sum')\n"
        "    torch.testing.assert_close(wide, expected, rtol=1e-13, atol=0)\n"
        "    torch.testing.assert_close(torch.autograd.grad(wide, y)[0], torch.autograd.grad(expected, y)[0],"
        " rtol=1e-11, atol=1e-16)\n"
    )
    environment = {**os.environ, "RETINA_OPS_ISA": isa}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if run.returncode != 0 and isa != "baseline":
        assert "RETINA_OPS_ISA must be baseline, avx2 or avx512" in run.stderr and isa in run.stderr
        flags = Path("/proc/cpuinfo").read_text()
        assert isa == "nonsense" or f" {'avx2' if isa == 'avx2' else 'avx512bw'} " not in flags
    else:
        assert run.returncode == 0 and isa != "nonsense", run.stderr


# --- bad input --------------------------------------------------------------------------------------------------------


def test_rejects_bad_options(device: str) -> None:
    logits, labels = torch.randn(3, 2, device=device), torch.zeros(3, dtype=torch.int64, device=device)
    with pytest.raises(ValueError, match=r"Invalid alpha value: 1\.5"):
        sigmoid_focal_loss(logits, labels, alpha=1.5)
    with pytest.raises(ValueError, match="Invalid gamma value: -1"):
        sigmoid_focal_loss(logits, labels, gamma=-1)
    with pytest.raises(ValueError, match="reduction"):
        sigmoid_focal_loss(logits, labels, reduction="avg")
    with pytest.raises(ValueError, match="targets must not require grad"):
        sigmoid_focal_loss(logits, torch.rand(3, 2, device=device, requires_grad=True))
    with pytest.raises(ValueError, match="alpha must not require grad"):
        sigmoid_focal_loss(logits, labels, torch.rand(2, device=device, requires_grad=True))


def test_rejects_bad_tensors(device: str) -> None:
    logits = torch.randn(3, 2, device=device)
    labels = torch.zeros(3, dtype=torch.int64, device=device)
    with pytest.raises(
        RuntimeError, match=r"sigmoid_focal_loss: class-index targets .* inputs \[3, 2\] and targets \[4\]"
    ):
        sigmoid_focal_loss(logits, torch.zeros(4, dtype=torch.int64, device=device))
    with pytest.raises(RuntimeError, match=r"sigmoid_focal_loss: floating targets .* targets \[3\]"):
        sigmoid_focal_loss(logits, torch.zeros(3, device=device))
    with pytest.raises(RuntimeError, match="integer targets are class indices"):
        sigmoid_focal_loss(logits, torch.zeros(3, 2, dtype=torch.int64, device=device))
    with pytest.raises(RuntimeError, match="inputs must be float16, bfloat16, float32 or float64, got int64"):
        sigmoid_focal_loss(labels[:, None], labels)
    with pytest.raises(RuntimeError, match=r"alpha must be one number or have one value per class, \[2\], got \[3\]"):
        sigmoid_focal_loss(logits, labels, torch.rand(3, device=device))


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


def test_rejects_torchscript() -> None:
    with pytest.raises(RuntimeError, match=r"retina_ops\.sigmoid_focal_loss: TorchScript is not supported"):
        torch.jit.script(sigmoid_focal_loss)(torch.randn(3, 2), torch.zeros(3, 2))
