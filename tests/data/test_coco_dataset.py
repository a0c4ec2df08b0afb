"""COCO JSON: the items of a data set, and one-line errors for all faults of the files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_samples import HEIGHT, WIDTH, coco_content, write_coco_folder, write_image
from PIL import Image

from retina_ops.data import (
    CocoDetection,
    DataError,
    DataWarning,
    detection_loader,
    ground_truth_of,
    list_images,
    open_dataset,
    read_image,
)


def test_item(tmp_path: Path) -> None:
    dataset = CocoDetection(write_coco_folder(tmp_path))
    assert dataset.categories == [{"id": 3, "name": "car"}, {"id": 7, "name": "dog"}, {"id": 90, "name": "kite"}]
    image, target = dataset[1]
    stored = np.array(Image.open(tmp_path / "images" / "a.png"))
    assert image.dtype == torch.uint8 and torch.equal(image, torch.from_numpy(stored).permute(2, 0, 1))
    assert torch.equal(target["boxes"], torch.tensor([[4.0, 5, 24, 15], [30.5, 1.25, 32.5, 41.25]]))
    assert target["labels"].tolist() == [1, 2] and target["labels"].dtype == torch.int64
    assert target["area"].tolist() == [150.5, 80.0]  # as annotated; without an annotation, that of the box
    assert target["image_id"] == 10
    assert dataset[0][1]["iscrowd"].tolist() == [1]
    assert dataset[2][1]["boxes"].shape == (0, 4)  # images without objects are kept


def test_categories_of_a_model_decide_the_labels(tmp_path: Path) -> None:
    file = write_coco_folder(tmp_path)
    asked = [{"id": 1, "name": "dog"}, {"id": 2, "name": "kite"}, {"id": 5, "name": "car"}, {"id": 6, "name": "cow"}]
    dataset = CocoDetection(file, categories=asked)
    assert dataset[1][1]["labels"].tolist() == [0, 1]
    assert [entry["category_id"] for entry in ground_truth_of(dataset)["annotations"]] == [5, 1, 2]
    with pytest.raises(DataError, match=r"train\.json: annotation 3 has category 'kite', which is not one of"):
        CocoDetection(file, categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "car"}])


def broken(change) -> dict:
    content = coco_content()
    change(content)
    return content


BAD_CONTENT = {
    "a list": ([1], "expected an object, got list"),
    "no annotations": (broken(lambda c: c.pop("annotations")), "has no usable box on its 3 images"),
    "no images": (broken(lambda c: c["images"].clear()), "lists no images: the data set is empty"),
    "no boxes": (broken(lambda c: c["annotations"].clear()), "has no usable box on its 3 images"),
    "no categories": (broken(lambda c: c["categories"].clear()), "lists no categories"),
    "unknown category": (
        broken(lambda c: c["annotations"][1].update(category_id=99)),
        "annotation 2 has category id 99, which its categories do not list",
    ),
    "unknown image": (broken(lambda c: c["annotations"][0].update(image_id=5)), "annotation 1 is of image 5"),
    "string id": (broken(lambda c: c["images"][0].update(id="x")), "an image must have an integer id"),
    "same image twice": (broken(lambda c: c["images"][0].update(id=10)), "two images with the same id"),
    "same category twice": (
        broken(lambda c: c["categories"][0].update(id=3)),
        "lists two categories with the id 3",
    ),
    "bad box": (broken(lambda c: c["annotations"][0].update(bbox=[1, 2, 3])), r"must have a bbox \[x, y, width"),
    "no box": (broken(lambda c: c["annotations"][0].pop("bbox")), "must have a bbox"),
    "bad size": (broken(lambda c: c["images"][0].update(width=-4)), "image 30 has height 48 and width -4"),
}


@pytest.mark.parametrize("content, reason", BAD_CONTENT.values(), ids=BAD_CONTENT)
def test_rejects_bad_content(tmp_path: Path, content, reason: str) -> None:
    file = write_coco_folder(tmp_path, content)
    with pytest.raises(DataError, match=reason) as caught:
        CocoDetection(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b'{"images": [', "not valid JSON: Expecting value at line 1, column 13"),
        (b"", "is empty, expected JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
    ids=["cut off", "empty", "not text", "nested"],
)
def test_rejects_malformed_json(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "train.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        CocoDetection(file)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is None


def test_rejects_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json: no such file$"):
        CocoDetection(tmp_path / "gone.json")
    file = write_coco_folder(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such image folder"):
        CocoDetection(file, tmp_path / "nowhere")
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png: no such image file; .*train\.json lists it$"):
        CocoDetection(file)
    (tmp_path / "images" / "c.png").unlink()
    with pytest.raises(DataError, match=r"c\.png: .* \(and 1 more of 3 images are missing\)"):
        CocoDetection(file)
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(DataError, match=r"its image c\.png is in none of .*images"):
        CocoDetection(file)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


BAD_IMAGES = {
    "truncated": (truncate, "cannot be read as an image"),
    "text": (lambda path: path.write_text("not an image"), "is not an image that Pillow can read"),
    "empty": (lambda path: path.write_bytes(b""), "is an empty file"),
    "other size": (lambda path: write_image(path, 50, 40), "is 50x40 pixels, but its annotation says 64x48"),
}


@pytest.mark.parametrize("spoil, reason", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_image(tmp_path: Path, spoil, reason: str) -> None:
    file = write_coco_folder(tmp_path)
    spoil(tmp_path / "images" / "a.png")
    dataset = CocoDetection(file)
    with pytest.raises(DataError, match=rf"a\.png: {reason}") as caught:
        dataset.check_images()
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=reason):
        dataset[1]
    with pytest.warns(
        DataWarning, match=r"train\.json: skipped 1 of 3 images that cannot be read; the first: .*a\.png"
    ):
        kept = CocoDetection(file, on_bad_image="skip")
    assert [kept.image_id(i) for i in range(len(kept))] == [30, 20]
    assert kept.target(0)["labels"].tolist() == [0] and len(kept.target(1)["labels"]) == 0
    assert {entry["id"] for entry in ground_truth_of(kept)["images"]} == {20, 30}


def test_skip_also_where_no_size_is_stated(tmp_path: Path) -> None:
    content = coco_content()
    for entry in content["images"]:
        del entry["width"], entry["height"]
    file = write_coco_folder(tmp_path, content)
    assert CocoDetection(file).image_size(0) == (HEIGHT, WIDTH)
    (tmp_path / "images" / "b.png").write_text("not an image")
    with pytest.raises(DataError, match=r"b\.png: is not an image"):
        CocoDetection(file)
    with pytest.warns(DataWarning, match="skipped 1 of 3"):
        assert len(CocoDetection(file, on_bad_image="skip")) == 2


def test_error_in_a_worker_is_one_line(tmp_path: Path) -> None:
    file = write_coco_folder(tmp_path)
    truncate(tmp_path / "images" / "a.png")
    loader = detection_loader(CocoDetection(file), [[1]], workers=1)
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image") as caught:
        next(iter(loader))
    assert "\n" not in str(caught.value) and caught.value.source.endswith("a.png")


def test_boxes_are_clipped_and_counted(tmp_path: Path) -> None:
    content = coco_content()
    boxes = {
        "reaches out": [60, 40, 20, 20],
        "by rounding only": [10, 10, WIDTH - 10 + 0.5, 5],
        "outside": [100, 10, 5, 5],
        "no width": [10, 10, 0, 5],
        "negative": [10, 10, -3, 5],
        "not a number": [float("nan"), 1, 2, 3],
    }
    content["annotations"] = [
        {"id": i, "image_id": 10, "category_id": 7, "bbox": box} for i, box in enumerate(boxes.values())
    ]
    file = write_coco_folder(tmp_path, content)
    with pytest.warns(DataWarning) as caught:
        dataset = CocoDetection(file)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert str(caught[0].message).endswith(
        ": of 6 boxes, 1 extend beyond the image and were clipped; "
        "skipped were 1 outside the image and 3 without an area"
    )
    assert dataset.box_counts == {"clipped": 1, "degenerate": 3, "outside": 1, "tiny": 0}
    assert dataset.target(1)["boxes"].tolist() == [[60, 40, 64, 48], [10, 10, 64, 15]]
    published = [entry["bbox"] for entry in ground_truth_of(dataset)["annotations"]]
    assert published == [boxes["reaches out"], boxes["by rounding only"], boxes["outside"], boxes["no width"]]


def test_open_dataset(tmp_path: Path) -> None:
    file = write_coco_folder(tmp_path)
    assert isinstance(open_dataset(file), CocoDetection)
    assert open_dataset(tmp_path, split="train").annotation_file == file
    file.rename(file.with_name("instances_val2017.json"))
    assert len(open_dataset(tmp_path, split="val")) == 3
    assert open_dataset("digits", split="test").name == "digits scenes (test)"
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no split train; there are: val"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"a\.png: is not a data set"):
        open_dataset(tmp_path / "images" / "a.png")


def test_deprecated_subset(tmp_path: Path) -> None:
    dataset = CocoDetection(write_coco_folder(tmp_path))
    with pytest.warns(FutureWarning, match="will be removed"):
        by_method = dataset.subset([2, 1])
    with pytest.warns(FutureWarning, match="SubsetDataset will be removed"):
        from retina_ops.data import SubsetDataset
    for part in (by_method, SubsetDataset(dataset, [2, 1])):
        assert len(part) == 2 and part[1][1]["image_id"] == 10 and part.image_size(0) == (HEIGHT, WIDTH)
        assert len(ground_truth_of(part)["annotations"]) == 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_read_image_modes(tmp_path: Path, mode: str) -> None:
    grey = np.linspace(0, 255, 64 * 48).reshape(48, 64)
    if mode == "I;16":
        stored = Image.fromarray((grey * 257).astype(np.uint16))
    else:
        stored = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
        stored = stored.quantize(256) if mode == "P" else stored.convert(mode)
    assert stored.mode == mode
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    stored.save(path)
    image = read_image(path)
    assert image.shape == (3, 48, 64) and image.dtype == torch.uint8
    if mode != "1":
        assert (image.float().mean(0) - torch.from_numpy(grey)).abs().max() < 2


def test_read_image_applies_orientation(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.jpg", 64, 48)
    turned = Image.open(path)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(path, exif=exif, quality=95)
    assert read_image(path).shape == (3, 64, 48)
    assert read_image(path, (64, 48)).shape == (3, 64, 48)
    assert read_image(path, (48, 64)).shape == (3, 48, 64)  # annotations refer to the stored pixels


def test_list_images(tmp_path: Path) -> None:
    write_coco_folder(tmp_path)
    (tmp_path / "images" / "notes.txt").write_text("x")
    names = [path.name for path in list_images([tmp_path / "images", tmp_path / "images" / "b.png"])]
    assert names == ["a.png", "b.png", "c.png", "b.png"]
    with pytest.raises(DataError, match="holds no image"):
        list_images(tmp_path / "annotations")
    with pytest.raises(DataError, match="no such file or folder"):
        list_images(tmp_path / "gone.png")


def test_real_photographs(bccd: Path) -> None:
    counts = {}
    for split in ("train", "val", "test"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = open_dataset(bccd / "annotations" / f"{split}.json")
        counts[split] = len(dataset), sum(len(dataset.target(i)["boxes"]) for i in range(len(dataset)))
    assert counts == {"train": (205, 2804), "val": (87, 1137), "test": (72, 945)}
    dataset.check_images()
    image, target = dataset[0]
    assert image.shape == (3, 480, 640) and dataset.category_names == ["RBC", "WBC", "Platelets"]
    published = json.loads((bccd / "annotations" / "test.json").read_text())
    mine = [a for a in published["annotations"] if a["image_id"] == target["image_id"]]
    xywh = torch.tensor([a["bbox"] for a in mine])
    assert torch.equal(target["boxes"], torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1))
