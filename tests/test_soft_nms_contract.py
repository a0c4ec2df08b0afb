"""soft_nms: gradients, layouts, threads, instruction sets, compilation, errors."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from boxes import random_boxes
from torch import Tensor

from retina_ops import reference, soft_nms

METHODS = ("linear", "gaussian")


def case(count: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return random_boxes(count, device, high=100, width=300, height=300).to(dtype), torch.rand(
        count, device=device, dtype=dtype
    )


@pytest.mark.parametrize("method", METHODS)
def test_gradcheck(device: str, method: str) -> None:
    """In the scores, the order held fixed: it does not change under gradcheck's steps."""
    boxes, scores = case(40, device, torch.float64)
    classes = torch.randint(0, 2, (40,), device=device)

    def decayed(scores: Tensor) -> Tensor:
        return soft_nms(boxes, scores, 0.1, method, idxs=classes)[1]

    scores.requires_grad_()
    assert torch.autograd.gradcheck(decayed, scores)
    assert torch.autograd.gradgradcheck(lambda s: decayed(s).square(), scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradient_is_the_decay(device: str, dtype: torch.dtype) -> None:
    boxes, scores = case(300, device)
    mine, theirs = (scores.to(dtype).requires_grad_() for _ in range(2))
    keep, decayed = soft_nms(boxes, mine, 0.1)
    with torch.no_grad():
        without = soft_nms(boxes, mine, 0.1)
    assert torch.equal(keep, without[0]) and torch.equal(decayed, without[1])
    assert decayed.requires_grad and not keep.requires_grad and not without[1].requires_grad
    weight = torch.rand(len(keep), device=device).to(dtype)
    expected_keep, expected = reference.soft_nms(boxes, theirs, 0.1)
    (grad,) = torch.autograd.grad(decayed, mine, weight)
    (expected_grad,) = torch.autograd.grad(expected, theirs, weight)
    assert torch.equal(keep, expected_keep) and torch.equal(grad, expected_grad)
    dropped = torch.ones(300, dtype=torch.bool, device=device).index_fill(0, keep, False)
    assert (grad[dropped] == 0).all()


def test_score_of_zero_has_a_gradient(device: str) -> None:
    boxes, scores = case(1, device)
    boxes = torch.cat([boxes, boxes + 1])
    scores = torch.tensor([0.5, 0.0], device=device, requires_grad=True)
    keep, decayed = soft_nms(boxes, scores, 0.1, min_score=0.0)
    (grad,) = torch.autograd.grad(decayed.sum(), scores)
    assert keep.tolist() == [0, 1] and grad[0] == 1 and 0 < grad[1] < 1


def test_rejects_boxes_with_gradient(device: str) -> None:
    """No silent zero: the decays do depend on the boxes."""
    boxes, scores = case(20, device)
    boxes.requires_grad_()
    with pytest.raises(RuntimeError, match=r"soft_nms: boxes take no gradient, .* pass boxes\.detach\(\)"):
        soft_nms(boxes, scores, 0.5)
    with torch.no_grad():
        kept = soft_nms(boxes, scores, 0.5)
    assert torch.equal(kept[0], soft_nms(boxes.detach(), scores, 0.5)[0])


def test_empty(device: str) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        boxes, scores = case(0, device, dtype)
        for idxs in (None, torch.zeros(0, dtype=torch.int64, device=device)):
            keep, decayed = soft_nms(boxes, scores.requires_grad_(), 0.5, idxs=idxs)
            assert keep.shape == decayed.shape == (0,) and keep.dtype == torch.int64 and decayed.dtype == dtype
    boxes, scores = case(5, device)
    keep, decayed = soft_nms(boxes, scores, 0.5, min_score=2)
    assert keep.shape == decayed.shape == (0,)


def test_non_contiguous(device: str) -> None:
    boxes, scores = case(300, device)
    wide = torch.stack([boxes, boxes], dim=1)[:, 0]
    strided = torch.stack([scores, scores], dim=1)[:, 1]
    classes = torch.randint(0, 3, (300, 2), device=device)[:, 0]
    expected = soft_nms(boxes, scores, 0.2, idxs=classes.contiguous())
    assert not wide.is_contiguous() and not strided.is_contiguous() and not classes.is_contiguous()
    for got, wanted in zip(soft_nms(wide, strided, 0.2, idxs=classes), expected, strict=True):
        assert torch.equal(got, wanted)
    unaligned = torch.cat([torch.zeros(1, device=device), boxes.flatten()])[1:].view(-1, 4)
    assert torch.equal(soft_nms(unaligned, scores, 0.2, idxs=classes)[1], expected[1])


def test_threads_do_not_change_results() -> None:
    boxes, scores = case(3000, "cpu")
    classes = torch.randint(0, 20, (3000,))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(soft_nms(boxes, scores, 0.3, "gaussian", idxs=classes))
    finally:
        torch.set_num_threads(before)
    for keep, decayed in results[1:]:
        assert torch.equal(keep, results[0][0]) and torch.equal(decayed, results[0][1])


def test_instruction_sets_give_the_same_bits() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import torch; from boxes import random_boxes, odd_boxes; from retina_ops import soft_nms\n"
        "torch.manual_seed(3)\n"
        "b = torch.cat([random_boxes(700, width=300, height=300), odd_boxes()]); s = torch.rand(len(b)) * .5 + .5\n"
        "for n in (50, len(b)):\n"
        "  for d in (torch.float32, torch.float64):\n"
        "    for m in ('linear', 'gaussian'):\n"
        "      k, v = soft_nms(b[:n].to(d), s[:n].to(d), .2, m); print(k.tolist(), v.tolist())\n"
    )
    outputs = {}
    for isa in ("baseline", "avx2", "avx512"):
        run = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "RETINA_OPS_ISA": isa}, capture_output=True, text=True
        )
        if "one that this processor has" not in run.stderr:
            assert run.returncode == 0, run.stderr
            outputs[isa] = run.stdout
    assert outputs["baseline"] and len(set(outputs.values())) == 1


