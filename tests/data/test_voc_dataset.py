"""Pascal VOC folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_samples import voc_object, write_voc_folder

from retina_ops.data import DataError, DataWarning, VocDetection, ground_truth_of, open_dataset
from retina_ops.data.voc import VOC_NAMES


def test_item(tmp_path: Path) -> None:
    dataset = VocDetection(write_voc_folder(tmp_path))
    assert dataset.category_names == VOC_NAMES and len(VOC_NAMES) == 20
    image, target = dataset[0]
    assert image.shape == (3, 48, 64)
    # VOC counts from 1 and includes the last pixel: the whole image is (1, 1, 64, 48).
    assert target["boxes"].tolist() == [[0, 0, 64, 48], [10, 5, 20, 25]]
    assert [VOC_NAMES[label] for label in target["labels"].tolist()] == ["dog", "person"]
    assert target["iscrowd"].tolist() == [0, 1] and target["area"].tolist() == [64 * 48, 200]
    assert [dataset.image_id(i) for i in range(2)] == [1, 2]
    assert ground_truth_of(dataset)["annotations"][1]["bbox"] == [10, 5, 10, 20]


def test_difficult_and_origin(tmp_path: Path) -> None:
    folder = write_voc_folder(tmp_path)
    assert VocDetection(folder, difficult="keep")[0][1]["iscrowd"].tolist() == [0, 0]
    assert len(VocDetection(folder, difficult="drop")[0][1]["labels"]) == 1
    assert VocDetection(folder, one_based=False)[1][1]["boxes"].tolist() == [[5, 5, 14, 24]]
    with pytest.raises(ValueError, match='difficult must be "ignore"'):
        VocDetection(folder, difficult="maybe")


def test_own_categories_agree_between_splits(tmp_path: Path) -> None:
    objects = {"1": [voc_object("zebra", (1, 1, 9, 9))], "2": [voc_object("ant", (1, 1, 9, 9))]}
    folder = write_voc_folder(tmp_path, objects)
    (folder / "ImageSets" / "Main" / "val.txt").write_text("1 -1\n")
    val = open_dataset(folder, split="val")
    assert val.category_names == ["ant", "zebra"] and val[0][1]["labels"].tolist() == [1] and len(val) == 1
    listed = open_dataset(folder / "ImageSets" / "Main" / "val.txt")
    assert len(listed) == 1 and listed.split == "val"


def spoil_xml(folder: Path) -> None:
    (folder / "Annotations" / "2007_000002.xml").write_text("<annotation><object>")


def forget_xml(folder: Path) -> None:
    (folder / "Annotations" / "2007_000002.xml").unlink()


def forget_image(folder: Path) -> None:
    (folder / "JPEGImages" / "2007_000002.jpg").unlink()


def forget_box(folder: Path) -> None:
    file = folder / "Annotations" / "2007_000002.xml"
    file.write_text(file.read_text().replace("xmax", "right"))


def empty_list(folder: Path) -> None:
    (folder / "ImageSets" / "Main" / "train.txt").write_text("\n")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (spoil_xml, r"2007_000002\.xml: not valid XML"),
        (forget_xml, r"2007_000002\.xml: no such annotation file"),
        (forget_image, r"2007_000002\.jpg: no such image file"),
        (forget_box, r"2007_000002\.xml: the object 'cat' has no bndbox"),
        (empty_list, r"train\.txt: lists no images: the data set is empty"),
    ],
)
def test_rejects_bad_folder(tmp_path: Path, spoil, message: str) -> None:
    folder = write_voc_folder(tmp_path)
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        VocDetection(folder)
    assert "\n" not in str(caught.value)


def test_rejects_unknown_category_and_split(tmp_path: Path) -> None:
    folder = write_voc_folder(tmp_path)
    with pytest.raises(DataError, match=r"2007_000002\.xml: unknown category 'cat', expected one of dog, person"):
        VocDetection(folder, categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "person"}])
    with pytest.raises(DataError, match=r"val\.txt: no such list; there are: train"):
        VocDetection(folder, "val")


def test_bad_image_is_skipped_on_request(tmp_path: Path) -> None:
    folder = write_voc_folder(tmp_path)
    (folder / "JPEGImages" / "2007_000001.jpg").write_text("not an image")
    with pytest.warns(DataWarning, match="skipped 1 of 2 images"):
        dataset = VocDetection(folder, on_bad_image="skip")
    assert len(dataset) == 1 and dataset[0][1]["image_id"] == 2 and len(dataset[0][1]["boxes"]) == 1
