"""Deprecated: `predict_files` is in `retina_ops.inference`."""

from __future__ import annotations

import warnings

from ..inference import predict_files

__all__ = ["predict_files"]

warnings.warn(
    "retina_ops.models.prediction is now retina_ops.inference; the old name will be removed",
    FutureWarning,
    stacklevel=2,
)
