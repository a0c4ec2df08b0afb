"""`TrainConfig`: everything that decides a training run, as plain values for TOML files and the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..data.transforms import AugmentationConfig
from ..models.config import ModelConfig
from ..models.loss import LossOptions


@dataclass
class DataConfig:
    """What to train on. Each set is a COCO ``.json``, a Pascal VOC folder or list, or ``digits``.

    Attributes:
        train: the training set; a folder with splits stands for its split "train".
        val: the validation set, which chooses the best weights; empty: the split "val" of ``train``, where it has one.
        test: evaluated once, with the chosen weights; empty: none.
        images: folder of the images of COCO files; empty: searched beside each file.
        on_bad_image: "skip" leaves out images that cannot be read, and counts them.
        workers: processes that load images; 0 loads in the training process.
        cache: keep the training images in memory, decoded and at the model's scale.
    """

    train: str = ""
    val: str = ""
    test: str = ""
    images: str = ""
    on_bad_image: Literal["error", "skip"] = "error"
    workers: int = 0
    cache: bool = False


@dataclass
class OptimizerConfig:
    """How weights are updated. Norms and biases are never decayed.

    Attributes:
        name: sgd (with momentum) or adamw.
        lr: learning rate after warm-up.
        momentum: of SGD; the first beta of AdamW.
        weight_decay: as the optimizer defines it.
        clip_norm: gradients are scaled down to this norm over all weights; 0: never.
        accumulate: batches whose gradients make one update.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    accumulate: int = 1


@dataclass
class ScheduleConfig:
    """How the learning rate changes. Progress is the larger of epochs done / epochs and time used / time allowed.

    Attributes:
        name: cosine falls from ``lr`` to ``final_factor * lr``; step multiplies by ``step_factor`` at ``milestones``.
        warmup_steps: updates in which the rate rises linearly from nearly 0.
        final_factor: see cosine.
        milestones: shares of the run, ascending.
        step_factor: see step.
    """

    name: Literal["cosine", "step"] = "cosine"
    warmup_steps: int = 500
    final_factor: float = 0.0
    milestones: tuple[float, ...] = (0.67, 0.89)
    step_factor: float = 0.1


@dataclass
class TrainConfig:
    """A training run.

    Attributes:
        data: see `DataConfig`.
        model: see `ModelConfig`.
        augmentation: see `AugmentationConfig`.
        optimizer: see `OptimizerConfig`.
        schedule: see `ScheduleConfig`.
        epochs: passes over the training set, at most.
        max_minutes: the run ends within so many minutes, its last validation included; 0: no limit.
        batch_size: images a step and process.
        precision: fp32, bf16 or fp16 for convolutions; auto: bf16 where the hardware has it.
        channels_last: memory layout of weights and images.
        ema_decay: validate and keep an exponential moving average of the weights; 0: the weights themselves.
        weights: start from these weights, or their folder; the classifier is renewed where the classes differ.
        freeze: stages of the backbone that keep their weights, 0 (none) to 5 (all).
        validate_every: epochs between validations; 0: only at the end.
        patience: stop after so many validations without a better AP; 0: never.
        save_minutes: besides each epoch's end, the state is saved this often.
        seed: of weights, order and augmentation.
        device: cpu, cuda, cuda:1; auto: CUDA where there is one.
        tensorboard: also write TensorBoard events.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(loss=LossOptions(normalization="batch")))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = 12
    max_minutes: float = 0.0
    batch_size: int = 8
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    ema_decay: float = 0.0
    weights: str = ""
    freeze: int = 0
    validate_every: int = 1
    patience: int = 0
    save_minutes: float = 10.0
    seed: int = 0
    device: str = "auto"
    tensorboard: bool = False

    def check(self) -> None:
        """Raises ValueError for a value that no run can have."""
        limits: list[tuple[str, float, float, float]] = [
            ("epochs", self.epochs, 1, float("inf")),
            ("max_minutes", self.max_minutes, 0, float("inf")),
            ("batch_size", self.batch_size, 1, float("inf")),
            ("ema_decay", self.ema_decay, 0, 0.999999),
            ("freeze", self.freeze, 0, 5),
            ("validate_every", self.validate_every, 0, float("inf")),
            ("patience", self.patience, 0, float("inf")),
            ("save_minutes", self.save_minutes, 0, float("inf")),
            ("seed", self.seed, 0, 2**62),
            ("data.workers", self.data.workers, 0, 1024),
            ("optimizer.lr", self.optimizer.lr, 1e-12, float("inf")),
            ("optimizer.momentum", self.optimizer.momentum, 0, 0.999999),
            ("optimizer.weight_decay", self.optimizer.weight_decay, 0, float("inf")),
            ("optimizer.clip_norm", self.optimizer.clip_norm, 0, float("inf")),
            ("optimizer.accumulate", self.optimizer.accumulate, 1, float("inf")),
            ("schedule.warmup_steps", self.schedule.warmup_steps, 0, float("inf")),
        ]
        for name, value, low, high in limits:
            if not low <= value <= high:
                raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}")
        if list(self.schedule.milestones) != sorted(self.schedule.milestones):
            raise ValueError(f"schedule.milestones must ascend, got {self.schedule.milestones}")
        if not self.data.train:
            raise ValueError("data.train is empty: say what to train on, such as --data.train annotations/train.json")
