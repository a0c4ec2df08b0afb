"""The state of a run in one file of tensors and plain values: what `--resume` goes on from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import DataError, needs_extra

with needs_extra("train"):
    import torch

CHECKPOINT = "last.pt"
_FORMAT = 1


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state of a run, whole or not at all; the previous one is replaced."""
    partial = folder / f"{CHECKPOINT}.{os.getpid()}.tmp"
    try:
        torch.save({"format": _FORMAT, **state}, partial)
        os.replace(partial, folder / CHECKPOINT)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, on the CPU.

    Raises:
        DataError: there is none, or it is damaged or of another version.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise DataError(path, "no such file: there is no run to resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes make pickle and zip raise
        raise DataError(path, f"not a checkpoint that can be read ({type(error).__name__})") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise DataError(path, "not a training checkpoint of this version")
    return state
