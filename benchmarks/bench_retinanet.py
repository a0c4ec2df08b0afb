"""The RetinaNet loss from the maps of the head, and where the time of a whole training step goes.

A step is that of one torchvision model, as it is and patched. Its phases are timed one by one: backbone, FPN and head
with their backward; matching, loss and the gradients of the maps; the transform and the optimizer.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from cases import head_maps, image_anchors, objects
from harness import CudaClock, assert_close, measure, synchronize
from models.composed import composed_losses
from torch import Tensor, nn
from torchvision.models.detection import retinanet as torchvision_retinanet

from retina_ops import patch_torchvision, retinanet_loss
from retina_ops.anchor_cache import AnchorCache
from retina_ops.models import LossOptions
from retina_ops.reference.head_outputs import by_anchor

IMAGE, CLASSES = (800, 1088), 91
STEP_IMAGE = {"cpu": (256, 320), "cuda": (800, 1088)}
PHASES = ("backbone, FPN, head", "loss and matching", "rest")
Maps = dict[str, list[Tensor]]


# --- the loss ---------------------------------------------------------------------------------------------------------


def stock_model(image: tuple[int, int], classes: int) -> Any:
    """torchvision's RetinaNet with a ResNet-18, in training mode."""
    torch.manual_seed(0)
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256),
    )
    height, width = image
    return torchvision_retinanet.RetinaNet(backbone, classes, min_size=height, max_size=width).train()


def torchvision_rows(maps: Maps) -> dict[str, Tensor]:
    """What the end of torchvision's head does to the maps: permute and cat."""
    logits, deltas = by_anchor(maps["cls_logits"], maps["bbox_regression"])
    return {"cls_logits": torch.cat(logits, dim=1), "bbox_regression": torch.cat(deltas, dim=1)}


