"""The training loop in plain PyTorch, on one or several processes, limited by epochs, minutes or patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data.loading import detection_loader
from ..errors import needs_extra
from ..evaluation.inference import detect_dataset
from ..models.architectures import build_model
from ..models.backbones import freeze_stages
from ..models.retinanet import RetinaNet
from ..models.weights import save_model, transfer_weights
from .batches import Batches, check_resumable
from .checkpoint import load_checkpoint, save_checkpoint
from .config import TrainConfig
from .datasets import RunDatasets, training_batches
from .distributed import World
from .ema import averaged_model
from .log import RunLog
from .meter import LossMeter
from .optimizer import build_optimizer
from .precision import autocast, resolve_precision
from .progress import ProgressBar
from .schedule import lr_factor

with needs_extra("train"):
    import torch
    from torch import Tensor
    from torch.nn.parallel import DistributedDataParallel

BEST = "best"
SNAPSHOTS = "snapshots"
LOG_EVERY = 20  # updates between lines of metrics.jsonl


class TrainingError(RuntimeError):
    """Training cannot continue. The message is one line."""


class Trainer:
    """A run: its model, its optimizer and its position. `run` trains until a limit is reached.

    Args:
        config: see `TrainConfig`.
        datasets: the data sets to train and validate on.
        output: folder of the run.
        world: this process, and how many there are.
        log: log of the run.
        resume: continue from the checkpoint in ``output``.
        started: `time.monotonic` at the start of the run; ``max_minutes`` counts from here.
    """

    def __init__(
        self,
        config: TrainConfig,
        datasets: RunDatasets,
        output: Path,
        world: World,
        log: RunLog,
        *,
        resume: bool,
        started: float,
    ) -> None:
        self.config, self.datasets, self.output, self.world, self.log = config, datasets, output, world, log
        torch.manual_seed(config.seed)
        self.model = self._build_model()
        self.precision = resolve_precision(config.precision, world.device)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.precision == "fp16")
        self.ema = averaged_model(self.model, config.ema_decay) if config.ema_decay else None
        self.step = 0  # number of updates done
        self.epoch = self.batch = 0  # position of the next batch
        self.best = -1.0  # highest validation AP
        self.waited = 0  # number of validations since the best one
        self.validated = -1  # step of the last validation
        self.validation_seconds = self.images_per_second = 0.0
        self.started = started
        if resume:
            self._restore(load_checkpoint(output))
        self.augmented, self.sampler = training_batches(datasets.train, config, world, log)
        self.parallel: torch.nn.Module = self.model
        if world.size > 1:
            on_gpu = world.device.type == "cuda"
            self.parallel = DistributedDataParallel(self.model, device_ids=[world.device] if on_gpu else None)

    @property
    def minutes(self) -> float:
        """Minutes since the start of the run. The time between an interruption and the resumption does not count."""
        return (time.monotonic() - self.started) / 60

    @property
    def total_steps(self) -> int:
        """Updates of the whole run, unless time or patience ends it."""
        total = max(1, self.config.epochs * -(-len(self.sampler) // self.config.optimizer.accumulate))
        return min(total, self.config.max_steps or total)

    @property
    def epochs_done(self) -> float:
        return self.epoch + self.batch / len(self.sampler)

    def run(self) -> None:
        """Trains and validates. It writes the best weights to ``best`` and the state to ``last.pt``."""
        config = self.config
        loader = detection_loader(
            self.augmented, self.sampler, workers=config.data.workers, pin_memory=self.world.device.type == "cuda"
        )
        while self.epoch < config.epochs and not self._is_over():
            with self.log.progress(f"epoch {self.epoch + 1}/{config.epochs}", len(self.sampler)) as bar:
                self._train_epoch(loader, bar)
            is_complete = self.batch == 0
            if is_complete and config.validate_every and self.epoch % config.validate_every == 0:
                self._validate()
            self.save()
        if self.validated != self.step:
            self._validate()
            self.save()

    def save(self) -> None:
        """Writes ``last.pt``."""
        if not self.world.is_main:
            return
        save_checkpoint(
            self.output,
            {
                "model": self.model.state_dict(),
                "ema": self.ema.state_dict() if self.ema is not None else None,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "position": {name: getattr(self, name) for name in _POSITION},
                "seconds": time.monotonic() - self.started,
                "categories": self.model.categories,
                "batches": asdict(self._batches()),
            },
        )

    def _build_model(self) -> RetinaNet:
        config = self.config
        model = build_model(config.model, self.datasets.categories, pretrained=not config.weights)
        if config.weights:
            self.log.say(f"{config.weights}: {transfer_weights(model, config.weights)}")
        if config.freeze:
            freeze_stages(model.backbone.body, 5 - config.freeze)  # type: ignore[arg-type]
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        return model.to(memory_format=layout).to(self.world.device).train()

    def _batches(self) -> Batches:
        return Batches(self.config.batch_size, self.world.size, self.config.optimizer.accumulate)

    def _restore(self, state: dict[str, Any]) -> None:
        if "batches" in state:  # checkpoints before version 0.1 have none
            check_resumable(Batches(**state["batches"]), self._batches(), in_epoch=state["position"]["batch"] > 0)
        if state["categories"] != self.model.categories:
            raise ValueError("the run to resume has other categories than the data set")
        if (state["ema"] is None) != (self.ema is None):
            raise ValueError("ema_decay cannot be switched on or off when a run is resumed")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(f"the run to resume has another model or optimizer: {reason}") from None
        for name in _POSITION:
            setattr(self, name, state["position"][name])
        self.started = time.monotonic() - state["seconds"]

    def _progress(self) -> float:
        """Fraction of the run that is done. The main process decides it, so that all processes end together."""
        done = self.step / self.total_steps
        if self.config.max_minutes:
            budget = self.config.max_minutes * 60 - self._reserve()
            done = max(done, (time.monotonic() - self.started) / budget if budget > 0 else 1.0)
        return self.world.share(done)

    def _reserve(self) -> float:
        """Estimated seconds for the last validation and for saving."""
        if self.datasets.val is None:
            return 2.0
        estimate = 0.6 * len(self.datasets.val) / self.images_per_second if self.images_per_second else 0.0
        return 2.0 + 1.1 * (self.validation_seconds or estimate)

    def _is_over(self) -> bool:
        patience = self.config.patience
        return self._progress() >= 1 or bool(patience and self.waited >= patience)

    def _train_epoch(self, loader: Any, bar: ProgressBar) -> None:
        """Trains from the current position to the end of the epoch or of the allowed time."""
        self.sampler.set_epoch(self.epoch, self.batch)
        self.augmented.set_epoch(self.epoch)
        self.parallel.train()
        accumulate, last = self.config.optimizer.accumulate, len(self.sampler) - 1
        meter, saved_at = LossMeter(), time.monotonic()
        for images, targets in loader:
            is_update = self.batch % accumulate == accumulate - 1 or self.batch == last
            meter.add(self._backward(images, targets, is_update))
            self.batch += 1
            if not is_update:
                continue
            progress = self._progress()
            rate = self._update(progress)
            self._keep_snapshot()
            if self.step % LOG_EVERY == 0 or self.batch > last:
                bar(self.batch, detail=f"loss {self._log_losses(meter, rate):.3f}")
                meter = LossMeter()
            if self.batch <= last and (progress >= 1 or self.step >= self.total_steps):
                return
            save_seconds = self.config.save_minutes * 60
            if save_seconds and self.world.share(time.monotonic() - saved_at) > save_seconds and self.batch <= last:
                self.save()
                saved_at = time.monotonic()
        self.epoch, self.batch = self.epoch + 1, 0

    def _backward(self, images: list[Tensor], targets: list[dict[str, Any]], is_update: bool) -> dict[str, Tensor]:
        device = self.world.device
        images = [image.to(device, non_blocking=True) for image in images]
        targets = [_to_device(target, device) for target in targets]
        is_local = isinstance(self.parallel, DistributedDataParallel) and not is_update
        with self.parallel.no_sync() if is_local else nullcontext():  # type: ignore[operator]
            with autocast(self.precision, device):
                losses: dict[str, Tensor] = self.parallel(images, targets)
            total = torch.stack(list(losses.values())).sum() / self.config.optimizer.accumulate
            self.scaler.scale(total).backward()
        return losses

    def _update(self, progress: float) -> float:
        """Makes a step of the optimizer. Returns the learning rate."""
        rate = self.config.optimizer.lr * lr_factor(self.config.schedule, self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.config.optimizer.clip_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.step += 1
        return rate

    def _log_losses(self, meter: LossMeter, rate: float) -> float:
        """Writes a line of ``metrics.jsonl``. Returns the sum of the mean losses."""
        means = self.world.mean(meter.means())
        for name, value in means.items():
            if not abs(value) < float("inf"):
                raise TrainingError(
                    f"the {name} loss is {value} at step {self.step} in epoch {self.epoch + 1}: decrease optimizer.lr, "
                    "increase schedule.warmup_steps, or use --precision fp32"
                )
        self.images_per_second = meter.batches_per_second() * self.config.batch_size
        self.log.record(
            "train",
            self.step,
            epoch=round(self.epochs_done, 4),
            **means,
            loss=sum(means.values()),
            lr=rate,
            images_per_second=round(self.images_per_second * self.world.size, 2),
            minutes=round(self.minutes, 3),
        )
        return sum(means.values())

    def _keep_snapshot(self) -> None:
        """Writes the weights, or their average, to ``snapshots/step-N`` where a snapshot is due."""
        count, total = self.config.snapshots, self.total_steps
        if self.world.is_main and count and self.step * count // total > (self.step - 1) * count // total:
            candidate = self.model if self.ema is None else self.ema.module
            folder = self.output / SNAPSHOTS / f"step-{self.step}"
            save_model(candidate, folder, {"training": {"step": self.step, "epoch": self.epoch}})  # type: ignore[arg-type]

    def _validate(self) -> None:
        """Evaluates the weights, or their average, and writes them to ``best`` if their AP is the highest so far."""
        began = time.monotonic()
        candidate = self.model if self.ema is None else self.ema.module
        self.validated = self.step
        metrics: dict[str, Any] = {}
        if self.datasets.val is not None:
            with self.log.progress("validation", len(self.datasets.val)) as progress:
                metrics = self._metrics(candidate, progress)
        ap = metrics.get("AP") or 0.0
        is_best = ap > self.best or self.datasets.val is None
        self.waited = 0 if is_best else self.waited + 1
        if is_best:
            self.best = ap
            if self.world.is_main:
                chosen = {"step": self.step, "epoch": self.epoch, "validation": {k: metrics.get(k) for k in _SHOWN}}
                save_model(candidate, self.output / BEST, {"training": chosen})  # type: ignore[arg-type]
        self.validation_seconds = time.monotonic() - began
        if metrics:
            numbers = {key: value for key, value in metrics.items() if not isinstance(value, dict)}
            numbers |= {"epoch": round(self.epochs_done, 4), "minutes": round(self.minutes, 3)}
            self.log.record("val", self.step, **numbers)
            shown = "  ".join(f"{name} {metrics[name] or 0.0:.3f}" for name in _SHOWN)
            mark = "  best" if is_best else ""
            self.log.say(f"epoch {self.epoch}  step {self.step}  {shown}  {self.minutes:.1f} min{mark}")

    def _metrics(self, candidate: Any, progress: Callable[[int, int], None]) -> dict[str, Any]:
        assert self.datasets.val is not None
        return detect_dataset(
            candidate,
            self.datasets.val,
            batch_size=self.config.batch_size,
            rank=self.world.rank,
            world_size=self.world.size,
            context=lambda: autocast(self.precision, self.world.device),
            progress=progress,
        ).compute()


def _to_device(target: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in target.items()}


_POSITION = ("step", "epoch", "batch", "best", "waited", "validated", "validation_seconds")
_SHOWN = ("AP", "AP50", "AP75")
