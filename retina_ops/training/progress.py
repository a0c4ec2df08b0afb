"""A progress bar on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import needs_extra

with needs_extra("train"):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class ProgressBar:
    """A bar that `progress_bar` shows. Calling it is the progress callback of this package."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def __call__(self, done: int, total: int | None = None, *, detail: str | None = None) -> None:
        """Updates the bar.

        Args:
            done: items done.
            total: items in all. None: as before.
            detail: text after the bar. None: as before.
        """
        self._bar.update(self._task, completed=done, total=total)
        if detail is not None:
            self._bar.update(self._task, detail=detail)


@contextmanager
def progress_bar(
    description: str, total: int | None = None, *, console: Console | None = None, enabled: bool = True
) -> Iterator[ProgressBar]:
    """Shows a bar, which disappears at the end of the ``with`` statement.

    Args:
        description: text before the bar.
        total: items in all. None: the first call of the bar says it.
        console: where to show the bar; text printed to the same console appears above it. Default: stderr.
        enabled: False shows nothing. Nothing is shown either if stderr is not a terminal.
    """
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console or Console(stderr=True),
        transient=True,
        disable=not (enabled and sys.stderr.isatty()),
    )
    with bar:
        yield ProgressBar(bar, bar.add_task(description, total=total, detail=""))
