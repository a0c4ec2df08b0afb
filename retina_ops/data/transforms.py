"""Augmentation of images and their boxes with torchvision.transforms.v2, from a configuration of plain values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from ..errors import needs_extra
from ..settings import Range, check_when_made
from .dataset import DetectionDataset, Target

with needs_extra("train"):
    import numpy as np
    import torch
    from torch import Tensor, nn
    from torchvision import tv_tensors
    from torchvision.transforms import v2

IMAGENET_MEAN_PIXEL = (124, 116, 104)  # RGB of padding; the model's normalization makes it 0


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of the training images, applied in the order of the fields.

    Attributes:
        photometric: probability of a change of brightness, contrast, saturation and hue (SSD).
        iou_crop: probability of a crop that has a minimum IoU with some object (SSD). It changes the image size.
        zoom: smallest and largest scale factor. A factor above 1 enlarges a random part of the image, a factor below 1
            places the smaller image on a padded canvas; the image size does not change. (1, 1): no zoom.
        min_visibility: an object is dropped if the zoom leaves less than this fraction of its area visible.
        horizontal_flip: probability of a horizontal flip.
        vertical_flip: probability of a vertical flip, for images without a natural top, such as aerial photographs.
        shortest_sizes: sizes in pixels, one of which is drawn for the shorter side; if empty, no resizing.
        max_size: largest size in pixels of the longer side, with ``shortest_sizes``.
    """

    photometric: Annotated[float, Range(0, 1)] = 0.0
    iou_crop: Annotated[float, Range(0, 1)] = 0.0
    zoom: tuple[Annotated[float, Range(0.01, 100)], Annotated[float, Range(0.01, 100)]] = (1.0, 1.0)
    min_visibility: Annotated[float, Range(0, 1)] = 0.25
    horizontal_flip: Annotated[float, Range(0, 1)] = 0.5
    vertical_flip: Annotated[float, Range(0, 1)] = 0.0
    shortest_sizes: tuple[Annotated[int, Range(1)], ...] = ()
    max_size: Annotated[int, Range(1)] = 1333

    def __post_init__(self) -> None:
        check_when_made(self, "augmentation")

    def check_combination(self) -> None:
        """Raises ValueError for settings that do not fit together."""
        if not self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom must be a range of positive factors (low, high), got {self.zoom}")


def build_transforms(config: AugmentationConfig) -> v2.Transform:
    """The transform of a configuration.

    It takes and returns (tv_tensors.Image, target with tv_tensors.BoundingBoxes), and its only source of randomness is
    torch's default generator. A box that is cut away is dropped, together with its label, area and crowd flag. No other
    box is, however small, so that a data set has the same boxes whether it is cached at the model's scale or not.
    `AugmentedDataset` applies the transform to a data set:

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
    steps.append(DropEmptyBoxes())
    return v2.Compose(steps)


class DropEmptyBoxes(nn.Module):
    """Drops the boxes without an area in the image, with their labels, areas and crowd flags.

    torchvision's ``SanitizeBoundingBoxes`` also drops boxes with a side under one pixel, which would depend on the
    scale that images are cached at, and boxes that a rounding error takes out of the image. Here they are clipped.
    """

    def forward(self, image: Any, target: Target) -> tuple[Any, Target]:
        boxes = target["boxes"].as_subclass(Tensor)
        height, width = target["boxes"].canvas_size
        boxes = torch.minimum(boxes.clamp_min(0), boxes.new_tensor([width, height, width, height]))
        keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        kept: Target = {key: target[key][keep] for key in ("labels", "area", "iscrowd") if key in target}
        return image, {**target, **kept, "boxes": tv_tensors.wrap(boxes[keep], like=target["boxes"])}


class RandomZoom(v2.Transform):
    """Scale jitter that keeps the image size: enlarges a random part, or places the smaller image on a padded canvas.

    Args:
        scale: smallest and largest factor; the logarithm of the factor is uniformly distributed.
        min_visibility: a box of which less than this fraction of the area stays visible becomes empty, so that
            `DropEmptyBoxes` removes it.
        fill: RGB of the padding, 0..255.
    """

    # ScaleJitter with RandomCrop would give all images one size, keep boxes that are hardly visible, and resize the
    # whole image before it crops.

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
        random_scale, random_top, random_left = torch.rand(3).tolist()
        factor = math.exp(low + (high - low) * random_scale)
        # Enlarging: the window of the image that fills the canvas. Shrinking: the window of the canvas for the image.
        ratio = min(factor, 1 / factor)
        h, w = max(1, round(height * ratio)), max(1, round(width * ratio))
        top, left = round(random_top * (height - h)), round(random_left * (width - w))
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
        clipped = torch.minimum(moved.clamp_min(0), limit)
        is_hidden = _areas(clipped) < self.min_visibility * _areas(moved)
        return tv_tensors.wrap(torch.where(is_hidden[:, None], 0.0, clipped), like=boxes)


class AugmentedDataset(DetectionDataset):
    """A data set with a random transform. Item i of an epoch depends only on the seed, the epoch and i.

    Therefore items do not depend on the number of worker processes or on the order in which they are read, and a
    resumed run reads the same items as an uninterrupted one. Call `set_epoch` before each epoch. Worker processes see
    the new epoch, because it is in shared memory. Items are plain tensors.

    Args:
        dataset: the data set to augment.
        transforms: a transform from `build_transforms`, or any v2 transform of (image, target).
        seed: a non-negative integer.
    """

    def __init__(self, dataset: DetectionDataset, transforms: Callable[..., Any], seed: int = 0) -> None:
        self.dataset, self.transforms, self.seed = dataset, transforms, seed
        self.name, self.categories = dataset.name, dataset.categories
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, on which the random changes depend."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, target = self.dataset[index]
        target = dict(target)
        size = (image.shape[-2], image.shape[-1])
        target["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)  # type: ignore[call-overload]
        state = torch.get_rng_state()
        try:
            # torch.manual_seed would also set the seed of the GPUs.
            torch.default_generator.manual_seed(mix_seed(self.seed, int(self._epoch), index))
            image, target = self.transforms(tv_tensors.Image(image), target)
        finally:
            torch.set_rng_state(state)
        target["boxes"] = target["boxes"].as_subclass(Tensor)
        return image.as_subclass(Tensor).contiguous(), target

    def load_image(self, index: int) -> Tensor:
        """The augmented image."""
        return self[index][0]

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) before augmentation."""
        return self.dataset.image_size(index)

    def image_id(self, index: int) -> int:
        return self.dataset.image_id(index)

    def file_name(self, index: int) -> str:
        return self.dataset.file_name(index)

    def target(self, index: int) -> Target:
        """The target of the augmented image."""
        return self[index][1]


def mix_seed(*parts: int) -> int:
    """A seed in [0, 2^63) from non-negative integers. Different integers practically always give different seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _areas(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0)
    return sides[:, 0] * sides[:, 1]
