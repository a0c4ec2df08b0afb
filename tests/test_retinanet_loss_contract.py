"""retinanet_loss: tracing, memory, determinism, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from heads import Head, random_head
from test_retinanet_loss import SIZES, gradients_of, loss_of

from retina_ops import retinanet_loss
from retina_ops.ops._head_outputs import as_levels
from retina_ops.ops._host_values import fill_on_device, to_device
from retina_ops.ops._padding import pad_boxes, pad_labels

# --- tracing ----------------------------------------------------------------------------------------------------------


def operator_arguments(head: Head) -> tuple[object, ...]:
    logits, deltas = as_levels("test", head.cls_logits, head.bbox_regression)
    boxes, counts = pad_boxes("test", "gt_boxes", head.gt_boxes, head.anchors)
    labels = pad_labels("test", "gt_labels", head.gt_labels, head.gt_boxes, boxes)
    matches, foreground = torch.ops.retina_ops.match_anchors(
        head.anchors, boxes, counts, None, None, 0.5, 0.4, True, 0.5
    )
    return logits, deltas, head.anchors, boxes, labels, matches, foreground.clamp(min=1).double()


def test_opcheck(device: str) -> None:
    numbers = (0.25, 2.0, 1, 0.5, 1.0, 1.0, 1.0, 1.0)
    for layout in ("planar", "rows"):
        arguments = operator_arguments(random_head([(3, 2), (1, 1)], [2, 1], layout=layout, device=device))
        for with_grad in (False, True):
            torch.library.opcheck(torch.ops.retina_ops.retinanet_loss.default, (*arguments, *numbers, with_grad))
        one = torch.ones((), device=device)
        torch.library.opcheck(torch.ops.retina_ops.retinanet_loss_backward.default, (one, one, *arguments, *numbers))


@pytest.mark.parametrize("layout", ["planar", "channels_last"])
def test_compiles_without_recompile(device: str, layout: str) -> None:
    """Up to eight boxes an image are one padded size, whatever the images hold."""
    torch._dynamo.reset()
    head = random_head([(6, 5), (3, 2)], [3, 2], layout=layout, device=device)

    def total(logits, deltas, anchors, boxes, labels):  # type: ignore[no-untyped-def]
        losses = retinanet_loss(logits, deltas, anchors, boxes, labels)
        return losses[0] + losses[1]

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    arguments = (head.cls_logits, head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels)
    got, expected = compiled(*arguments), total(*arguments)
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(
        torch.autograd.grad(got, head.outputs), torch.autograd.grad(expected, head.outputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_with_sizes_and_numbers_of_a_tracer(backend: str, device: str) -> None:
    """dynamic=True: heights, widths and gamma are symbols."""
    torch._dynamo.reset()

    def total(logits, deltas, anchors, boxes, labels, gamma, beta):  # type: ignore[no-untyped-def]
        losses = retinanet_loss(
            logits, deltas, anchors, boxes, labels, gamma=gamma, box_loss="smooth_l1", smooth_l1_beta=beta
        )
        return losses[0] + losses[1]

    compiled = torch.compile(total, fullgraph=True, dynamic=True, backend=backend)
    for sizes, gamma, beta in (([(6, 5), (3, 2)], 1.3, 0.2), ([(7, 9), (4, 2)], 2.2, 0.4)):
        head = random_head(sizes, [3, 2], device=device)
        arguments = (head.cls_logits, head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels, gamma, beta)
        got, expected = compiled(*arguments), total(*arguments)
        torch.testing.assert_close(got, expected)
        mine, theirs = torch.autograd.grad(got, head.outputs), torch.autograd.grad(expected, head.outputs)
        torch.testing.assert_close(mine, theirs)


def test_numbers_of_the_host(device: str) -> None:
    """Copied, or as arguments of kernels: the same."""
    rows = [[3.5, 4.0], [7.0, -1.0], [0.0, 2.0]]
    for dtype in (torch.float64, torch.int32):
        expected = torch.tensor(rows, dtype=dtype)
        for function in (to_device, fill_on_device):
            got = function(rows, dtype, torch.device(device))
            assert got.device.type == device and got.dtype == dtype and torch.equal(got.cpu(), expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replays_in_a_cuda_graph() -> None:
    """Losses and gradients of new outputs and boxes, with pinned memory that others have written since the capture."""
    head = random_head([(20, 30), (4, 5)], [5, 3], device="cuda")

    def step() -> list[torch.Tensor]:
        losses = loss_of(head)
        return [*losses, *torch.autograd.grad(sum(losses), head.outputs)]

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        others = [torch.full((16,), 99, dtype=torch.int32, pin_memory=True) for _ in range(64)]
        with torch.no_grad():
            for level in head.outputs:
                level.copy_(torch.randn_like(level))
            for boxes in head.gt_boxes:
                boxes.add_(1)
        graph.replay()
        for mine, theirs in zip(captured, step(), strict=True):
            torch.testing.assert_close(mine, theirs)
        del others


# --- memory and determinism -------------------------------------------------------------------------------------------


def test_memory_beyond_the_gradients() -> None:
    """At most 32 bytes an anchor and image: no copy of the logits, no matrix of IoUs."""
    head = random_head([(60, 50), (30, 25)], [40, 30], classes=30)
    loss_of(head)  # what a first call keeps
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        losses = loss_of(head)
        sum(losses).backward()
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
    gradients = sum(level.numel() * level.element_size() for level in head.outputs)
    assert allocated >= gradients  # that the profiler saw them
    assert allocated <= gradients + 32 * len(head.anchors) * len(head.gt_boxes)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_does_not_wait_for_the_device() -> None:
    head = random_head([(20, 30), (4, 5)], [5, 0, 3], device="cuda")
    sum(loss_of(head)).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sum(loss_of(head)).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_does_not_depend_on_threads() -> None:
    head = random_head([(70, 40), (9, 9)], [5, 2])
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            losses = loss_of(head)
            results.append([*losses, *gradients_of(losses, head.outputs)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa: str) -> None:
    code = (
        "import sys, torch; sys.path.insert(0, 'tests'); from heads import random_head\n"
        "from test_retinanet_loss import check\n"
        "torch.manual_seed(1)\n"
        "for layout in ('planar', 'channels_last'):\n"
        "    for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 2**-7)):\n"
        "        for gamma in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 2.7):\n"
        "            check(random_head([(9, 9), (2, 2)], [3, 2], layout=layout, dtype=dtype), tolerance, gamma=gamma)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "RETINA_OPS_ISA": isa}, capture_output=True, text=True
    )
    assert run.returncode == 0 or "one that this processor has" in run.stderr, run.stderr


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_rejects_bad_options(device: str) -> None:
    head = random_head([(2, 2)], [1], device=device)
    for options, message in (
        ({"box_loss": "l2"}, "box_loss must be one of l1, smooth_l1, giou, diou, ciou, got 'l2'"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], or -1 for none, got 1.5"),
        ({"gamma": -1}, "gamma must be finite and at least 0, got -1"),
        ({"smooth_l1_beta": -1}, "smooth_l1_beta must be finite and at least 0, got -1"),
        ({"normalization": "ema"}, "normalization must be image, batch or a callable.* got 'ema'"),
        ({"normalization": lambda foreground: foreground[:0]}, r"normalization must return a tensor .* got \[0\]"),
        ({"bbox_reg_weights": (1, 1)}, "bbox_reg_weights must be four numbers"),
        ({"ignore_regions": []}, "ignore_regions must be a list of 1 tensors, one an image, got 0"),
    ):
        with pytest.raises(ValueError, match=f"retinanet_loss: {message}"):
            loss_of(head, **options)


def test_rejects_what_does_not_fit(device: str) -> None:
    head = random_head([(2, 2), (1, 1)], [1, 0], device=device)
    logits, deltas, anchors = head.cls_logits, head.bbox_regression, head.anchors
    boxes, labels = head.gt_boxes, head.gt_labels
    for arguments, message in (
        ((logits[0], deltas[0], anchors, boxes, labels), "must be lists of one tensor a level"),
        ((logits, deltas[:1], anchors, boxes, labels), "must have the same levels.* got 2 and 1"),
        ((logits, logits, anchors, boxes, labels), r"level 0 must be cls_logits \[B, A \* K, H, W\]"),
        ((logits, deltas, anchors[:3], boxes, labels), r"anchors must be \[15, 4\], got \[3, 4\]"),
        ((logits, deltas, anchors, [boxes[0][:, :3], boxes[1]], labels), r"gt_boxes must be \[M, 4\], got \[1, 3\]"),
        ((logits, deltas, anchors, boxes, [labels[0][:0], labels[1]]), r"gt_labels must be integers \[1\]"),
        ((logits, [deltas[0], deltas[1].double()], anchors, boxes, labels), "must have one dtype and device"),
        ((logits[:1] * 9, deltas[:1] * 9, anchors, boxes, labels), "must have 1 to 8 levels, got 9"),
    ):
        with pytest.raises(RuntimeError, match=f"retinanet_loss: .*{message}"):
            retinanet_loss(*arguments)
    with pytest.raises(ValueError, match="gt_boxes must be a list of 2 tensors, one an image, got 1"):
        retinanet_loss(logits, deltas, anchors, boxes[:1], labels[:1])


def test_label_out_of_range(device: str) -> None:
    head = random_head(SIZES, [2, 1], device=device)
    head.gt_labels[0][1] = 7
    if device == "cpu":
        with pytest.raises(RuntimeError, match=r"retinanet_loss: matches must be under 8 and gt_labels in \[0, 7\)"):
            loss_of(head)
    else:
        assert loss_of(head)[0].isnan()


def test_rejects_torchscript() -> None:
    with pytest.raises(RuntimeError, match=r"retina_ops\.retinanet_loss: TorchScript is not supported"):
        torch.jit.script(retinanet_loss)
