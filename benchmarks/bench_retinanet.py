"""The RetinaNet loss from the maps of the head: ours, composed of our operators, torchvision's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import Maps, fused_losses, head_maps, image_anchors, objects, stock_retinanet, torchvision_rows
from harness import assert_close, measure
from models.composed import composed_losses
from torch import Tensor

from retina_ops.models import LossOptions

IMAGE, CLASSES = (800, 1088), 91


def composed(maps: Maps, anchors: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return composed_losses(maps, anchors, targets, LossOptions())


LOSSES = ("retina_ops", "retina_ops_composed", "torchvision")
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("row", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def bench_loss(benchmark, device: str, layout: str, dtype: torch.dtype, row: str, full: bool) -> None:
    if (layout, dtype) != ("nchw", torch.float32) and not (full or device == "cuda"):
        pytest.skip("--full")
    batch = 2 if device == "cpu" else 8
    logits, deltas = (
        [level.to(dtype).to(memory_format=LAYOUTS[layout]) for level in levels]
        for levels in head_maps(batch, CLASSES, IMAGE, device)
    )
    maps = {"cls_logits": logits, "bbox_regression": deltas}
    leaves = [level.requires_grad_() for level in (*logits, *deltas)]
    targets, anchors = objects(batch, IMAGE, CLASSES, device), image_anchors(*IMAGE, device)
    stock = stock_retinanet("resnet18", IMAGE, CLASSES).to(device)

    def of_torchvision(maps: Maps, anchors: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = stock.compute_loss(targets, torchvision_rows(maps), [anchors] * batch)
        return losses

    function = {"retina_ops": fused_losses, "retina_ops_composed": composed, "torchvision": of_torchvision}[row]

    def gradients_of(function: Callable[..., dict[str, Tensor]], maps: Maps) -> tuple[dict[str, Tensor], list[Tensor]]:
        leaves = [level for levels in maps.values() for level in levels]
        losses = function(maps, anchors, targets)
        (losses["classification"] + losses["bbox_regression"]).backward()
        grads = [leaf.grad for leaf in leaves]
        for leaf in leaves:
            leaf.grad = None  # none is held when the next call begins: its own count in its peak
        return losses, grads

    def verify() -> None:
        """Against torchvision in float32: in bfloat16 its own arithmetic is off by several percent."""
        exact = {name: [level.detach().float().requires_grad_() for level in levels] for name, levels in maps.items()}
        (losses, grads), (expected, wanted) = gradients_of(function, maps), gradients_of(of_torchvision, exact)
        within = 1e-4 if dtype == torch.float32 else 0.1 if row == "torchvision" else 0.01
        for name in expected:
            assert_close(losses[name], expected[name], within)
        for mine, theirs in zip(grads, wanted, strict=True):
            assert float((mine.float() - theirs).abs().max()) <= within * float(theirs.abs().max())

    variant = "" if (layout, dtype) == ("nchw", torch.float32) else f", {layout}, {str(dtype).removeprefix('torch.')}"
    benchmark.group = (
        f"RetinaNet loss forward + backward, {batch} x {IMAGE[0]} x {IMAGE[1]}, {CLASSES} classes{variant}, {device}"
    )
    gradients = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    measure(
        benchmark,
        device,
        lambda: gradients_of(function, maps),
        operator=f"RetinaNet loss{variant}",
        size=sum(level.numel() for level in logits),
        moved=2 * gradients,
        tensor_bytes=gradients,
        verify=verify,
    )
    if "peak_bytes" in benchmark.extra_info:
        beyond = benchmark.extra_info["peak_bytes"] - gradients
        benchmark.extra_info["peak_beyond_gradients_per_anchor_and_image"] = beyond / (len(anchors) * batch)
