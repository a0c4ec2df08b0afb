"""Detection operators for PyTorch in C++ and CUDA, and a RetinaNet that uses them. Importing it needs torch alone."""

from retina_ops._library import build_info
from retina_ops._version import __version__
from retina_ops.ops.focal_loss import sigmoid_focal_loss

__all__ = [
    "__version__",
    "build_info",
    "sigmoid_focal_loss",
]
