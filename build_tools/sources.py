"""Finds the sources under csrc/ by their suffix, and reads the flags of csrc/build.json.

``*_op.cpp`` registers operators for CPU tensors, any other ``.cpp`` is core without torch, and ``.cu`` is CUDA.
CMakeLists.txt follows the same rule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CSRC = Path(__file__).resolve().parents[1] / "csrc"


def settings() -> dict[str, Any]:
    """csrc/build.json: compiler flags, C++ standard, oldest supported torch, default CUDA architectures."""
    return json.loads((CSRC / "build.json").read_text())


def core() -> list[str]:
    """C++ sources that include no torch header, relative to csrc/ and sorted, as all lists of this module."""
    return [name for name in _with_suffix(".cpp") if not name.endswith("_op.cpp")]


def cpu_operators() -> list[str]:
    """C++ sources that register operators for CPU tensors."""
    return _with_suffix("_op.cpp")


def cuda() -> list[str]:
    """CUDA sources: the operators for CUDA tensors, and kernels that they launch."""
    return _with_suffix(".cu")


def _with_suffix(suffix: str) -> list[str]:
    return sorted(path.relative_to(CSRC).as_posix() for path in CSRC.rglob(f"*{suffix}"))
