"""The state of a run in one file of tensors and plain values, from which ``--resume`` continues.

The file is what `torch.save` writes, a zip archive, with the SHA-256 of all that precedes it as the archive's comment.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ..errors import DataError, needs_extra
from ..files import atomic_write
from ..settings import Range, from_plain
from .batches import Batches

with needs_extra("train"):
    import torch
    from torch import Tensor

CHECKPOINT = "last.pt"
PREVIOUS = "previous.pt"  # the checkpoint before
_FORMAT = 2
_MARK = b"retina_ops checkpoint sha256 "
_COMMENT = len(_MARK) + 64
_END_OF_ARCHIVE, _END_LENGTH = b"PK\x05\x06", 22


@dataclass(frozen=True)
class Position:
    """Where a run is.

    Attributes:
        step: number of updates done.
        epoch, batch: position of the next batch.
        best: highest validation AP; -1 before the first validation.
        waited: number of validations since the best one.
        validated: step of the last validation; -1 before the first one.
        validation_seconds: duration of the last validation.
    """

    step: Annotated[int, Range(0)] = 0
    epoch: Annotated[int, Range(0)] = 0
    batch: Annotated[int, Range(0)] = 0
    best: Annotated[float, Range(-1, 1)] = -1.0
    waited: Annotated[int, Range(0)] = 0
    validated: Annotated[int, Range(-1)] = -1
    validation_seconds: Annotated[float, Range(0)] = 0.0


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state of a run as ``last.pt``, once it is on the disk. The state before it becomes ``previous.pt``.

    Raises:
        OSError: the file cannot be written; both files are as they were.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **state}, buffer)
    content = buffer.getbuffer()
    if content[-_END_LENGTH : -_END_LENGTH + 4] != _END_OF_ARCHIVE:
        raise RuntimeError("torch.save did not write the zip archive that the checksum needs")
    with atomic_write(folder / CHECKPOINT, durable=True) as temporary:
        with temporary.open("wb") as file:
            digest = hashlib.sha256()
            for part in (content[:-2], _COMMENT.to_bytes(2, "little") + _MARK):
                digest.update(part)
                file.write(part)
            file.write(digest.hexdigest().encode())
        _keep(folder)


def _keep(folder: Path) -> None:
    """Gives the checkpoint, if it is whole, the second name ``previous.pt``."""
    path = folder / CHECKPOINT
    if not path.is_file() or _damage(path) is not None:
        return
    with atomic_write(folder / PREVIOUS) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            temporary.write_bytes(path.read_bytes())


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, on the CPU.

    Raises:
        DataError: the checkpoint is missing, damaged or of another version. The message names the one before it.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        if (folder / PREVIOUS).is_file():
            raise DataError(path, f"no such file{_advice(folder)}")
        raise DataError(path, "no such file: there is no run to resume")
    try:
        damage = _damage(path)
        state = None if damage else torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from None
    except Exception as error:  # damaged bytes make pickle and zip raise many types
        damage = type(error).__name__
    if damage:
        raise DataError(path, f"not a checkpoint that can be read ({damage}){_advice(folder)}")
    if not isinstance(state, dict) or state.get("format") not in (1, _FORMAT):
        raise DataError(path, "not a training checkpoint of this version")
    try:
        _check_state(state, is_sealed=_comment(path) is not None)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(path, f"not a checkpoint that can be read ({reason}){_advice(folder)}") from None
    return state


def _advice(folder: Path) -> str:
    previous = folder / PREVIOUS
    if not previous.is_file() or _damage(previous) is not None:
        return ""
    return f"; the checkpoint before it is whole: to continue from it, cp {previous} {folder / CHECKPOINT}"


def _comment(path: Path) -> bytes | None:
    """The checksum of a checkpoint; None if it has none."""
    with path.open("rb") as file:
        file.seek(-min(_COMMENT, path.stat().st_size), os.SEEK_END)
        found = file.read()
    return found[len(_MARK) :] if found.startswith(_MARK) else None


def _damage(path: Path) -> str | None:
    """What is wrong with the bytes of a checkpoint. None if the checksum is right, or if there is none."""
    expected = _comment(path)
    if expected is None:
        return None
    with path.open("rb") as file:
        digest, left = hashlib.sha256(), path.stat().st_size - 64
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return None if digest.hexdigest().encode() == expected else "its checksum does not match"


def _check_state(state: dict[str, Any], *, is_sealed: bool) -> None:
    """Raises KeyError, TypeError or ValueError for a state that no run of this package has."""
    if state["format"] == _FORMAT:
        if not is_sealed:
            raise ValueError("its checksum is missing")
        _require(state["config"], dict, "config")
        from_plain(Batches, state["batches"], "batches")
    for name in ("model", "optimizer", "scaler", "position"):
        _require(state[name], dict, name)
    _require(state["ema"], (dict, type(None)), "ema")
    for name in ("model", "ema"):
        if not all(isinstance(key, str) for key in state[name] or ()):
            raise ValueError(f"{name} has names that are not strings")
    if not all(isinstance(value, Tensor) for value in state["model"].values()):
        raise ValueError("model has values that are not tensors")
    _require(state["optimizer"]["param_groups"], list, "optimizer.param_groups")
    _require(state["optimizer"]["state"], dict, "optimizer.state")
    if not all(isinstance(group, dict) for group in state["optimizer"]["param_groups"]):
        raise ValueError("optimizer.param_groups has groups that are not dictionaries")
    from_plain(Position, state["position"], "position")
    missing = set(Position.__dataclass_fields__) - set(state["position"])
    if missing:
        raise ValueError(f"position.{min(missing)} is missing")
    _require(state["seconds"], (int, float), "seconds")
    if not 0 <= state["seconds"] < math.inf:
        raise ValueError(f"seconds is {state['seconds']}")
    _require(state["categories"], list, "categories")
    if not all(isinstance(category, dict) and {"id", "name"} <= category.keys() for category in state["categories"]):
        raise ValueError("categories has entries without id and name")


def _require(value: Any, kind: Any, name: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {type(value).__name__}")
