"""Data sets as COCO ground truth, and as COCO JSON and PNG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import needs_extra
from ..files import atomic_write, write_json
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

    The annotation file is written last: if it exists, all images exist. `open_dataset` reads the data set back.

    Args:
        dataset: a data set of this package.
        folder: the folder to write to; it is created if missing.
        split: the name in the two paths above. None: the data set's own split if it has one, otherwise ``"all"``.
        progress: called with (images written, images in all) after each image.

    Returns:
        The path of the annotation file.
    """
    name = split or str(getattr(dataset, "split", "all"))
    image_dir = Path(folder) / "images" / name
    content = ground_truth_of(dataset)
    for index, record in enumerate(content["images"]):
        record["file_name"] = Path(record["file_name"]).with_suffix(".png").as_posix()
        with atomic_write(image_dir / record["file_name"]) as temporary:
            to_pil_image(dataset.load_image(index)).save(temporary, format="PNG", compress_level=1)
        if progress is not None:
            progress(index + 1, len(dataset))
    return write_json(Path(folder) / "annotations" / f"{name}.json", content)
