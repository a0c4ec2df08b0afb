"""`TrainConfig`: all settings of a training run, as plain values for TOML files and the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ..data.transforms import AugmentationConfig
from ..models.config import ModelConfig
from ..models.loss_options import LossOptions
from ..settings import Range, check_settings


@dataclass
class DataConfig:
    """The data sets of a run. Each is a COCO ``.json`` file, a Pascal VOC folder or list, or ``digits``.

    Attributes:
        train: the training set; of a folder with splits, the split "train" is taken.
        val: the validation set, which decides which weights are kept; if empty, the split "val" of ``train``, where it
            has one.
        test: the test set, evaluated once with the weights that were kept; if empty, none.
        images: folder of the images of COCO files; if empty, it is searched beside each file.
        on_bad_image: "error" stops at an image that cannot be read; "skip" leaves such images out and counts them.
        on_bad_annotation: "error" stops at an annotation that cannot be used; "skip" leaves such annotations out and
            counts them.
        exif: the frame of the boxes where images have an EXIF orientation: "upright"; "stored", the pixels as they are
            in the file; or "auto", by the sizes that the annotations state.
        workers: processes that load images; 0 loads them in the training process.
        cache: keep the training images in memory, decoded and resized to the model's scale.
    """

    train: str = ""
    val: str = ""
    test: str = ""
    images: str = ""
    on_bad_image: Literal["error", "skip"] = "error"
    on_bad_annotation: Literal["error", "skip"] = "error"
    exif: Literal["auto", "upright", "stored"] = "auto"
    workers: Annotated[int, Range(0, 1024)] = 0
    cache: bool = False


@dataclass
class OptimizerConfig:
    """The optimizer. Norms and biases have no weight decay.

    Attributes:
        name: sgd (with momentum) or adamw.
        lr: learning rate after the warm-up.
        momentum: momentum of SGD; the first beta of AdamW.
        weight_decay: weight decay, as the optimizer defines it.
        clip_norm: largest norm of the gradient of all weights; a larger one is scaled down to it. 0: no limit.
        accumulate: number of batches whose gradients are added up for one update.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Range(1e-12)] = 0.01
    momentum: Annotated[float, Range(0, 0.999999)] = 0.9
    weight_decay: Annotated[float, Range(0)] = 1e-4
    clip_norm: Annotated[float, Range(0)] = 10.0
    accumulate: Annotated[int, Range(1)] = 1


@dataclass
class ScheduleConfig:
    """The learning rate over the run. Progress is the largest of epochs done / epochs, updates done / updates
    allowed and time used / time allowed.

    Attributes:
        name: cosine falls from ``lr`` to ``final_factor * lr``; step multiplies by ``step_factor`` at ``milestones``.
        warmup_steps: number of updates over which the learning rate rises linearly from nearly 0, at most half of the
            run.
        final_factor: with cosine, the last learning rate as a fraction of ``lr``.
        milestones: with step, the progress at each multiplication, in ascending order.
        step_factor: with step, the factor at each milestone.
    """

    name: Literal["cosine", "step"] = "cosine"
    warmup_steps: Annotated[int, Range(0)] = 500
    final_factor: Annotated[float, Range(0, 1)] = 0.0
    milestones: tuple[Annotated[float, Range(0, 1)], ...] = (0.67, 0.89)
    step_factor: Annotated[float, Range(0, 1)] = 0.1

    def check_combination(self) -> None:
        """Raises ValueError for settings that do not fit together."""
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must be in ascending order, got {self.milestones}")


@dataclass
class TrainConfig:
    """A training run.

    Attributes:
        data: the data sets. Each is a COCO .json file, a Pascal VOC folder or list, or digits.
        model: the model and its loss.
        augmentation: random changes of the training images, applied in this order.
        optimizer: the optimizer. Norms and biases have no weight decay.
        schedule: the learning rate over the run. Progress is the largest of epochs done / epochs, updates done /
            updates allowed and time used / time allowed.
        epochs: largest number of passes over the training set.
        max_steps: largest number of updates of the weights; 0: no limit.
        max_minutes: largest number of minutes, with the last validation included; 0: no limit.
        batch_size: images per step and process.
        precision: type that convolutions compute in; auto: bf16 where the hardware has it.
        channels_last: keep weights and images in the channels-last memory layout.
        ema_decay: decay of an exponential moving average of the weights, which is validated and kept instead of the
            weights. 0: no average.
        weights: weights to start from, or their folder; if empty, none. The last layer of the classifier is
            initialized anew if the classes differ.
        freeze: number of backbone stages that are not trained, 0 (none) to 5 (all).
        validate_every: epochs between validations; 0: only at the end.
        patience: number of validations without a better AP after which the run stops; 0: never.
        snapshots: number of moments, evenly spaced over the run's updates, whose weights are kept in ``snapshots``. The
            last one is the end of the run.
        save_minutes: minutes between checkpoints within an epoch; 0: only at the end of each epoch.
        seed: seed of the weights, of the order of the images and of the augmentation.
        device: cpu, cuda or cuda:1; auto: CUDA if available.
        tensorboard: also write TensorBoard events.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(loss=LossOptions(normalization="batch")))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: Annotated[int, Range(1)] = 12
    max_steps: Annotated[int, Range(0)] = 0
    max_minutes: Annotated[float, Range(0)] = 0.0
    batch_size: Annotated[int, Range(1)] = 8
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    ema_decay: Annotated[float, Range(0, 0.999999)] = 0.0
    weights: str = ""
    freeze: Annotated[int, Range(0, 5)] = 0
    validate_every: Annotated[int, Range(0)] = 1
    patience: Annotated[int, Range(0)] = 0
    snapshots: Annotated[int, Range(0)] = 0
    save_minutes: Annotated[float, Range(0)] = 10.0
    seed: Annotated[int, Range(0, 2**62)] = 0
    device: str = "auto"
    tensorboard: bool = False

    def check(self) -> None:
        """Raises ValueError for settings that no run can have: a wrong type, a number out of range, no data."""
        check_settings(self)
        if not self.data.train:
            raise ValueError("data.train is empty: name the training set, such as --data.train annotations/train.json")
