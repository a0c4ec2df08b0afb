"""Folders as exporters write them: recognised, and read with the right boxes, classes and splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retina_ops.cli import main
from retina_ops.data import DataError, DataWarning, open_dataset
from retina_ops.data.opening import has_split
from retina_ops.evaluation import evaluate_detections
from retina_ops.models import ModelConfig, build_model
from retina_ops.models.weights import save_model
from retina_ops.training import DataConfig
from retina_ops.training.datasets import open_run_datasets

SIZE = (80, 60)  # width, height
BOX = [10.0, 20.0, 30.0, 16.0]  # x, y, w, h


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", SIZE)
    if path.suffix.lower() in (".jfif", ".jpe"):
        image.save(path, "JPEG")
    else:
        image.save(path)


def coco(path: Path, names: list[str], categories: list[dict[str, Any]] | None = None, **changes: Any) -> None:
    """A COCO file with one box of the last category per image."""
    categories = categories or [{"id": 1, "name": "cell"}]
    content = {
        "images": [
            {"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
            for number, name in enumerate(names, start=1)
        ],
        "categories": categories,
        "annotations": [
            {"id": number, "image_id": number, "category_id": categories[-1]["id"], "bbox": BOX}
            for number in range(1, len(names) + 1)
        ],
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def voc(path: Path, filename: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, w, h = BOX
    path.write_text(
        f"<annotation><filename>{filename}</filename><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        f"<object><name>cell</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>"
        f"<ymax>{y + h}</ymax></bndbox></object></annotation>"
    )


def yolo(path: Path, line: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, w, h = BOX
    numbers = [(x + w / 2) / SIZE[0], (y + h / 2) / SIZE[1], w / SIZE[0], h / SIZE[1]]
    path.write_text(line or f"0 {' '.join(map(str, numbers))}\n")


def roboflow_coco(folder: Path) -> None:
    categories = [
        {"id": 0, "name": "cell", "supercategory": "none"},
        {"id": 1, "name": "cell", "supercategory": "cell"},
    ]
    for split in ("train", "valid", "test"):
        picture(folder / split / "a.jpg")
        coco(folder / split / "_annotations.coco.json", ["a.jpg"], categories)


def cvat_coco(folder: Path) -> None:
    picture(folder / "images" / "default" / "day 1" / "a.png")
    coco(folder / "annotations" / "instances_default.json", ["day 1/a.png"])


def label_studio(folder: Path) -> None:
    picture(folder / "images" / "a.png")
    coco(folder / "result.json", ["images\\a.png"])


def label_img(folder: Path) -> None:
    picture(folder / "a.JPG")
    picture(folder / "b c (1).jpg")
    voc(folder / "a.xml", "a.JPG")
    voc(folder / "b c (1).xml")
    (folder / "._a.xml").write_bytes(b"\x00\x05\x16\x07 resource fork")
    (folder / "._a.jpg").write_bytes(b"\x00")


def kaggle(folder: Path) -> None:
    for number in (1, 2):
        picture(folder / "images" / f"a{number}.png")
        voc(folder / "annotations" / f"a{number}.xml", f"a{number}.png")


def voc_per_split(folder: Path) -> None:
    for split in ("train", "valid", "test"):
        picture(folder / split / "a.jpg")
        voc(folder / split / "a.xml", "a.jpg")


def voc_devkit(folder: Path) -> None:
    inner = folder / "VOCdevkit" / "VOC2012"
    picture(inner / "JPEGImages" / "a.jpg")
    voc(inner / "Annotations" / "a.xml")
    (inner / "ImageSets" / "Main").mkdir(parents=True)
    for split in ("train", "val"):
        (inner / "ImageSets" / "Main" / f"{split}.txt").write_text("a\n")


def ultralytics(folder: Path) -> None:
    for split in ("train", "val"):
        picture(folder / "images" / split / "a.png")
        yolo(folder / "labels" / split / "a.txt")
    (folder / "data.yaml").write_text(
        "path: ../datasets/moved\ntrain: images/train\nval: images/val\nnames:\n  0: cell\n"
    )


def roboflow_yolo(folder: Path) -> None:
    for split in ("train", "valid", "test"):
        picture(folder / split / "images" / "a.png")
        yolo(folder / split / "labels" / "a.txt")
    (folder / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['cell']\n"
    )


LAYOUTS: dict[str, tuple[Any, str, list[str]]] = {
    "roboflow coco": (roboflow_coco, "COCO files", ["train", "val", "test"]),
    "cvat coco": (cvat_coco, "one COCO file", []),
    "label studio": (label_studio, "one COCO file", []),
    "labelImg": (label_img, "annotation files of VOC's form", []),
    "kaggle": (kaggle, "annotation files of VOC's form", []),
    "voc per split": (voc_per_split, "annotation files of VOC's form per split", ["train", "val", "test"]),
    "voc devkit": (voc_devkit, "a Pascal VOC folder", ["train", "val"]),
    "ultralytics": (ultralytics, "a YOLO folder", ["train", "val"]),
    "roboflow yolo": (roboflow_yolo, "a YOLO folder", ["train", "val", "test"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(tmp_path: Path, name: str) -> None:
    write, kind, splits = LAYOUTS[name]
    write(tmp_path)
    for split in splits or ["train", "test"]:
        dataset = open_dataset(tmp_path, split=split)
        assert dataset.layout == kind and dataset.category_names == ["cell"]
        for index in range(len(dataset)):
            image, target = dataset[index]
            assert image.shape == (3, SIZE[1], SIZE[0])
            x, y, w, h = BOX
            assert target["boxes"].tolist() == [pytest.approx([x, y, x + w, y + h], abs=1e-3)]
            assert target["labels"].tolist() == [0]
    assert [split for split in ("train", "val", "test") if has_split(tmp_path, split)] == splits


@pytest.mark.parametrize("name", LAYOUTS)
def test_validation_is_never_the_training_set(tmp_path: Path, name: str) -> None:
    """A folder without splits has no validation set; one that has the split gives it."""
    write, _, splits = LAYOUTS[name]
    write(tmp_path)
    datasets = open_run_datasets(DataConfig(train=str(tmp_path)))
    assert (datasets.val is not None) == ("val" in splits)


def test_missing_split(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    with pytest.raises(DataError, match=r"data\.yaml: has no split test; there are: train, val"):
        open_dataset(tmp_path, split="test")


def test_unknown_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"is not a data set that is known: Annotations and ImageSets \(VOC\)"):
        open_dataset(tmp_path)


def test_two_files_without_a_split(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name in ("one.json", "two.json"):
        coco(tmp_path / name, ["a.png"])
    with pytest.raises(DataError, match=r"has 2 COCO files \(one\.json, two\.json\) and none is named as a split"):
        open_dataset(tmp_path)


def test_inspect_says_what_it_took_the_folder_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roboflow_coco(tmp_path / "data")
    arguments = ["inspect", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert f"{tmp_path / 'data'}: taken as COCO files" in captured.err and "cell" in captured.out


# --- names, ids, numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["images/a.png", "images\\a.png", "/home/someone/project/images/a.png", "C:\\Users\\me\\a.png",
     "https://example.org/data/a%20b.png?token=1", "s3://bucket/set/a.png", "./a.png", "../elsewhere/a.png"],
)  # fmt: skip
def test_image_names(tmp_path: Path, name: str) -> None:
    """The last part of a name that leads nowhere is looked for in the image folder."""
    picture(tmp_path / "pictures" / ("a b.png" if "%20" in name else "a.png"))
    coco(tmp_path / "annotations.json", [name])
    dataset = open_dataset(tmp_path / "annotations.json", tmp_path / "pictures")
    assert dataset.load_image(0).shape == (3, SIZE[1], SIZE[0])
    assert dataset.file_name(0) in ("a.png", "a b.png")


def test_ambiguous_name(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        picture(tmp_path / "images" / folder / "a.png")
    coco(tmp_path / "annotations.json", ["C:\\a.png"])
    with pytest.raises(DataError, match=r"has 2 images named a\.png, such as one/a\.png and two/a\.png"):
        open_dataset(tmp_path / "annotations.json", tmp_path / "images")


@pytest.mark.parametrize("suffix", [".JPG", ".jfif", ".jpe", ".WEBP", ".avif", ".PNG", ".tga"])
def test_suffixes(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / f"a{suffix}")
    voc(tmp_path / "a.xml")
    assert open_dataset(tmp_path).file_name(0) == f"a{suffix}"


def test_integral_floats_and_strings(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    coco(
        tmp_path / "annotations.json",
        [],
        images=[{"id": "7", "file_name": "a.png", "height": 60.0, "width": "80"}],
        categories=[{"id": 3.0, "name": "cell"}],
        annotations=[{"id": 1, "image_id": 7.0, "category_id": "3", "bbox": BOX}],
    )
    dataset = open_dataset(tmp_path / "annotations.json")
    assert dataset.image_id(0) == 7 and dataset.categories == [{"id": 3, "name": "cell"}]
    assert dataset.image_size(0) == (60, 80) and len(dataset[0][1]["boxes"]) == 1


def test_numpy_in_memory() -> None:
    """As people build these dicts from arrays."""
    truth = {
        "images": [{"id": np.int64(1)}],
        "categories": [{"id": np.int32(2), "name": "cell"}],
        "annotations": [
            {
                "image_id": np.int64(1),
                "category_id": np.int64(2),
                "bbox": np.array(BOX, np.float32),
                "iscrowd": np.int64(0),
            }
        ],
    }
    found = [{"image_id": np.int64(1), "category_id": np.int8(2), "bbox": np.array(BOX), "score": np.float32(0.5)}]
    assert evaluate_detections(truth, found)["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [1.5, "one", None, True, "1e3", float("nan")])
def test_other_ids_are_refused(tmp_path: Path, value: Any) -> None:
    picture(tmp_path / "a.png")
    coco(tmp_path / "annotations.json", [], images=[{"id": value, "file_name": "a.png"}], annotations=[])
    with pytest.raises(DataError, match="an image must have an integer id"):
        open_dataset(tmp_path / "annotations.json")


@pytest.mark.parametrize("bad", [{"bbox": [1, 2, 3]}, {"category_id": 9}, {"image_id": 77}, {"bbox": "x"}])
def test_bad_annotations_are_skipped(tmp_path: Path, bad: dict[str, Any]) -> None:
    """On request, and counted."""
    picture(tmp_path / "a.png")
    good = {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX}
    images = [{"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}]
    coco(tmp_path / "annotations.json", [], images=images, annotations=[good, {**good, **bad}])
    with pytest.raises(DataError):
        open_dataset(tmp_path / "annotations.json")
    with pytest.warns(DataWarning, match="left out 1 of 2 annotations; the first: .*annotation 1"):
        dataset = open_dataset(tmp_path / "annotations.json", on_bad_annotation="skip")
    assert len(dataset[0][1]["boxes"]) == 1


def test_bad_annotations_of_other_formats(tmp_path: Path) -> None:
    picture(tmp_path / "voc" / "a.png")
    voc(tmp_path / "voc" / "a.xml")
    text = (tmp_path / "voc" / "a.xml").read_text()
    broken = "<object><name>cell</name><bndbox><xmin>?</xmin></bndbox></object></annotation>"
    (tmp_path / "voc" / "a.xml").write_text(text.replace("</annotation>", broken))
    picture(tmp_path / "yolo" / "images" / "a.png")
    yolo(tmp_path / "yolo" / "labels" / "a.txt", "0 0.5 0.5 0.2 0.2\n0 0.5 x 0.2 0.2\n")
    (tmp_path / "yolo" / "data.yaml").write_text("train: images\nnames: [cell]\n")
    for folder in ("voc", "yolo"):
        with pytest.warns(DataWarning, match="left out 1 of 2 annotations"):
            dataset = open_dataset(tmp_path / folder, on_bad_annotation="skip")
        assert len(dataset[0][1]["boxes"]) == 1


@pytest.mark.parametrize("annotations", [None, []])
def test_a_set_without_annotations_is_evaluated(
    tmp_path: Path, annotations: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as COCO's test-dev: the command writes detections. Training refuses it."""
    picture(tmp_path / "a.png")
    images = [{"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}]
    coco(tmp_path / "test.json", [], images=images, annotations=annotations)
    if annotations is None:
        content = json.loads((tmp_path / "test.json").read_text())
        del content["annotations"]
        (tmp_path / "test.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no usable box"):
        open_dataset(tmp_path / "test.json")
    config = ModelConfig(architecture="retinanet_small_fpn", fpn_channels=16, head_depth=1, min_size=64, max_size=96)
    save_model(build_model(config, [{"id": 1, "name": "cell"}]), tmp_path / "model")
    arguments = ["--data", str(tmp_path / "test.json"), "--weights", str(tmp_path / "model")]
    assert main(["evaluate", *arguments, "--output", str(tmp_path / "out")]) == 0
    assert "no objects are annotated: there is nothing to compare with" in capsys.readouterr().out
    assert isinstance(json.loads((tmp_path / "out" / "detections.json").read_text()), list)


# --- YOLO -------------------------------------------------------------------------------------------------------------


def test_yolo_polygon_list_and_missing_labels(tmp_path: Path) -> None:
    """A polygon is its bounding box; an image without a label file is background; splits may be lists of files."""
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png")
    yolo(tmp_path / "labels" / "a.txt", "1 0.25 0.5 0.5 0.25 0.75 0.75\n")
    (tmp_path / "train.txt").write_text("./images/a.png\n./images/b.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cell, platelet]\n")
    dataset = open_dataset(tmp_path)
    assert dataset[0][1]["boxes"].tolist() == [[20, 15, 60, 45]] and dataset[0][1]["labels"].tolist() == [1]
    assert len(dataset) == 2 and len(dataset[1][1]["boxes"]) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 10 20 30 16", "has numbers above 1: YOLO's boxes are shares"),
        ("5 0.5 0.5 0.1 0.1", "line 1 has class 5, expected 0 to 0"),
        ("cell 0.5 0.5 0.1 0.1", "line 1 must be numbers: class x y width height, got 'cell"),
        ("0 0.5 0.5", "line 1 must be class x y width height"),
        ("0 nan 0.5 0.1 0.1", "line 1 must be class x y width height"),
    ],
)
def test_bad_yolo_labels(tmp_path: Path, line: str, message: str) -> None:
    picture(tmp_path / "images" / "a.png")
    yolo(tmp_path / "labels" / "a.txt", line)
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cell]\n")
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "train: images\n", "a: [", "names: {3: a}\ntrain: images\n", "names: []"]
)
def test_bad_yaml(tmp_path: Path, text: str) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data\.yaml: "):
        open_dataset(tmp_path)


def test_voc_that_counts_from_0(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    voc(tmp_path / "a.xml")
    text = (tmp_path / "a.xml").read_text().replace("<xmin>11.0</xmin>", "<xmin>0</xmin>")
    (tmp_path / "a.xml").write_text(text)
    with pytest.warns(UserWarning, match="begin at pixel 0, so its tool counts from 0: set one_based = false"):
        open_dataset(tmp_path)
