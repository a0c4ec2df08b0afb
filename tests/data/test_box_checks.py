"""Boxes that do not belong to their images: counted, or refused with the likely cause; the same with a cache."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from retina_ops.data import DataError, DataWarning, VocDetection, inspect_dataset, open_dataset
from retina_ops.data.cache import CachedDataset
from retina_ops.data.transforms import AugmentationConfig, AugmentedDataset, build_transforms
from retina_ops.evaluation import CocoEvaluator, evaluate_detections

HEIGHT, WIDTH = 300, 400


def write_set(folder: Path, boxes: list[list[float]], **entry: Any) -> Path:
    """One image of 400 x 300 pixels with these boxes."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box, **entry}
            for number, box in enumerate(boxes, start=1)
        ],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


PIXELS = [[10.0 * i, 20.0 * i, 30.0, 40.0] for i in range(1, 10)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT],
            r"9 of 9 boxes are smaller than a pixel; their numbers are in 0\.\.1: are they normalised\?",
        ),
        (
            lambda x, y, w, h: [x + 200, y + 60, x + w + 200, y + h + 60],
            r"\d of 9 boxes extend far beyond their image; are they corners \(x1, y1, x2, y2\)\?",
        ),
        (
            lambda x, y, w, h: [x * 4, y * 4, w * 4, h * 4],
            r"\d of 9 boxes extend far beyond their image; were they made on images of another size\?",
        ),
        (lambda x, y, w, h: [x, y, 0, h], "9 of 9 boxes have no area: a side is not positive or not finite"),
        (lambda x, y, w, h: [x + w, y + h, -w, -h], "9 of 9 boxes have no area"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    """Not trained on in silence. As an exception of single boxes the same is counted."""
    wrong = [change(*box) for box in PIXELS]
    with pytest.raises(DataError, match=message):
        open_dataset(write_set(tmp_path, wrong))
    with pytest.warns(DataWarning, match="of 12 boxes, "):
        dataset = open_dataset(write_set(tmp_path, wrong[-3:] + PIXELS))
    assert sum(dataset.box_counts.values()) >= 2  # type: ignore[attr-defined]


def test_small_boxes_are_kept_and_counted(tmp_path: Path) -> None:
    """Of another reason than a format: most are ordinary."""
    with pytest.warns(DataWarning, match="of 11 boxes, .*; 2 have a side under one pixel"):
        dataset = open_dataset(write_set(tmp_path, [*PIXELS, [50.0, 50.0, 0.5, 0.5], [60.0, 60.0, 0.2, 9.0]]))
    assert len(dataset[0][1]["boxes"]) == 11
    summary = inspect_dataset(dataset, torch.tensor([[0.0, 0, 64, 64]]))
    assert summary["changed_boxes"] == {"clipped": 0, "degenerate": 0, "outside": 0, "tiny": 2}
    assert "boxes that do not fit their image: 2 tiny" in summary["remarks"]


def test_boxes_that_reach_out_a_little_are_clipped(tmp_path: Path) -> None:
    """Even all of them: it is another matter when most of a box is outside."""
    with pytest.warns(DataWarning, match="of 2 boxes, 2 extend beyond the image and were clipped"):
        dataset = open_dataset(write_set(tmp_path, [[-3.0, 10.0, 60.0, 60.0], [345.0, 200.0, 60.0, 60.0]]))
    assert dataset[0][1]["boxes"].tolist() == [[0, 10, 57, 70], [345, 200, 400, 260]]


@pytest.mark.parametrize("scale", [30, 300, 900])
def test_cache_keeps_every_box(tmp_path: Path, scale: int) -> None:
    """Also where the model's scale makes boxes smaller than a pixel."""
    boxes = [[10.0 * i, 9.0 * i, 4.0 + i, 3.0 + i] for i in range(30)]
    dataset = open_dataset(write_set(tmp_path, boxes))
    transforms = build_transforms(AugmentationConfig(horizontal_flip=0.5, vertical_flip=0.5))
    plain = AugmentedDataset(dataset, transforms, seed=3)[0][1]
    cached = AugmentedDataset(CachedDataset(dataset, scale, 2 * scale), transforms, seed=3)[0][1]
    assert len(plain["boxes"]) == len(cached["boxes"]) == 30
    assert torch.equal(plain["labels"], cached["labels"])


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "false", "False", None])
def test_no_crowds(tmp_path: Path, value: Any) -> None:
    file = write_set(tmp_path, PIXELS, iscrowd=value)
    assert open_dataset(file)[0][1]["iscrowd"].sum() == 0
    assert evaluate_detections(file, [])["ground_truths"] == 9


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "true"])
def test_crowds(tmp_path: Path, value: Any) -> None:
    file = write_set(tmp_path, PIXELS, iscrowd=value)
    assert open_dataset(file)[0][1]["iscrowd"].sum() == 9
    assert evaluate_detections(file, [])["ground_truths"] == 0


