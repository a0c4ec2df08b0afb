"""Digits scenes: sizes, overlaps, splits, determinism."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from retina_ops.data import ground_truth_of, open_dataset, write_coco
from retina_ops.data.digits import DEFAULT_LENGTHS, SPLITS, DigitScenes, _digits, _glyph, source_digits


def test_layout_of_the_test_scenes() -> None:
    scenes = DigitScenes("test")
    assert len(scenes) >= 500
    counts, classes, overlaps, sides = [], [], [], []
    for index in range(len(scenes)):
        target = scenes.target(index)
        boxes = target["boxes"].double()
        assert (boxes >= 0).all() and (boxes <= 256).all()
        iou = box_iou(boxes, boxes).fill_diagonal_(0)
        overlaps.append(float(iou.max()))
        sides += (boxes[:, 2:] - boxes[:, :2]).amax(1).tolist()
        counts.append(len(boxes))
        classes += target["labels"].tolist()
    assert min(counts) == 1 and max(counts) == 12
    assert min(sides) == 14 and max(sides) == 96
    assert max(overlaps) <= 0.3 + 1e-9
    assert np.mean(np.array(overlaps) > 0.1) > 0.2  # overlaps are frequent
    assert np.bincount(classes, minlength=10).min() > 150


def test_splits_share_no_digit() -> None:
    parts = {split: set(source_digits(split).tolist()) for split in SPLITS}
    assert sum(len(part) for part in parts.values()) == len(set.union(*parts.values())) == 1797
    labels = _digits()[1]
    for split, part in parts.items():
        assert np.bincount(labels[sorted(part)], minlength=10).min() > {"train": 110, "val": 15, "test": 30}[split]
        scenes = DigitScenes(split, 40, seed=5)
        used = {source for index in range(40) for source in scenes.sources(index)}
        assert used <= part and len(used) > 30
        target = scenes.target(3)
        assert labels[scenes.sources(3)].tolist() == target["labels"].tolist()


def test_depends_on_seed_split_and_index_alone() -> None:
    scenes = DigitScenes("train", 10)
    image, target = scenes[4]
    again, same = DigitScenes("train", 8)[4]  # a different length
    assert torch.equal(image, again) and torch.equal(target["boxes"], same["boxes"])
    assert torch.equal(scenes.target(4)["boxes"], target["boxes"])
    assert torch.equal(scenes[-6][0], image)
    for other in (DigitScenes("train", 10, seed=1)[4][0], DigitScenes("val", 10)[4][0], scenes[5][0]):
        assert not torch.equal(image, other)
    with pytest.raises(IndexError):
        scenes[10]


def test_digits_are_visible_and_fill_their_boxes() -> None:
    for source in source_digits("test")[:60].tolist():
        opacity = np.asarray(_glyph(source))
        assert max(opacity.shape) == 96
        assert all(edge.max() > 60 for edge in (opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]))
    scenes = DigitScenes("test", 30)
    for index in range(30):
        image, target = scenes[index]
        assert image.shape == (3, 256, 256) and image.dtype == torch.uint8 and image.is_contiguous()
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            patch = image[:, y1:y2, x1:x2].float().mean(0)
            assert patch.std() > 4  # there is a digit in the box


def test_other_sizes() -> None:
    image, target = DigitScenes("val", 2, image_size=(256, 400))[0]
    assert image.shape == (3, 256, 400) and (target["boxes"][:, 2] <= 400).all()


def test_written_as_coco_and_read_back(tmp_path) -> None:
    scenes = DigitScenes("val", 5)
    steps = []
    file = write_coco(scenes, tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (5, 5) and not list(tmp_path.rglob("*.partial"))
    for dataset in (open_dataset(file), open_dataset(tmp_path, split="val")):
        assert dataset.categories == scenes.categories
        assert ground_truth_of(dataset) == ground_truth_of(scenes)
        for (image, target), (expected_image, expected) in zip(dataset, scenes, strict=False):
            assert torch.equal(image, expected_image) and torch.equal(target["boxes"], expected["boxes"])
            assert torch.equal(target["labels"], expected["labels"])


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"split": "dev"}, "split must be one of train, val, test, got 'dev'"),
        ({"length": 0}, "length must be at least 1"),
        ({"image_size": 255}, "image_size must be at least 256, got 255 x 255"),
        ({"seed": -1}, "seed must not be negative"),
    ],
    ids=["split", "length", "size", "seed"],
)
def test_rejects_bad_options(options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=f"digits scenes: {reason}"):
        DigitScenes(**options)


def test_default_lengths() -> None:
    assert {split: len(DigitScenes(split)) for split in SPLITS} == DEFAULT_LENGTHS
