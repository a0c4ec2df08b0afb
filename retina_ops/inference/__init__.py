"""A model over images: one loop, for image files and for data sets."""

from __future__ import annotations

from .files import predict_files
from .loop import detect_batches

__all__ = ["detect_batches", "predict_files"]
