"""Augmentation of images with their boxes: torchvision.transforms.v2, chosen by a plain configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import needs_extra
from .dataset import DetectionDataset, Target

with needs_extra("train"):
    import numpy as np
    import torch
    from torch import Tensor
    from torchvision import tv_tensors
    from torchvision.transforms import v2

IMAGENET_MEAN_PIXEL = (124, 116, 104)  # what padding shows; 0 after the model's normalisation


@dataclass(frozen=True)
class AugmentationConfig:
    """How training images are varied. Everything is off at its neutral value; the order is the order of the fields.

    Attributes:
        photometric: probability of a random change of brightness, contrast, saturation and hue (SSD).
        iou_crop: probability of a random crop that keeps a minimum IoU with some object (SSD). Changes the image size.
        zoom: range of the scale jitter. The image keeps its size: a factor above 1 shows a random part enlarged, one
            below 1 the whole image on a padded canvas. (1, 1) is off.
        min_visibility: an object of which the zoom leaves a smaller share of its area than this is not labelled.
        horizontal_flip: probability.
        vertical_flip: probability; for images without an up, such as microscope or aerial ones.
        shortest_sizes: the shorter side is resized to one of these at random, in pixels; () leaves it to the model.
        max_size: limit of the longer side for ``shortest_sizes``, in pixels.
    """

    photometric: float = 0.0
    iou_crop: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    min_visibility: float = 0.25
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    shortest_sizes: tuple[int, ...] = ()
    max_size: int = 1333

    def __post_init__(self) -> None:
        for name in ("photometric", "iou_crop", "min_visibility", "horizontal_flip", "vertical_flip"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"augmentation: {name} must be between 0 and 1, got {value}")
        if len(self.zoom) != 2 or not 0.0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"augmentation: zoom must be a range of positive factors (low, high), got {self.zoom}")
        if any(size < 1 for size in self.shortest_sizes) or self.max_size < 1:
            raise ValueError("augmentation: shortest_sizes and max_size must be positive numbers of pixels")


def build_transforms(config: AugmentationConfig) -> v2.Transform:
    """The transform of a configuration: takes and returns (tv_tensors.Image, target with tv_tensors.BoundingBoxes).

    It draws from torch's default generator alone. Boxes cut away or under one pixel are dropped together with their
    labels, areas and crowd flags. `AugmentedDataset` applies it to a data set:

    Example:
        >>> from retina_ops.data.digits import DigitScenes
        >>> transforms = build_transforms(AugmentationConfig(vertical_flip=0.5, zoom=(0.5, 2.0)))
        >>> image, target = AugmentedDataset(DigitScenes("train"), transforms, seed=1)[0]
        >>> image.shape, len(target["boxes"]) == len(target["labels"])
        (torch.Size([3, 256, 256]), True)
    """
    steps: list[Callable[..., Any]] = []
    if config.photometric > 0:
        steps.append(v2.RandomPhotometricDistort(p=config.photometric))
    if config.iou_crop > 0:
        steps.append(v2.RandomApply([v2.RandomIoUCrop()], p=config.iou_crop))
    if tuple(config.zoom) != (1.0, 1.0):
        steps.append(RandomZoom(config.zoom, min_visibility=config.min_visibility))
    if config.horizontal_flip > 0:
        steps.append(v2.RandomHorizontalFlip(config.horizontal_flip))
    if config.vertical_flip > 0:
        steps.append(v2.RandomVerticalFlip(config.vertical_flip))
    if config.shortest_sizes:
        steps.append(v2.RandomShortestSize(list(config.shortest_sizes), max_size=config.max_size))
    steps.append(v2.SanitizeBoundingBoxes(labels_getter=_per_box_fields))
    return v2.Compose(steps)


class RandomZoom(v2.Transform):
    """Scale jitter that keeps the image size: enlarge a random part, or shrink the image onto a padded canvas.

    Args:
        scale: range of the factor, drawn uniformly in its logarithm.
        min_visibility: boxes that keep less than this share of their area become empty (for `SanitizeBoundingBoxes`).
        fill: RGB of the padding, 0..255.
    """

    def __init__(
        self,
        scale: tuple[float, float],
        *,
        min_visibility: float = 0.25,
        fill: tuple[int, int, int] = IMAGENET_MEAN_PIXEL,
    ) -> None:
        super().__init__()
        self.scale, self.min_visibility, self.fill = scale, min_visibility, fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(next(x for x in flat_inputs if isinstance(x, tv_tensors.Image)))
        low, high = (math.log(bound) for bound in self.scale)
        along, down, across = torch.rand(3).tolist()
        factor = math.exp(low + (high - low) * along)
        if factor >= 1:  # the window of the image that fills the canvas
            h, w = max(1, round(height / factor)), max(1, round(width / factor))
        else:  # the window of the canvas that the image fills
            h, w = max(1, round(height * factor)), max(1, round(width * factor))
        top, left = round(down * (height - h)), round(across * (width - w))
        return {"enlarge": factor >= 1, "canvas": (height, width), "window": (top, left, h, w)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        (height, width), (top, left, h, w) = params["canvas"], params["window"]
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return self._boxes(inpt, params)
        if params["enlarge"]:
            return v2.functional.resized_crop(inpt, top, left, h, w, [height, width], antialias=True)
        small = v2.functional.resize(inpt, [h, w], antialias=True)
        padding = [left, top, width - w - left, height - h - top]
        return v2.functional.pad(small, padding, fill=list(self.fill))

    def _boxes(self, boxes: tv_tensors.BoundingBoxes, params: dict[str, Any]) -> tv_tensors.BoundingBoxes:
        (height, width), (top, left, h, w) = params["canvas"], params["window"]
        plain = boxes.as_subclass(Tensor)
        offset = plain.new_tensor([left, top, left, top])
        if params["enlarge"]:
            moved = (plain - offset) * plain.new_tensor([width / w, height / h, width / w, height / h])
        else:
            moved = plain * plain.new_tensor([w / width, h / height, w / width, h / height]) + offset
        limit = moved.new_tensor([width, height, width, height])
        visible = torch.minimum(moved.clamp_min(0), limit)
        hidden = _areas(visible) < self.min_visibility * _areas(moved)
        visible = torch.where(hidden[:, None], 0.0, visible)
        return tv_tensors.wrap(visible, like=boxes)


class AugmentedDataset(DetectionDataset):
    """A data set seen through a transform, reproducibly: item i of an epoch depends on (seed, epoch, i) alone.

    So the images do not depend on the number of worker processes, nor on the order in which they are asked for, and
    a resumed run sees what it would have seen. Call `set_epoch` before each epoch's iteration; worker processes that
    live on see it, because the epoch is in shared memory. Items are plain tensors.

    Args:
        dataset: the data set to augment.
        transforms: from `build_transforms`, or any v2 transform over (image, target).
        seed: non-negative.
    """

    def __init__(self, dataset: DetectionDataset, transforms: Callable[..., Any], seed: int = 0) -> None:
        self.dataset, self.transforms, self.seed = dataset, transforms, seed
        self.name, self.categories = dataset.name, dataset.categories
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, also of the data set underneath where it has epochs."""
        self._epoch.fill_(epoch)
        below = getattr(self.dataset, "set_epoch", None)
        if below is not None:
            below(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, target = self.dataset[index]
        target = dict(target)
        size = (image.shape[-2], image.shape[-1])
        target["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)  # type: ignore[call-overload]
        state = torch.get_rng_state()
        try:
            # default_generator, not torch.manual_seed: that would reseed the GPUs as well.
            torch.default_generator.manual_seed(mix_seed(self.seed, int(self._epoch), index))
            image, target = self.transforms(tv_tensors.Image(image), target)
        finally:
            torch.set_rng_state(state)
        target["boxes"] = target["boxes"].as_subclass(Tensor)
        return image.as_subclass(Tensor).contiguous(), target

    def load_image(self, index: int) -> Tensor:
        """The image as augmented."""
        return self[index][0]

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) before augmentation."""
        return self.dataset.image_size(index)

    def image_id(self, index: int) -> int:
        return self.dataset.image_id(index)

    def file_name(self, index: int) -> str:
        return self.dataset.file_name(index)

    def target(self, index: int) -> Target:
        """The target as augmented."""
        return self[index][1]


def mix_seed(*parts: int) -> int:
    """One seed in [0, 2^63) from several non-negative integers, without collisions in practice."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _per_box_fields(sample: tuple[Tensor, Target]) -> tuple[Tensor, ...]:
    target = sample[1]
    return tuple(target[key] for key in ("labels", "area", "iscrowd") if key in target)


def _areas(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0)
    return sides[:, 0] * sides[:, 1]
