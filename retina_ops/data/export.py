"""Writing a data set as COCO JSON and PNG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import needs_extra
from ..files import write_json
from .dataset import DetectionDataset

with needs_extra("train"):
    from torchvision.transforms.v2.functional import to_pil_image


def ground_truth_of(dataset: DetectionDataset) -> dict[str, Any]:
    """A data set's ground truth as a COCO dict: ``images``, ``annotations``, ``categories``, with original ids.

    Annotations are as published (unclipped boxes, mask areas, crowd flags), so that AP is what any COCO evaluator
    gives for the published file. No image is read.
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
    """Write ``<folder>/images/<split>/*.png`` and then ``<folder>/annotations/<split>.json``.

    The annotation file appears last and whole: where it exists, so do its images. `open_dataset` reads it back.

    Args:
        dataset: any data set of this package.
        folder: made where missing.
        split: the name of the two; None: the data set's own split, or ``"all"``.
        progress: called with (images written, images in all) after each.

    Returns:
        The path of the annotation file.
    """
    name = split or str(getattr(dataset, "split", "all"))
    image_dir = Path(folder) / "images" / name
    image_dir.mkdir(parents=True, exist_ok=True)
    content = ground_truth_of(dataset)
    for index, record in enumerate(content["images"]):
        record["file_name"] = Path(record["file_name"]).with_suffix(".png").as_posix()
        file = image_dir / record["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(dataset.load_image(index)).save(file, compress_level=1)
        if progress is not None:
            progress(index + 1, len(dataset))
    return write_json(Path(folder) / "annotations" / f"{name}.json", content)
