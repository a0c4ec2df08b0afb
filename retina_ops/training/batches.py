"""How many images an update takes, and whether a run can be resumed with other batches or on other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..settings import Range


@dataclass(frozen=True)
class Batches:
    """The batches of a run.

    Attributes:
        batch_size: images per batch and process.
        processes: number of processes.
        accumulate: batches per update.
    """

    batch_size: Annotated[int, Range(1)]
    processes: Annotated[int, Range(1)]
    accumulate: Annotated[int, Range(1)]

    @property
    def images_per_step(self) -> int:
        """Images of a batch over all processes: the unit in which the order of an epoch is cut."""
        return self.batch_size * self.processes

    @property
    def images_per_update(self) -> int:
        """Images per step of the optimizer: the global batch."""
        return self.images_per_step * self.accumulate


def check_resumable(before: Batches, now: Batches, *, in_epoch: bool) -> None:
    """Checks that a run can continue exactly: with the same global batch, and at the same image.

    The learning rate, its schedule and the position of a run count updates, so the images per update must stay. In the
    middle of an epoch the position counts batches over all processes, so these must stay as well. Processes and
    batch size may change together: 2 processes with batches of 8 continue a run of 4 processes with batches of 4.

    Args:
        before: of the checkpoint.
        now: of this process group and configuration.
        in_epoch: whether the checkpoint lies in the middle of an epoch.

    Raises:
        ValueError: the run cannot continue. The message says which batch size would do.
    """
    same_update = before.images_per_update == now.images_per_update
    same_step = before.images_per_step == now.images_per_step
    if same_update and (same_step or not in_epoch):
        return
    wanted, rest = divmod(before.images_per_step, now.processes)
    advice = (
        f"use --batch-size {wanted} --optimizer.accumulate {before.accumulate}"
        if rest == 0
        else f"use a number of processes that divides {before.images_per_step}"
    )
    raise ValueError(
        f"the run to resume takes {_described(before)}, now it would take {_described(now)}: "
        f"with {now.processes} {_processes(now)} {advice}"
    )


def _described(batches: Batches) -> str:
    parts = f"{batches.batch_size} per batch, {batches.processes} {_processes(batches)}"
    if batches.accumulate > 1:
        parts += f", {batches.accumulate} batches accumulated"
    return f"{batches.images_per_update} images per update ({parts})"


def _processes(batches: Batches) -> str:
    return "process" if batches.processes == 1 else "processes"
