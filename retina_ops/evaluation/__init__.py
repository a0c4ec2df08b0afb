"""COCO average precision: metrics, precision-recall curves, and an evaluator that gathers over processes."""

from __future__ import annotations

from ..data.export import ground_truth_of
from .coco import Evaluation, PrecisionRecall, evaluate, evaluate_detections
from .detections import coco_detections, load_detections, load_ground_truth
from .evaluator import CocoEvaluator
from .plots import plot_precision_recall

__all__ = [
    "CocoEvaluator",
    "Evaluation",
    "PrecisionRecall",
    "coco_detections",
    "evaluate",
    "evaluate_detections",
    "ground_truth_of",
    "load_detections",
    "load_ground_truth",
    "plot_precision_recall",
]