def fused(maps: Maps, anchors: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    boxes, labels = [target["boxes"] for target in targets], [target["labels"] for target in targets]
    losses = retinanet_loss(maps["cls_logits"], maps["bbox_regression"], anchors, boxes, labels)
    return {"classification": losses[0], "bbox_regression": losses[1]}


def composed(maps: Maps, anchors: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return composed_losses(maps, anchors, targets, LossOptions())


LOSSES = ("retina_ops", "retina_ops_composed", "torchvision")
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("row", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def bench_loss(benchmark, device: str, layout: str, dtype: torch.dtype, row: str, full: bool) -> None:
    if (layout, dtype) != ("nchw", torch.float32) and not full:
        pytest.skip("--full")
    batch = 2 if device == "cpu" else 8
    logits, deltas = (
        [level.to(dtype).to(memory_format=LAYOUTS[layout]) for level in levels]
        for levels in head_maps(batch, CLASSES, IMAGE, device)
    )
    maps = {"cls_logits": logits, "bbox_regression": deltas}
    leaves = [level.requires_grad_() for level in (*logits, *deltas)]
    targets, anchors = objects(batch, IMAGE, CLASSES, device), image_anchors(*IMAGE, device)
    stock = stock_model(IMAGE, CLASSES).to(device)

    def of_torchvision(maps: Maps, anchors: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = stock.compute_loss(targets, torchvision_rows(maps), [anchors] * batch)
        return losses

    function = {"retina_ops": fused, "retina_ops_composed": composed, "torchvision": of_torchvision}[row]

    def gradients_of(function: Callable[..., dict[str, Tensor]]) -> tuple[dict[str, Tensor], list[Tensor]]:
        losses = function(maps, anchors, targets)
        (losses["classification"] + losses["bbox_regression"]).backward()
        grads = [leaf.grad for leaf in leaves]
        for leaf in leaves:
            leaf.grad = None  # none is held when the next call begins: its own count in its peak
        return losses, grads

    def verify() -> None:
        (losses, grads), (expected, wanted) = gradients_of(function), gradients_of(of_torchvision)
        within = 1e-4 if dtype == torch.float32 else 0.05  # torchvision's arithmetic is in bfloat16
        for name in expected:
            assert_close(losses[name], expected[name], within)
        for mine, theirs in zip(grads, wanted, strict=True):
            assert float((mine - theirs).abs().max()) <= within * float(theirs.abs().max())

    variant = "" if (layout, dtype) == ("nchw", torch.float32) else f", {layout}, {str(dtype).removeprefix('torch.')}"
    benchmark.group = (
        f"RetinaNet loss forward + backward, {batch} x {IMAGE[0]} x {IMAGE[1]}, {CLASSES} classes{variant}, {device}"
    )
    gradients = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    measure(
        benchmark,
        device,
        lambda: gradients_of(function),
        operator=f"RetinaNet loss{variant}",
        size=sum(level.numel() for level in logits),
        moved=2 * gradients,
        tensor_bytes=gradients,
        verify=verify,
    )
    if "peak_bytes" in benchmark.extra_info:
        beyond = benchmark.extra_info["peak_bytes"] - gradients
        benchmark.extra_info["peak_beyond_gradients_per_anchor_and_image"] = beyond / (len(anchors) * batch)


# --- a whole step -----------------------------------------------------------------------------------------------------


class StepTimer:
    """A training step in its phases; the maps of the head are cut off, so that each backward is timed by itself."""

    def __init__(self, model: Any, images: list[Tensor], targets: list[dict[str, Tensor]], device: str) -> None:
        self.model, self.images, self.targets, self.device = model, images, targets, device
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        self.is_fused = type(model) is not torchvision_retinanet.RetinaNet
        self.anchors = AnchorCache()
        self.clock: Callable[[], float] = CudaClock() if device == "cuda" else time.perf_counter

    def whole_step(self) -> None:
        losses = self.model(self.images, copy.deepcopy(self.targets))
        sum(losses.values()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        synchronize(self.device)

    def step(self) -> dict[str, float]:
        """Seconds of each phase."""
        synchronize(self.device)
        marks = [self.clock()]

        def mark() -> None:
            synchronize(self.device)
            marks.append(self.clock())

        batch, targets = self.model.transform(self.images, copy.deepcopy(self.targets))
        mark()
        features = list(self.model.backbone(batch.tensors).values())
        head = self.model.head
        maps = {
            name: [getattr(subnet, predictor)(subnet.conv(level)) for level in features]
            for name, subnet, predictor in (
                ("cls_logits", head.classification_head, "cls_logits"),
                ("bbox_regression", head.regression_head, "bbox_reg"),
            )
        }
        mark()
        cut = {name: [level.detach().requires_grad_() for level in levels] for name, levels in maps.items()}
        if self.is_fused:
            size = tuple(batch.tensors.shape[-2:])
            losses = fused(cut, self.anchors.get(self.model.anchor_generator, size, features), targets)
        else:
            anchors = self.model.anchor_generator(batch, features)
            losses = self.model.compute_loss(targets, torchvision_rows(cut), anchors)
        sum(losses.values()).backward()
        mark()
        levels = [level for its in maps.values() for level in its]
        torch.autograd.backward(levels, [level.grad for its in cut.values() for level in its])
        mark()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        mark()
        transform, forward, loss, backward, update = (b - a for a, b in pairwise(marks))
        return dict(zip(PHASES, (forward + backward, loss, transform + update), strict=True))


@cache
def both_steps(device: str) -> dict[str, StepTimer]:
    """torchvision's model as it is and patched, from one state; their losses agree."""
    image, batch = STEP_IMAGE[device], 2 if device == "cpu" else 8
    images = [torch.rand(3, *image, device=device) for _ in range(batch)]
    targets = objects(batch, image, CLASSES, device, largest=image[0] // 2)
    stock = stock_model(image, CLASSES).to(device)
    patched = copy.deepcopy(stock)
    assert not patch_torchvision(patched).left
    got, expected = (copy.deepcopy(model)(images, targets) for model in (patched, stock))
    for name in expected:
        assert_close(got[name], expected[name], 1e-4)
    return {
        "retina_ops": StepTimer(patched, images, targets, device),
        "torchvision": StepTimer(stock, images, targets, device),
    }


@cache
def phases(device: str, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each phase of both models, which take turns: what drifts, drifts for both."""
    both = both_steps(device)
    steps = [{row: timer.step() for row, timer in both.items()} for _ in range(rounds)]
    return {
        row: {phase: 1e3 * statistics.median(step[row][phase] for step in steps) for phase in PHASES} for row in both
    }


@pytest.mark.parametrize("row", ["retina_ops", "torchvision"])
def bench_training_step(benchmark, device: str, row: str) -> None:
    """ResNet-18, 91 classes, SGD."""
    timer = both_steps(device)[row]
    height, width = STEP_IMAGE[device]
    benchmark.group = f"training step, ResNet-18, {len(timer.images)} x {height} x {width}, {CLASSES} classes, {device}"
    rounds = 3 if device == "cpu" else 30
    benchmark.pedantic(timer.whole_step, rounds=rounds, warmup_rounds=1)
    benchmark.extra_info["phases_ms"] = phases(device, rounds if benchmark.stats is not None else 1)[row]
    benchmark.extra_info["device"] = (
        torch.cuda.get_device_name() if device == "cuda" else f"cpu x {torch.get_num_threads()}"
    )
