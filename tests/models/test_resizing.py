"""The size of a resized image is that of torchvision's transform, for the model, its anchors and the image cache."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from retina_ops.data import DetectionDataset
from retina_ops.data.cache import CachedDataset
from retina_ops.models import retinanet_small_fpn
from retina_ops.models.retinanet import Resize
from retina_ops.resizing import resized_size


@pytest.mark.parametrize(("min_size", "max_size"), [(48, 64), (800, 1333), (33, 1000)])
def test_size_is_torchvisions(min_size: int, max_size: int) -> None:
    """Sizes whose scale rounds to one pixel less are among them."""
    transform = GeneralizedRCNNTransform(min_size, max_size, [0.0] * 3, [1.0] * 3).eval()
    sizes = [(height, 1 + height * 7 // 5) for height in range(1, 900, 37)] + [(900, 30), (30, 900)]
    for height, width in sizes:
        meta = torch.empty(3, height, width, device="meta")
        assert tuple(transform.resize(meta)[0].shape[-2:]) == resized_size(height, width, min_size, max_size)


def test_no_side_becomes_zero() -> None:
    assert resized_size(5, 1500, 800, 1333) == (4, 1333) and resized_size(1, 1500, 800, 1333) == (1, 1333)
    model = retinanet_small_fpn(num_classes=2, min_size=32, max_size=64).eval()
    assert model([torch.rand(3, 1, 1500)])[0]["boxes"].shape[1] == 4


class OneImage(DetectionDataset):
    """One image of a size whose scale to 32 pixels is not exact."""

    name, categories = "one image", [{"id": 1, "name": "a"}]

    def __init__(self, height: int, width: int) -> None:
        self.image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)

    def __len__(self) -> int:
        return 1

    def load_image(self, index: int) -> torch.Tensor:
        return self.image

    def target(self, index: int) -> dict:
        boxes = torch.tensor([[1.0, 1.0, 9.0, 9.0]])
        area, zero = torch.tensor([64.0]), torch.zeros(1, dtype=torch.int64)
        return {"boxes": boxes, "labels": zero, "area": area, "iscrowd": zero, "image_id": 1}


def test_a_cached_image_is_resized_once() -> None:
    """A cached image has the size that the model would give it, and the model leaves it as it is."""
    model = retinanet_small_fpn(num_classes=1, min_size=32, max_size=100).train()
    inexact = [side for side in range(33, 400) if resized_size(side, side, 32, 100) != (32, 32)]
    assert inexact
    for side in (inexact[0], 64, 32):
        dataset = OneImage(side, side + 7)
        expected, _ = model.transform([dataset.image.float() / 255], [dataset.target(0)])
        image, target = CachedDataset(dataset, 32, 100)[0]
        assert tuple(image.shape[-2:]) == expected.image_sizes[0]
        batch, targets = model.transform([image.float() / 255], [dict(target)])
        assert batch.image_sizes == expected.image_sizes
        torch.testing.assert_close(targets[0]["boxes"], target["boxes"])


def test_a_model_of_other_limits_resizes_a_cached_image() -> None:
    model = retinanet_small_fpn(num_classes=1, min_size=64, max_size=200).train()
    image, target = CachedDataset(OneImage(50, 70), 32, 100)[0]
    batch, targets = model.transform([image.float() / 255], [target])
    assert image.shape[-2:] == (32, 44) and batch.image_sizes == [(64, 88)]
    torch.testing.assert_close(targets[0]["boxes"], target["boxes"] * 2)


def test_options_of_torchvisions_transform_are_kept() -> None:
    image, mean_and_std = torch.rand(3, 48, 60), ([0.0] * 3, [1.0] * 3)
    assert Resize(48, 64, *mean_and_std, fixed_size=(90, 70)).resize(image)[0].shape == (3, 70, 90)
    several = Resize([32, 64], 90, *mean_and_std)
    assert {min(several.train().resize(image)[0].shape[-2:]) for _ in range(40)} == {32, 64}
    assert several.eval().resize(image)[0].shape == (3, 64, 80)
    skipping = Resize(32, 64, *mean_and_std, _skip_resize=True).train()
    assert skipping.resize(torch.rand(3, 1000, 3))[0].shape == (3, 1000, 3)


@pytest.mark.parametrize("size", [(97, 161), (60, 300), (128, 150), (300, 60), (100, 100)], ids=str)
def test_pixels_and_boxes_are_torchvisions(device: str, size: tuple[int, int]) -> None:
    image, boxes = torch.rand(3, *size, device=device), torch.tensor([[3.0, 5, 40, 50]], device=device)
    (got, got_target), (expected, expected_target) = (
        kind(128, 160, [0.0] * 3, [1.0] * 3).resize(image, {"boxes": boxes.clone()})
        for kind in (Resize, GeneralizedRCNNTransform)
    )
    assert torch.equal(got, expected) and torch.equal(got_target["boxes"], expected_target["boxes"])


def test_boxes_of_a_side_of_one_pixel() -> None:
    boxes = torch.tensor([[0.0, 0, 5, 1500]])
    image, target = Resize(128, 160, [0.0] * 3, [1.0] * 3).resize(torch.rand(3, 1500, 5), {"boxes": boxes})
    assert image.shape == (3, 160, 1)
    torch.testing.assert_close(target["boxes"], torch.tensor([[0.0, 0, 1, 160]]))
