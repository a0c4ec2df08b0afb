"""The state of a run in one file of tensors and plain values, from which ``--resume`` continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError, needs_extra
from ..files import atomic_write

with needs_extra("train"):
    import torch

CHECKPOINT = "last.pt"
_FORMAT = 1


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state of a run as ``last.pt``. The previous state is replaced once the new one is on the disk."""
    with atomic_write(folder / CHECKPOINT, durable=True) as temporary:
        torch.save({"format": _FORMAT, **state}, temporary)


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, on the CPU.

    Raises:
        DataError: the checkpoint is missing, damaged or of another version.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise DataError(path, "no such file: there is no run to resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make pickle and zip raise many types
        raise DataError(path, f"not a checkpoint that can be read ({type(error).__name__})") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise DataError(path, "not a training checkpoint of this version")
    return state
