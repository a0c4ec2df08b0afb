"""retinanet_loss: derivatives, tracing, memory, determinism, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from heads import Head, random_head
from test_retinanet_loss import SIZES, gradients_of, loss_of

from retina_ops import reference, retinanet_loss
from retina_ops.ops._head_outputs import as_levels
from retina_ops.ops._padding import pad_boxes, pad_labels

# --- derivatives ------------------------------------------------------------------------------------------------------


def test_backward_twice_and_upstream(device: str) -> None:
    """The gradient of the forward is given away once; later backwards recompute it."""
    head = random_head(SIZES, [3, 2], device=device)
    losses = loss_of(head)
    total = losses[0] * 3.7 + losses[1]
    first = torch.autograd.grad(total, head.outputs, retain_graph=True)
    second = torch.autograd.grad(total, head.outputs)
    torch.testing.assert_close(first, second)
    again = loss_of(head)
    one = torch.autograd.grad(again[0], head.outputs[:1], retain_graph=True)[0]
    torch.testing.assert_close(one * 3.7, first[0])
    assert torch.autograd.grad(again[1], head.outputs, allow_unused=True)[0].abs().max() == 0


def test_gradcheck(device: str) -> None:
    head = random_head([(2, 2), (1, 2)], [2], per_cell=1, classes=2, dtype=torch.float64, device=device)

    def losses(*outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return retinanet_loss(outputs[:2], outputs[2:], head.anchors, head.gt_boxes, head.gt_labels, box_loss="giou")

    assert torch.autograd.gradcheck(losses, head.outputs)


@pytest.mark.parametrize("layout", ["planar", "channels_last"])
def test_second_derivatives(device: str, layout: str) -> None:
    """Of a function of the gradients and the upstream factors, against the definition's."""
    results = []
    for function in (retinanet_loss, reference.retinanet_loss):
        torch.manual_seed(3)
        head = random_head(SIZES[1:], [3, 1], dtype=torch.float64, device=device, layout=layout)
        factor = torch.tensor(1.3, dtype=torch.float64, device=device, requires_grad=True)
        losses = function(
            head.cls_logits, head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels, box_loss="smooth_l1"
        )
        first = torch.autograd.grad(losses[0] * factor + losses[1] * factor**2, head.outputs, create_graph=True)
        inputs = [factor, *head.outputs]
        results.append(torch.autograd.grad(sum((g**2).sum() for g in first), inputs))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_no_gradient_without_need(device: str) -> None:
    head = random_head([(8, 8)], [2], device=device)
    with torch.no_grad():
        losses = loss_of(head)
    assert not losses[0].requires_grad and not losses[1].requires_grad
    frozen = Head(
        [c.detach() for c in head.cls_logits], head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels
    )
    sum(loss_of(frozen)).backward()
    assert frozen.bbox_regression[0].grad.abs().sum() > 0 and frozen.cls_logits[0].grad is None


def test_float16_with_a_loss_scaler(device: str) -> None:
    """Gradients under the smallest float16 are there once the loss is scaled, as if scaled in float64."""
    head = random_head([(8, 8)], [2], dtype=torch.float16, device=device)
    with torch.no_grad():
        head.cls_logits[0].sub_(8)
    exact = [level.detach().double().requires_grad_() for level in head.outputs]
    scaled, expected = (
        torch.autograd.grad(
            loss_of(Head(levels[:1], levels[1:], anchors, boxes, head.gt_labels))[0] * 65536, levels[0]
        )[0]
        for levels, anchors, boxes in (
            (head.outputs, head.anchors, head.gt_boxes),
            (exact, head.anchors.double(), [boxes.double() for boxes in head.gt_boxes]),
        )
    )
    lost_unscaled = (expected != 0) & (expected.abs() / 65536 < 2**-25)
    assert lost_unscaled.any()
    torch.testing.assert_close(scaled[lost_unscaled].double(), expected[lost_unscaled], rtol=2e-3, atol=2**-24)


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


# --- memory and determinism -------------------------------------------------------------------------------------------


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
        ({"box_weights": (1, 1)}, "box_weights must be four numbers"),
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
