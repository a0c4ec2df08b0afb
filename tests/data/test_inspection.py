"""Inspection of a data set, compared with torchvision's IoU and matcher; drawing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from dataset_samples import write_coco_folder
from PIL import Image
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retina_ops.data import CocoDetection, draw_detections, inspect_dataset, save_png
from retina_ops.data.digits import DigitScenes
from retina_ops.data.drawing import class_color


def grid(height: int, width: int, stride: int = 16, sides: tuple[int, ...] = (16, 32, 64)) -> torch.Tensor:
    """Square anchors on a grid, [A, 4]."""
    y, x = torch.meshgrid(
        torch.arange(stride / 2, height, stride), torch.arange(stride / 2, width, stride), indexing="ij"
    )
    centres = torch.stack([x, y], -1).reshape(-1, 1, 2)
    half = torch.tensor(sides).reshape(1, -1, 1) / 2
    return torch.cat([centres - half, centres + half], -1).reshape(-1, 4)


def test_summary_matches_torchvision(tmp_path: Path) -> None:
    scenes = DigitScenes("val", 12)
    anchors = grid(256, 256)
    summary = inspect_dataset(scenes, anchors, tmp_path, pictures=3)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    best, counted, positive, negative, ignored = [], [], 0, 0, 0
    for index in range(12):
        iou = box_iou(scenes.target(index)["boxes"], anchors)
        best.append(iou.amax(1))
        matches = matcher(iou)
        counted.append(int((matches >= 0).sum()))
        positive += counted[-1]
        negative += int((matches == -1).sum())
        ignored += int((matches == -2).sum())
    best_iou = torch.cat(best)
    assert summary["boxes"] == len(best_iou) == sum(row["boxes"] for row in summary["classes"].values())
    assert summary["best_anchor_iou"]["mean"] == pytest.approx(float(best_iou.mean()), abs=1e-4)
    assert summary["best_anchor_iou"]["below_fg_iou"] == pytest.approx(float((best_iou < 0.5).float().mean()), abs=1e-4)
    counts = summary["anchors_per_image"]
    assert (counts["positive"], counts["negative"], counts["ignored"]) == pytest.approx(
        (positive / 12, negative / 12, ignored / 12), abs=0.01
    )
    assert (counts["fewest_positive"], counts["most_positive"]) == (min(counted), max(counted))
    assert sum(summary["box_sizes"]["counts"]) == summary["boxes"]
    sizes = summary["box_sizes"]
    assert sizes["small"] + sizes["medium"] + sizes["large"] == summary["boxes"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    pictures = sorted(path.name for path in (tmp_path / "ground_truth").iterdir())
    assert pictures == ["val_000000.png", "val_000004.png", "val_000008.png"]
    for name in ("class_counts.png", "box_sizes.png", "anchor_iou.png"):
        assert Image.open(tmp_path / name).width > 400


def test_crowds_empty_images_and_anchor_function(tmp_path: Path) -> None:
    dataset = CocoDetection(write_coco_folder(tmp_path))
    asked = []

    def anchors(height: int, width: int) -> torch.Tensor:
        asked.append((height, width))
        return grid(height, width, 8, (8,))

    summary = inspect_dataset(dataset, anchors)
    assert asked == [(48, 64)]  # once per image size
    assert summary["images_without_boxes"] == 2 and summary["crowd_boxes"] == 1 and summary["boxes"] == 2
    assert summary["classes"]["car"] == {"boxes": 0, "images": 0, "median_size": None, "mean_best_iou": None}
    # The crowd region covers its image, so that no anchor of this image is background.
    assert summary["anchors_per_image"]["ignored"] >= 48 / 3
    remarks = " ".join(summary["remarks"])
    for words in (
        "classes without a box (1): car",
        "classes with fewer than 10 boxes (2): dog (1), kite (1)",
        "100% of the boxes have no anchor with an IoU of at least 0.5",
        "images without a box, which are trained on as background: 2",
    ):
        assert words in remarks


def test_progress_is_reported() -> None:
    steps = []
    inspect_dataset(DigitScenes("val", 3), grid(256, 256), progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_draw_detections(tmp_path: Path) -> None:
    image = torch.zeros(3, 80, 100, dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 20.0, 60.0, 70.0], [0.0, 0.0, 100.0, 80.0], [float("nan"), 0, 5, 5]])
    labels = torch.tensor([1, 0, 0])
    plain = draw_detections(image, boxes, labels)
    color = torch.tensor(class_color(1), dtype=torch.uint8)
    assert torch.equal(plain[:, 20, 30], color) and torch.equal(plain[:, 69, 30], color)
    assert torch.equal(plain[:, 40, 10], color) and torch.equal(plain[:, 40, 59], color)
    assert not plain[:, 40:60, 20:50].any() and not image.any()  # only outlines are drawn, on a copy
    assert torch.equal(plain[:, 79, 50], torch.tensor(class_color(0), dtype=torch.uint8))
    named = draw_detections(image, boxes, labels, ["Käfer", "猫 " * 30], torch.tensor([0.9, 0.5, 0.1]))
    assert (named != plain).any()
    floating = draw_detections(image / 255, boxes, labels)
    assert torch.equal(floating, plain)
    path = save_png(named, tmp_path / "deep" / "picture.png")
    assert Image.open(path).size == (100, 80) and len(list(path.parent.iterdir())) == 1


def test_thin_boxes_and_their_old_name() -> None:
    image, box = torch.zeros(3, 750, 750, dtype=torch.uint8), torch.tensor([[100.0, 100.0, 500.0, 500.0]])
    thin = draw_detections(image, box, thin=torch.tensor([True]))
    thick = draw_detections(image, box, thin=torch.tensor([False]))
    assert [int(drawn[0, 300, :300].bool().sum()) for drawn in (thin, thick)] == [1, 3]
    with pytest.warns(FutureWarning, match="dashed is now thin"):
        assert torch.equal(draw_detections(image, box, dashed=torch.tensor([True])), thin)


def test_accented_letters_have_glyphs() -> None:
    def drawn(name: str) -> torch.Tensor:
        image, box = torch.zeros(3, 100, 200, dtype=torch.uint8), torch.tensor([[10.0, 50.0, 90.0, 90.0]])
        return draw_detections(image, box, torch.tensor([0]), [name])

    assert not torch.equal(drawn("ä"), drawn("é")) and not torch.equal(drawn("ł"), drawn("ж"))


def test_draw_nothing_and_rejects_bad_shapes() -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    assert torch.equal(draw_detections(image, torch.zeros(0, 4)), image)
    with pytest.raises(ValueError, match=r"boxes must be \[n, 4\], got \[2, 5\]"):
        draw_detections(image, torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"scores must be \[2\], got \[3\]"):
        draw_detections(image, torch.zeros(2, 4), scores=torch.zeros(3))
    with pytest.raises(ValueError, match=r"image must be \[3, H, W\]"):
        draw_detections(image[0], torch.zeros(2, 4))