@pytest.mark.parametrize("value", ["maybe", 2, [], 0.5])
def test_other_crowd_flags_are_refused(tmp_path: Path, value: Any) -> None:
    file = write_set(tmp_path, PIXELS, iscrowd=value)
    for read in (open_dataset, lambda path: evaluate_detections(path, [])):
        with pytest.raises(DataError, match="iscrowd of annotation 1 must be 0 or 1, got"):
            read(file)


def test_one_file_has_one_ap(tmp_path: Path) -> None:
    """Through the evaluator and through the function, also with boxes that are left out."""
    boxes = [*PIXELS, [50.0, 60.0, -20.0, 10.0], [float("nan"), 1.0, 2.0, 3.0]]
    file = write_set(tmp_path, boxes)
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9 - i / 20} for i, box in enumerate(PIXELS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        evaluator = CocoEvaluator(open_dataset(file))
        corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in PIXELS])
        scores = torch.tensor([entry["score"] for entry in found], dtype=torch.float64)
        labels = torch.zeros(9, dtype=torch.int64)
        evaluator.update([{"image_id": 1}], [{"boxes": corners, "scores": scores, "labels": labels}])
        metrics = evaluate_detections(file, found)
        assert evaluator.compute()["AP"] == metrics["AP"] == pytest.approx(1.0)


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def write_voc(folder: Path, stems: list[str], lines: list[str], namespace: str = "") -> Path:
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    for stem in stems:
        Image.new("RGB", (60, 50)).save(folder / "JPEGImages" / f"{stem}.jpg")
        (folder / "Annotations" / f"{stem}.xml").write_text(
            f"<annotation{namespace}><size><width>60</width><height>50</height></size><object><name>cell</name>"
            "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>20</xmax><ymax>25</ymax></bndbox></object></annotation>"
        )
    (folder / "ImageSets" / "Main" / "train.txt").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    return folder


@pytest.mark.parametrize(
    "line",
    ["cell (1)", "cell (1)  1", "cell (1) -1", "cell (1).jpg", "cell (1).xml", "JPEGImages/cell (1).jpg",
     "C:\\data\\cell (1).jpg", "  cell (1)  "],
)  # fmt: skip
def test_voc_names_are_looked_up(tmp_path: Path, line: str) -> None:
    """They may have spaces, a path, a suffix, and a flag after them."""
    dataset = VocDetection(write_voc(tmp_path, ["cell (1)", "cell"], [line, "cell"]))
    assert [dataset.file_name(index) for index in range(2)] == ["cell (1).jpg", "cell.jpg"]


def test_voc_name_that_ends_in_a_flag(tmp_path: Path) -> None:
    dataset = VocDetection(write_voc(tmp_path, ["cell 1", "cell"], ["cell 1", "cell  1"]))
    assert [dataset.file_name(index) for index in range(2)] == ["cell 1.jpg", "cell.jpg"]


def test_voc_namespace(tmp_path: Path) -> None:
    dataset = VocDetection(write_voc(tmp_path, ["a"], ["a"], ' xmlns="http://example.org/voc"'))
    assert dataset[0][1]["boxes"].tolist() == [[10, 5, 20, 25]]


def test_voc_missing_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cell \(2\)\.xml: no such annotation file"):
        VocDetection(write_voc(tmp_path, ["a"], ["cell (2)"]))
