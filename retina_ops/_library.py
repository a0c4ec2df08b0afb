"""Finds and loads the compiled operators, and says what is wrong where it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from retina_ops._version import __version__

_PACKAGE = Path(__file__).parent

# Every operator of csrc/library.cpp, for the message that stands in for a missing CUDA library.
_OPERATORS = (
    "sigmoid_focal_loss",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_reduced",
    "scale_gradient_",
    "box_iou",
    "box_iou_backward",
    "iou_loss",
    "iou_loss_backward",
    "iou_loss_reduced",
    "encode_boxes",
    "encode_boxes_backward",
    "decode_boxes",
    "decode_boxes_backward",
    "match_anchors",
    "nms",
    "nms_padded",
    "retinanet_loss",
    "retinanet_loss_backward",
    "soft_nms",
    "postprocess",
)

_cuda_problem: str | None = None


def _built() -> dict[str, Any]:
    path = _PACKAGE / "_build_info.json"
    if not path.is_file():
        return {}
    info: dict[str, Any] = json.loads(path.read_text())
    return info


def build_info() -> dict[str, Any]:
    """What was built, with what, and whether the CUDA operators are loaded.

    Returns:
        A dict with ``version`` and ``torch`` (at build time), ``cpu`` (true), ``cuda`` (was it built), ``cuda_reason``
        (why not, or null), ``cuda_toolkit``, ``cuda_architectures``, ``compiler``; and of this process
        ``torch_running``, ``cuda_loaded`` and ``cuda_problem`` (why it is not loaded, or null).
    """
    return {
        "version": __version__,
        **_built(),
        "torch_running": torch.__version__,
        "cuda_loaded": _cuda_problem is None,
        "cuda_problem": _cuda_problem,
    }


def _load_cuda() -> str | None:
    """Loads the CUDA operators; returns why it could not, or None."""
    built = _built()
    library = _PACKAGE / "_cuda.abi3.so"
    if not library.is_file():
        return f"this retina_ops was built without CUDA: {built.get('cuda_reason') or 'unknown reason'}"
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) has no CUDA"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return (
            f"the CUDA operators, built with toolkit {built.get('cuda_toolkit')}, do not load under torch "
            f"{torch.__version__} (CUDA {torch.version.cuda}): {error}"
        )
    return None


def _refuse_cuda(problem: str) -> torch.library.Library:
    """Makes each operator answer a CUDA tensor with the reason instead of a dispatcher's listing."""
    library = torch.library.Library("retina_ops", "IMPL", "CUDA")

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"retina_ops: no CUDA operators: {problem}. See `retina-ops env`.")

    for name in _OPERATORS:
        library.impl(name, refuse)
    return library


def _load() -> torch.library.Library | None:
    global _cuda_problem
    library = _PACKAGE / "_cpu.abi3.so"
    if not library.is_file():
        raise ImportError(
            f"retina_ops is not built: {library} is missing. Install it with `pip install .`, "
            "or build in place with `pip install --no-build-isolation -e .`."
        )
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise ImportError(
            f"retina_ops, built with torch {_built().get('torch')}, does not load under torch {torch.__version__}: "
            f"{error}"
        ) from error
    _cuda_problem = _load_cuda()
    return None if _cuda_problem is None else _refuse_cuda(_cuda_problem)


_cuda_refusals = _load()