@pytest.mark.parametrize("gaussian", [False, True])
def test_opcheck(device: str, gaussian: bool) -> None:
    boxes, scores = case(30, device)
    classes = torch.randint(0, 3, (30,), device=device)
    for idxs in (None, classes):
        torch.library.opcheck(torch.ops.retina_ops.soft_nms.default, (boxes, scores, idxs, 0.5, gaussian, 0.5, 0.001))


@pytest.mark.parametrize("gradient", [False, True])
def test_compiles_without_recompile(device: str, gradient: bool) -> None:
    torch._dynamo.reset()

    def best(boxes: Tensor, scores: Tensor) -> Tensor:
        keep, decayed = soft_nms(boxes, scores, 0.5)
        return (boxes[keep].sum(dim=1) * decayed).sum()

    compiled = torch.compile(best, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True, capture_dynamic_output_shape_ops=True):
        for _ in range(3):
            boxes, scores = case(40, device)
            scores.requires_grad_(gradient)
            mine, theirs = compiled(boxes, scores), best(boxes, scores)
            torch.testing.assert_close(mine, theirs)
            if gradient:
                torch.testing.assert_close(*(torch.autograd.grad(value, scores)[0] for value in (mine, theirs)))


def test_rejects_bad_tensors(device: str) -> None:
    boxes, scores = case(7, device)
    with pytest.raises(RuntimeError, match=r"soft_nms: boxes must be \[N, 4\], got \[7, 5\]"):
        soft_nms(torch.rand(7, 5, device=device), scores, 0.5)
    with pytest.raises(RuntimeError, match=r"soft_nms: scores must be \[7\], got \[6\]"):
        soft_nms(boxes, scores[:6], 0.5)
    with pytest.raises(RuntimeError, match="soft_nms: scores must be float16, bfloat16, float32 or float64, got int64"):
        soft_nms(boxes, scores.long(), 0.5)
    with pytest.raises(RuntimeError, match=r"soft_nms: idxs must be \[7\], got \[3\]"):
        soft_nms(boxes, scores, 0.5, idxs=torch.zeros(3, dtype=torch.int64, device=device))
    with pytest.raises(RuntimeError, match=r"soft_nms: idxs must be integers, got torch\.float32"):
        soft_nms(boxes, scores, 0.5, idxs=scores)
    with pytest.raises(RuntimeError, match="soft_nms: min_score must be at least 0, got -1"):
        torch.ops.retina_ops.soft_nms(boxes, scores, None, 0.5, False, 0.5, -1.0)


def test_rejects_bad_options() -> None:
    boxes, scores = case(3, "cpu")
    with pytest.raises(ValueError, match="soft_nms: method must be 'linear' or 'gaussian', got 'hard'"):
        soft_nms(boxes, scores, 0.5, "hard")
    for sigma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="soft_nms: sigma must be positive and finite, got"):
            soft_nms(boxes, scores, 0.5, "gaussian", sigma)
    for lowest in (-0.1, math.nan):
        with pytest.raises(ValueError, match="soft_nms: min_score must be at least 0, got"):
            soft_nms(boxes, scores, 0.5, min_score=lowest)


def test_rejects_torchscript() -> None:
    with pytest.raises(RuntimeError, match=r"retina_ops\.soft_nms: TorchScript is not supported"):
        torch.jit.script(soft_nms)(*case(3, "cpu"), 0.5)
