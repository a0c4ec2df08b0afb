"""Data sets for detection: COCO JSON, Pascal VOC, digits scenes; with augmentation, batches, drawing, inspection."""

from __future__ import annotations

from ..errors import DataError, DataWarning
from ..files import read_json, write_json
from ..images import list_images, read_image
from .coco import CocoDetection
from .dataset import Category, DetectionDataset, SubsetDataset, Target
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
    "SubsetDataset",
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
