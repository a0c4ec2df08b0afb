"""Where the time of a training step goes, of one torchvision model as it is and patched.

Its phases are timed one by one: backbone, FPN and head with their backward; matching, loss and the gradients of the
maps; the transform and the optimizer.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from cases import fused_losses, objects, stock_retinanet, torchvision_rows
from harness import assert_close, cuda_clock, peak_memory, synchronize
from torch import Tensor
from torchvision.models.detection import retinanet as torchvision_retinanet

from retina_ops import patch_torchvision
from retina_ops.anchor_cache import AnchorCache

CLASSES = 91
PHASES = ("backbone, FPN, head", "loss and matching", "rest")


@dataclass(frozen=True)
class Case:
    """A step: the backbone's name, (batch, height, width) by device, and the precision and layout of both models."""

    network: str
    images: dict[str, tuple[int, int, int]]
    dtype: torch.dtype = torch.float32
    layout: torch.memory_format = torch.contiguous_format

    def group(self, device: str) -> str:
        batch, height, width = self.images[device]
        variant = "" if self.dtype == torch.float32 else ", bfloat16 autocast, channels-last"
        network = self.network.replace("resnet", "ResNet-")
        return f"training step, {network}{variant}, {batch} x {height} x {width}, {CLASSES} classes, {device}"


CASES = {
    "resnet18": Case("resnet18", {"cpu": (2, 256, 320), "cuda": (8, 800, 1088)}),
    "resnet50_bfloat16": Case(
        "resnet50", {"cpu": (1, 128, 160), "cuda": (8, 800, 1333)}, torch.bfloat16, torch.channels_last
    ),
}


class StepTimer:
    """A training step in its phases; the maps of the head are cut off, so that each backward is timed by itself."""

    def __init__(
        self, case: Case, model: Any, images: list[Tensor], targets: list[dict[str, Tensor]], device: str
    ) -> None:
        self.case, self.model, self.images, self.targets, self.device = case, model, images, targets, device
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        self.is_fused = type(model) is not torchvision_retinanet.RetinaNet
        self.anchors = AnchorCache()
        self.clock: Callable[[], Any] = cuda_clock if device == "cuda" else time.perf_counter

    def precision(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.case.dtype == torch.bfloat16)

    def losses(self) -> dict[str, Tensor]:
        with self.precision():
            losses: dict[str, Tensor] = self.model(self.images, copy.deepcopy(self.targets))
        return losses

    def whole_step(self) -> None:
        sum(self.losses().values()).backward()  # type: ignore[union-attr]
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
        head = self.model.head
        with self.precision():
            features = list(self.model.backbone(batch.tensors).values())
            maps = {
                name: [getattr(subnet, predictor)(subnet.conv(level)) for level in features]
                for name, subnet, predictor in (
                    ("cls_logits", head.classification_head, "cls_logits"),
                    ("bbox_regression", head.regression_head, "bbox_reg"),
                )
            }
        mark()
        cut = {name: [level.detach().requires_grad_() for level in levels] for name, levels in maps.items()}
        with self.precision():
            if self.is_fused:
                size = tuple(batch.tensors.shape[-2:])
                losses = fused_losses(cut, self.anchors.get(self.model.anchor_generator, size, features), targets)
            else:
                anchors = self.model.anchor_generator(batch, features)
                losses = self.model.compute_loss(targets, torchvision_rows(cut), anchors)
        sum(losses.values()).backward()  # type: ignore[union-attr]
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
def both_steps(name: str, device: str) -> dict[str, StepTimer]:
    """torchvision's model as it is and patched, from one state; their losses agree."""
    case = CASES[name]
    batch, *image = case.images[device]
    images = [torch.rand(3, *image, device=device) for _ in range(batch)]
    targets = objects(batch, (image[0], image[1]), CLASSES, device, largest=image[0] // 2)
    stock = stock_retinanet(case.network, (image[0], image[1]), CLASSES).to(device, memory_format=case.layout)
    patched = copy.deepcopy(stock)
    assert not patch_torchvision(patched).left
    models = {"retina_ops": patched, "torchvision": stock}
    got, expected = (
        StepTimer(case, copy.deepcopy(model), images, targets, device).losses() for model in models.values()
    )
    for loss in expected:
        assert_close(got[loss], expected[loss], 1e-4 if case.dtype == torch.float32 else 0.05)
    return {row: StepTimer(case, model, images, targets, device) for row, model in models.items()}


@cache
def phases(name: str, device: str, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each phase of both models, which take turns: what drifts, drifts for both."""
    both = both_steps(name, device)
    steps = [{row: timer.step() for row, timer in both.items()} for _ in range(rounds)]
    return {
        row: {phase: 1e3 * statistics.median(step[row][phase] for step in steps) for phase in PHASES} for row in both
    }


@pytest.mark.parametrize("row", ["retina_ops", "torchvision"])
@pytest.mark.parametrize("case", CASES)
def bench_training_step(benchmark, device: str, case: str, row: str) -> None:
    """91 classes, SGD with momentum."""
    timer = both_steps(case, device)[row]
    benchmark.group = CASES[case].group(device)
    rounds = 3 if device == "cpu" else 10
    benchmark.pedantic(timer.whole_step, rounds=rounds, warmup_rounds=1)
    is_timed = benchmark.stats is not None
    benchmark.extra_info["phases_ms"] = phases(case, device, rounds if is_timed else 1)[row]
    benchmark.extra_info["device"] = (
        torch.cuda.get_device_name() if device == "cuda" else f"cpu x {torch.get_num_threads()}"
    )
    if is_timed and (peak := peak_memory(device, timer.whole_step)) is not None:
        benchmark.extra_info["peak_bytes"] = peak
