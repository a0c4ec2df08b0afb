"""Restores a run from its checkpoint, and says whether a folder holds a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import DataError, needs_extra
from ..files import remove_partial_files
from ..settings import from_plain, read_toml
from .batches import Batches, check_resumable
from .checkpoint import CHECKPOINT, PREVIOUS, Position, load_checkpoint
from .config import TrainConfig
from .log import METRICS

with needs_extra("train"):
    import torch
    from torch import nn

BEST, CONFIG = "best", "config.toml"
_BEGINNING = '{"kind": "'  # of every line of the metrics
RESULTS = ("metrics.json", "detections.json", "precision_recall.png", "loss.png", "report.html", "report.json")


def config_of_run(folder: Path) -> TrainConfig:
    """The settings of the run in a folder, from ``config.toml``, or from the checkpoint if that file is missing.

    Raises:
        DataError: there is no run, or its settings cannot be read.
    """
    if (folder / CONFIG).is_file() and _has_checkpoint(folder):
        return read_toml(folder / CONFIG, TrainConfig)
    if not _has_checkpoint(folder):
        more = ": it ended before its first checkpoint, start it again without --resume" if _is_begun(folder) else ""
        raise DataError(folder, f"holds no run to resume{more}")
    state = load_checkpoint(folder)
    try:
        return from_plain(TrainConfig, state["config"], "config")
    except (KeyError, ValueError):
        raise DataError(folder / CONFIG, "no such file, and the checkpoint has no settings") from None


def prepare_folder(folder: Path, *, resume: bool) -> str | None:
    """Makes a locked folder ready for a run. Temporary files of killed processes are removed.

    Returns:
        A sentence about what was found, if a run is started over.

    Raises:
        DataError: there is no run to resume.
        ValueError: without ``resume``, the folder holds a run or files that the run would replace.
    """
    remove_partial_files(folder)
    remove_partial_files(folder / BEST)
    if resume:
        return None
    if _has_checkpoint(folder):
        raise ValueError(f"{folder} already holds a run: choose another --output, or continue it with --resume")
    if (folder / BEST).exists():
        raise ValueError(f"{folder} already holds a run without a checkpoint: choose another --output, or start from "
                         f"its weights with --weights {folder / BEST}")  # fmt: skip
    is_begun = _is_begun(folder)
    for name in (METRICS, CONFIG, *RESULTS):
        if (folder / name).exists() and not (is_begun and name in (METRICS, CONFIG)):
            raise ValueError(f"{folder / name} exists and would be replaced: choose another --output")
    if not is_begun:
        return None
    (folder / METRICS).unlink()
    return f"{folder}: a run that ended before its first checkpoint is started over"


def remove_begun_run(folder: Path) -> None:
    """Removes the files of a run that failed before its first update."""
    for name in (CHECKPOINT, PREVIOUS, CONFIG, METRICS):
        (folder / name).unlink(missing_ok=True)


def _has_checkpoint(folder: Path) -> bool:
    return (folder / CHECKPOINT).exists() or (folder / PREVIOUS).exists()


def _is_begun(folder: Path) -> bool:
    """Whether there are the metrics and the configuration of a run, but no checkpoint and no weights."""
    if _has_checkpoint(folder) or (folder / BEST).exists() or not (folder / METRICS).is_file():
        return False
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
        if lines and _BEGINNING.startswith(lines[-1][: len(_BEGINNING)]) and not lines[-1].endswith("}"):
            lines.pop()  # it was cut off
        entries = [json.loads(line) for line in lines]
        if (folder / CONFIG).is_file():
            read_toml(folder / CONFIG, TrainConfig)
    except (OSError, ValueError, RecursionError):
        return False
    return all(isinstance(entry, dict) and {"kind", "step"} <= entry.keys() for entry in entries)


def restore(
    state: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    ema: nn.Module | None,
    *,
    categories: list[dict[str, Any]],
    batches: Batches,
) -> Position:
    """Loads the state of a checkpoint into the parts of a run. Returns the position of the run.

    Raises:
        ValueError: the run was trained with other settings, or on other classes, than it would continue with.
    """
    position = from_plain(Position, state["position"])
    if "batches" in state:  # checkpoints before version 0.1 have none
        check_resumable(Batches(**state["batches"]), batches, in_epoch=position.batch > 0)
    if state["categories"] != categories:
        raise ValueError("the run to resume has other categories than the data set")
    if (state["ema"] is None) != (ema is None):
        raise ValueError("ema_decay cannot be switched on or off when a run is resumed")
    if _options(state["optimizer"]["param_groups"]) != _options(optimizer.param_groups):
        raise ValueError("optimizer.name cannot be changed when a run is resumed")
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if position.step > 0:
            _check_moments(optimizer)
        if ema is not None:
            ema.load_state_dict(state["ema"])
        scaler.load_state_dict(state["scaler"])
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise ValueError(f"the run to resume has another model or optimizer: {reason}") from None
    return position


def _options(groups: list[dict[str, Any]]) -> list[list[str]]:
    """The names of each group's options, which tell the optimizers apart."""
    return [sorted(set(map(str, group)) - {"initial_lr"}) for group in groups]


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError if the optimizer, after an update, lacks the moments of a parameter or has others."""
    names = ["exp_avg", "exp_avg_sq"] if isinstance(optimizer, torch.optim.AdamW) else ["momentum_buffer"]
    for group in optimizer.param_groups:
        if group.get("momentum") == 0:
            continue  # plain SGD keeps nothing
        for parameter in group["params"]:
            moments = optimizer.state.get(parameter, {})
            if any(getattr(moments.get(name), "shape", None) != parameter.shape for name in names):
                raise ValueError("the moments of the optimizer do not fit the weights")
