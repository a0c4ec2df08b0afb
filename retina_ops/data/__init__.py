"""Detection data sets (COCO JSON, Pascal VOC, digits scenes), augmentation, batches, drawing and inspection."""

from __future__ import annotations

import warnings
from typing import Any

from ..errors import DataError, DataWarning
from ..files import read_json, write_json
from ..images import list_images, read_image
from .coco import CocoDetection
from .dataset import Category, DeprecatedSubset, DetectionDataset, Target
from .drawing import draw_detections, save_png
from .export import ground_truth_of, write_coco
from .file_dataset import FileDataset
from .inspection import inspect_dataset
from .loading import AspectRatioBatchSampler, collate, detection_loader, shard_indices
from .opening import open_dataset
from .transforms import AugmentationConfig, AugmentedDataset, RandomZoom, build_transforms
from .voc import VocDetection

__all__ = [
    "AspectRatioBatchSampler",
    "AugmentationConfig",
    "AugmentedDataset",
    "Category",
    "CocoDetection",
    "DataError",
    "DataWarning",
    "DetectionDataset",
    "FileDataset",
    "RandomZoom",
    "Target",
    "VocDetection",
    "build_transforms",
    "collate",
    "detection_loader",
    "draw_detections",
    "ground_truth_of",
    "inspect_dataset",
    "list_images",
    "open_dataset",
    "read_image",
    "read_json",
    "save_png",
    "shard_indices",
    "write_coco",
    "write_json",
]


def __getattr__(name: str) -> Any:
    if name == "SubsetDataset":
        warnings.warn("retina_ops.data.SubsetDataset will be removed", FutureWarning, stacklevel=2)
        return DeprecatedSubset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
