"""torchvision's Faster R-CNN, trained on the same data, backbone, optimizer and number of updates as a RetinaNet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data.loading import detection_loader
from ..errors import needs_extra
from ..evaluation.inference import detect_dataset
from ..files import write_json
from ..models.anchors import DEFAULT_SCALES
from ..models.backbones import small_fpn
from ..models.config import ModelConfig
from ..training import TrainConfig
from ..training.datasets import RunDatasets, open_run_datasets, training_batches
from ..training.distributed import World, joined_world
from ..training.ema import averaged_model
from ..training.log import METRICS, RunLog
from ..training.optimizer import build_optimizer
from ..training.schedule import lr_factor

with needs_extra("train"):
    import torch
    from torch import Tensor, nn
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.rpn import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

LOG_EVERY = 20


class FasterRcnn(nn.Module):
    """`FasterRCNN` with labels 0..K-1, as the data sets and the evaluation of this package have them.

    The regions are proposed on P3 to P7 with the anchors of the RetinaNet, and pooled from P3 to P5, so that both
    detectors have the same backbone and see objects at the same scales.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        backbone = small_fpn(channels=config.fpn_channels, norm=config.norm or "group")
        scales = config.anchor_scales or DEFAULT_SCALES
        sizes = tuple(tuple(int(side * scale) for scale in scales) for side in config.base_sizes)
        self.detector = FasterRCNN(
            backbone,
            num_classes + 1,  # 0 is the background
            min_size=config.min_size,
            max_size=config.max_size,
            rpn_anchor_generator=AnchorGenerator(sizes, (tuple(config.aspect_ratios),) * len(sizes)),
            box_roi_pool=MultiScaleRoIAlign(featmap_names=["0", "1", "2"], output_size=7, sampling_ratio=2),
            box_score_thresh=config.score_thresh,
            box_nms_thresh=config.nms_thresh,
            box_detections_per_img=config.detections_per_img,
        )

    def forward(self, images: list[Tensor], targets: Sequence[dict[str, Any]] | None = None) -> Any:
        images = [image.float() / 255 if not image.is_floating_point() else image for image in images]
        if self.training:
            assert targets is not None
            moved = [{"boxes": target["boxes"], "labels": target["labels"] + 1} for target in targets]
            return self.detector(images, moved)
        return [{**found, "labels": found["labels"] - 1} for found in self.detector(images)]


def train_faster_rcnn(config: TrainConfig, output: Path) -> dict[str, Any]:
    """Trains until ``max_steps``, validates as often as a RetinaNet would, and evaluates the best average weights.

    The architecture and the loss of ``config.model`` are not used. An interrupted run starts over.

    Returns:
        What `retina_ops.training.train` returns. It writes ``metrics.jsonl`` and ``metrics.json``.
    """
    config.check()
    output.mkdir(parents=True, exist_ok=True)
    (output / METRICS).unlink(missing_ok=True)
    with joined_world(config.device) as world:
        datasets = open_run_datasets(config.data)
        log = RunLog(output, is_main=world.is_main)
        result = _train(config, datasets, world, log)
    write_json(output / "metrics.json", result, indent=2)
    return result


def _train(config: TrainConfig, datasets: RunDatasets, world: World, log: RunLog) -> dict[str, Any]:
    assert datasets.val is not None and datasets.test is not None and config.max_steps
    torch.manual_seed(config.seed)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model = FasterRcnn(config.model, len(datasets.categories)).to(world.device).to(memory_format=layout).train()
    optimizer, average = build_optimizer(model, config.optimizer), averaged_model(model, config.ema_decay)
    best, best_state = -1.0, average.module.state_dict()
    started, seconds, images_seen = time.monotonic(), 0.0, 0
    for step, (epoch, images, targets) in enumerate(_batches(config, datasets, world, log)):
        began = time.monotonic()
        rate = config.optimizer.lr * lr_factor(config.schedule, step, step / config.max_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses: dict[str, Tensor] = model(images, targets)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        if config.optimizer.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        average.update_parameters(model)
        seconds, images_seen = seconds + time.monotonic() - began, images_seen + len(images)
        done = step + 1
        if done % LOG_EVERY == 0 or done == config.max_steps:
            speed = round(images_seen / seconds, 2)
            log.record("train", done, loss=total.item(), lr=rate, images_per_second=speed)
        is_epoch_end = epoch.is_last_batch and epoch.number % max(1, config.validate_every) == 0
        if is_epoch_end or done == config.max_steps:
            metrics = detect_dataset(average.module, datasets.val, batch_size=config.batch_size).compute()
            log.record("val", done, AP=metrics["AP"], AP50=metrics["AP50"], AP75=metrics["AP75"])
            if (metrics["AP"] or 0.0) > best:
                best = metrics["AP"] or 0.0
                best_state = {name: value.clone() for name, value in average.module.state_dict().items()}
        if done == config.max_steps:
            break
    average.module.load_state_dict(best_state)
    result: dict[str, Any] = {"split": "test"}
    result |= detect_dataset(average.module, datasets.test, batch_size=config.batch_size).compute()
    return result | {"minutes": round((time.monotonic() - started) / 60, 2), "steps": config.max_steps}


class _Epoch:
    """Where a batch is: ``number`` counts from 1."""

    def __init__(self, number: int, is_last_batch: bool) -> None:
        self.number, self.is_last_batch = number, is_last_batch


def _batches(
    config: TrainConfig, datasets: RunDatasets, world: World, log: RunLog
) -> Iterator[tuple[_Epoch, list[Tensor], list[dict[str, Any]]]]:
    augmented, sampler = training_batches(datasets.train, config, world, log)
    loader = detection_loader(augmented, sampler, workers=config.data.workers)
    for number in range(config.epochs):
        sampler.set_epoch(number, 0)
        augmented.set_epoch(number)
        for index, (images, targets) in enumerate(loader, start=1):
            moved = [
                {key: value.to(world.device) if isinstance(value, Tensor) else value for key, value in target.items()}
                for target in targets
            ]
            yield _Epoch(number + 1, index == len(sampler)), [image.to(world.device) for image in images], moved
