"""The training loop in plain PyTorch, on one or several processes, limited by epochs, minutes or patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

from ..data.loading import detection_loader
from ..errors import needs_extra
from ..evaluation.inference import detect_dataset
from ..files import write_text
from ..models.architectures import build_model
from ..models.backbones import freeze_stages
from ..models.retinanet import RetinaNet
from ..models.weights import save_model, transfer_weights
from ..settings import to_plain, to_toml
from .batches import Batches
from .checkpoint import CHECKPOINT, Position, load_checkpoint, save_checkpoint
from .config import TrainConfig
from .datasets import RunDatasets, training_batches
from .distributed import World
from .ema import averaged_model
from .log import RunLog
from .meter import LossMeter
from .optimizer import build_optimizer
from .precision import autocast, resolve_precision
from .progress import ProgressBar
from .resuming import BEST, CONFIG, restore
from .schedule import lr_factor
from .stopping import StopRequested, StopSignals, end_process, ignored_signals

with needs_extra("train"):
    import torch
    from torch import Tensor
    from torch.nn.parallel import DistributedDataParallel

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
        self.stop = StopSignals()
        self._said_warmup = False
        self._agreed_stop = 0  # the signal that some process received
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
        """Trains and validates. It writes the best weights to ``best`` and the state to ``last.pt``.

        Raises:
            KeyboardInterrupt: after SIGINT, SystemExit with status 143 after SIGTERM. The state is saved before.
            OSError: a file cannot be written. The last checkpoint is as it was.
        """
        try:
            with self.stop:
                self._train_and_validate()
        except StopRequested as request:
            self.end(request.number)

    def end(self, number: int) -> NoReturn:
        """Saves the state after a signal, says so, and ends the process as the signal would."""
        with ignored_signals():
            self.save()
            message = f"stopped at step {self.step}: {self.output / CHECKPOINT} is saved, --resume continues"
            self.log.say(message)
        end_process(number, message)

    def _train_and_validate(self) -> None:
        config = self.config
        loader = detection_loader(
            self.augmented, self.sampler, workers=config.data.workers, pin_memory=self.world.device.type == "cuda"
        )
        while True:
            if self._is_validation_due():
                self._validate()
                self.save()
            if self.epoch >= config.epochs or self._is_over():
                break
            with self.log.progress(f"epoch {self.epoch + 1}/{config.epochs}", len(self.sampler)) as bar:
                self._train_epoch(loader, bar)
            if not self._is_validation_due():
                self.save()
        if self.validated != self.step:
            self._validate()
            self.save()

    def _is_validation_due(self) -> bool:
        every = self.config.validate_every
        is_complete = self.batch == 0 and self.epoch > 0
        return is_complete and every > 0 and self.epoch % every == 0 and self.validated != self.step

    def save(self) -> None:
        """Writes ``last.pt``, then ``config.toml`` if the settings changed."""
        if not self.world.is_main:
            return
        save_checkpoint(
            self.output,
            {
                "model": self.model.state_dict(),
                "ema": self.ema.state_dict() if self.ema is not None else None,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "position": {item.name: getattr(self, item.name) for item in fields(Position)},
                "seconds": time.monotonic() - self.started,
                "categories": self.model.categories,
                "batches": asdict(self._batches()),
                "config": to_plain(self.config),
            },
        )
        path, text = self.output / CONFIG, to_toml(self.config)
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)

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
        position = restore(
            state,
            self.model,
            self.optimizer,
            self.scaler,
            self.ema,
            categories=self.model.categories,
            batches=self._batches(),
        )
        for name, value in asdict(position).items():
            setattr(self, name, value)
        self.started = time.monotonic() - state["seconds"]

    def _progress(self) -> float:
        """Fraction of the run that is done. The main process decides it, so that all processes end together.

        All processes also learn here of a signal that one of them received.
        """
        done = self.step / self.total_steps
        if self.config.max_minutes:
            budget = self.config.max_minutes * 60 - self._reserve()
            done = max(done, (time.monotonic() - self.started) / budget if budget > 0 else 1.0)
        mine = done if self.world.is_main else 0.0
        done, self._agreed_stop = self.world.largest(mine, self.stop.received)  # type: ignore[assignment]
        return done

    def _warn_about_warmup(self, progress: float) -> None:
        """Says once that the warm-up is shortened, as soon as it is known."""
        wanted, updates = self.config.schedule.warmup_steps, self.total_steps
        if self._said_warmup or self.step >= wanted or (wanted <= updates / 2 and progress < 0.5):
            return
        self._said_warmup = True
        reason = f"the run has {updates} updates" if wanted > updates / 2 else "the time ends sooner"
        self.log.say(f"schedule.warmup_steps is {wanted}, but {reason}: the warm-up is shortened to half of the run")

    def _reserve(self) -> float:
        """Estimated seconds for the last validation and for saving."""
        if self.datasets.val is None:
            return 2.0
        estimate = 0.6 * len(self.datasets.val) / self.images_per_second if self.images_per_second else 0.0
        return 2.0 + 1.1 * (self.validation_seconds or estimate)

    def _is_over(self) -> bool:
        progress, patience = self._progress(), self.config.patience
        self._stop_if_asked()
        return (progress >= 1 and self.step > 0) or bool(patience and self.waited >= patience)

    def _stop_if_asked(self) -> None:
        if self._agreed_stop:
            raise StopRequested(int(self._agreed_stop))

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
            self._warn_about_warmup(progress)
            rate = self._update(progress)
            self._keep_snapshot()
            is_over = progress >= 1 or self.step >= self.total_steps
            if self.step % LOG_EVERY == 0 or self.batch > last or is_over:
                bar(self.batch, detail=f"loss {self._log_losses(meter, rate):.3f}")
                meter = LossMeter()
            if self.batch <= last:
                self._stop_if_asked()
                if is_over:
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
        metrics: dict[str, Any] = {}
        if self.datasets.val is not None:
            with self.log.progress("validation", len(self.datasets.val)) as progress:
                metrics = self._metrics(candidate, progress)
        ap = metrics.get("AP") or 0.0
        is_best = ap > self.best or self.datasets.val is None
        if is_best and self.world.is_main:
            chosen = {"step": self.step, "epoch": self.epoch, "validation": {k: metrics.get(k) for k in _SHOWN}}
            save_model(candidate, self.output / BEST, {"training": chosen})  # type: ignore[arg-type]
        self.validated = self.step
        self.waited = 0 if is_best else self.waited + 1
        self.best = ap if is_best else self.best
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

        def advance(done: int, total: int) -> None:
            self.stop.check()
            progress(done, total)

        return detect_dataset(
            candidate,
            self.datasets.val,
            batch_size=self.config.batch_size,
            rank=self.world.rank,
            world_size=self.world.size,
            context=lambda: autocast(self.precision, self.world.device),
            progress=advance,
        ).compute()


def _to_device(target: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in target.items()}


_SHOWN = ("AP", "AP50", "AP75")
