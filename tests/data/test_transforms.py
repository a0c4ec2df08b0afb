"""Augmentation: boxes match the pixels, labels match the boxes, and the result depends only on seed and epoch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from retina_ops.data import AugmentationConfig, AugmentedDataset, DetectionDataset, build_transforms, detection_loader
from retina_ops.data.digits import DigitScenes

SIZE = (90, 140)


class Rectangles(DetectionDataset):
    """One bright rectangle per image, so that its box can be measured after any transform."""

    name, categories = "rectangles", [{"id": 1, "name": "rectangle"}]

    def __len__(self) -> int:
        return 40

    def load_image(self, index: int) -> Tensor:
        image = torch.full((3, *SIZE), 20, dtype=torch.uint8)
        x1, y1, x2, y2 = self.target(index)["boxes"][0].int().tolist()
        image[:, y1:y2, x1:x2] = 250
        return image

    def image_size(self, index: int) -> tuple[int, int]:
        return SIZE

    def target(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        x, y = torch.randint(0, 70, (2,), generator=generator).tolist()
        box = [[x, y // 2, x + 30 + index, y // 2 + 40]]
        return {
            "boxes": torch.tensor(box, dtype=torch.float32),
            "labels": torch.zeros(1, dtype=torch.int64),
            "area": torch.tensor([1200.0]),
            "iscrowd": torch.zeros(1, dtype=torch.int64),
            "image_id": index,
        }


CONFIGS = {
    "horizontal flip": AugmentationConfig(horizontal_flip=1.0),
    "vertical flip": AugmentationConfig(horizontal_flip=0.0, vertical_flip=1.0),
    "enlarge": AugmentationConfig(zoom=(1.2, 2.0), min_visibility=0.5),
    "shrink": AugmentationConfig(zoom=(0.4, 0.9)),
    "iou crop": AugmentationConfig(iou_crop=1.0),
    "resize": AugmentationConfig(shortest_sizes=(60, 120), max_size=200),
    "all": AugmentationConfig(0.5, 0.5, (0.6, 1.6), 0.5, 0.5, 0.5, (80, 100)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_boxes_follow_the_pixels(config: AugmentationConfig) -> None:
    dataset = AugmentedDataset(Rectangles(), build_transforms(config))
    measured = changed = 0
    for index in range(len(dataset)):
        image, target = dataset[index]
        assert image.dtype == torch.uint8 and type(image) is Tensor and type(target["boxes"]) is Tensor
        assert len(target["boxes"]) == len(target["labels"]) == len(target["area"]) == len(target["iscrowd"])
        height, width = image.shape[1:]
        boxes = target["boxes"]
        assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        # The rectangle stays brighter than this threshold after photometric changes, background and padding darker.
        bright = image.float().amin(0) > 160
        if len(boxes) == 0 or not bright.any():
            continue
        ys, xs = bright.nonzero().unbind(1)
        extent = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert (extent - boxes[0]).abs().max() <= 2.0, (extent, boxes)  # resizing blurs edges
        measured += 1
        changed += not torch.equal(boxes, Rectangles().target(index)["boxes"])
    assert measured >= 25 and changed >= 20


def test_zoom_keeps_the_image_size_and_drops_what_it_hides() -> None:
    dataset = AugmentedDataset(Rectangles(), build_transforms(AugmentationConfig(zoom=(1.2, 2.0), min_visibility=1.0)))
    items = [dataset[index] for index in range(40)]
    assert {image.shape[1:] for image, _ in items} == {SIZE}
    whole = [len(target["boxes"]) for _, target in items]
    assert 0 < sum(whole) < 40  # some rectangles are cut by the window, some are not
    keep_all = AugmentedDataset(Rectangles(), build_transforms(AugmentationConfig(zoom=(1.2, 2.0), min_visibility=0.0)))
    assert sum(len(keep_all[index][1]["boxes"]) for index in range(40)) > sum(whole)


def test_nothing_is_the_identity() -> None:
    dataset = AugmentedDataset(Rectangles(), build_transforms(AugmentationConfig(horizontal_flip=0.0)))
    image, target = dataset[7]
    assert torch.equal(image, Rectangles().load_image(7))
    assert torch.equal(target["boxes"], Rectangles().target(7)["boxes"])


def snapshot(dataset: AugmentedDataset, workers: int, epochs: int) -> list[float]:
    loader = detection_loader(dataset, [[4, 1], [3, 0]], workers=workers)
    found = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        for images, targets in loader:
            found += [float(image.float().mean()) for image in images]
            found += [float(target["boxes"].sum()) for target in targets]
    return found


def test_depends_on_seed_and_epoch_alone() -> None:
    config = AugmentationConfig(photometric=0.5, zoom=(0.5, 2.0))
    scenes = DigitScenes("val", 6)
    dataset = AugmentedDataset(scenes, build_transforms(config), seed=3)
    in_this_process = snapshot(dataset, 0, 2)
    assert in_this_process == snapshot(dataset, 2, 2)  # also in the second epoch
    assert in_this_process[:8] != in_this_process[8:]
    other_seed = AugmentedDataset(scenes, build_transforms(config), seed=4)
    assert in_this_process != snapshot(other_seed, 0, 2)


def test_leaves_the_global_generator_alone() -> None:
    dataset = AugmentedDataset(Rectangles(), build_transforms(AugmentationConfig(zoom=(0.5, 2.0))))
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    dataset[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"horizontal_flip": 1.5},
        {"photometric": -0.1},
        {"zoom": (0.0, 1.0)},
        {"zoom": (2.0, 1.0)},
        {"zoom": (1.0,)},
        {"max_size": 0},
        {"shortest_sizes": (64, 0)},
    ],
    ids=str,
)
def test_rejects_bad_options(options: dict) -> None:
    with pytest.raises(ValueError, match=rf"^augmentation\.{next(iter(options))} must .*, got "):
        AugmentationConfig(**options)
