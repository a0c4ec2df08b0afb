"""Data sets as COCO ground truth, and as COCO JSON and PNG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import needs_extra
from ..files import NewNames
from ..output_folder import OutputFolder
from .dataset import DetectionDataset

with needs_extra("train"):
    from torchvision.transforms.v2.functional import to_pil_image


def ground_truth_of(dataset: DetectionDataset) -> dict[str, Any]:
    """The ground truth of a data set as a COCO dict: ``images``, ``annotations``, ``categories``, with original ids.

    Annotations are returned unchanged (unclipped boxes, mask areas, crowd flags), so that every COCO evaluator
    computes the same AP as from the original file. No image is read.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(dataset)):
        height, width = dataset.image_size(index)
        image_id = dataset.image_id(index)
        images.append({"id": image_id, "file_name": dataset.file_name(index), "height": height, "width": width})
        for entry in dataset.published_annotations(index):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **entry})
    return {"images": images, "annotations": annotations, "categories": [dict(c) for c in dataset.categories]}


def write_coco(
    dataset: DetectionDataset,
    folder: str | Path,
    split: str | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes ``<folder>/images/<split>/*.png``, then ``<folder>/annotations/<split>.json``.

    The annotation file is written last: if it exists, all images exist. `open_dataset` reads the data set back. Each
    image gets a file of its own below the folder, also where two names differ only in their suffix, or where a name is
    absolute or has ``..``; the annotation file has the new names. A file that exists is replaced only if this function
    wrote it.

    Args:
        dataset: a data set of this package.
        folder: the folder to write to; it is created if missing.
        split: the name in the two paths above. None: the data set's own split if it has one, otherwise ``"all"``.
        progress: called with (images written, images in all) after each image.

    Returns:
        The path of the annotation file.

    Raises:
        DataError: a file exists that this function did not write, or that the data set reads.
        OSError: a file cannot be written.
    """
    name = split or str(getattr(dataset, "split", "all"))
    if Path(name).name != name:
        raise ValueError(f"write_coco: split must be a name without folders, got {name!r}")
    content = ground_truth_of(dataset)
    names = NewNames(".png")
    for record in content["images"]:
        record["file_name"] = names.add(record["file_name"])
    images, annotations = f"images/{name}", f"annotations/{name}.json"
    output = OutputFolder(folder, "write_coco", inputs=source_files(dataset), option="folder")
    output.check([annotations, *(f"{images}/{record['file_name']}" for record in content["images"])])
    for index, record in enumerate(content["images"]):
        with output.writing(f"{images}/{record['file_name']}") as temporary:
            to_pil_image(dataset.load_image(index)).save(temporary, format="PNG", compress_level=1)
        if progress is not None:
            progress(index + 1, len(dataset))
    return output.write_json(annotations, content)


def source_files(dataset: Any) -> list[Path]:
    """The files that a data set reads: its images and its annotation file. Empty for a built-in data set."""
    while hasattr(dataset, "dataset"):  # a cache or an augmentation of another data set
        dataset = dataset.dataset
    files = [record.path for record in getattr(dataset, "records", ())]
    return [*files, dataset.annotation_file] if hasattr(dataset, "annotation_file") else files
