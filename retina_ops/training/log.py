"""What a run tells: metrics as JSON lines, a progress bar, and on request TensorBoard events."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import needs_extra

with needs_extra("train"):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

METRICS = "metrics.jsonl"


class RunLog:
    """Writes only in the main process; the others keep silent.

    Args:
        folder: of ``metrics.jsonl`` and of TensorBoard's files.
        is_main: whether this process writes.
        tensorboard: write TensorBoard events too.
        keep_steps: a run that is resumed drops the lines after this step; None keeps all.
    """

    def __init__(
        self, folder: Path, *, is_main: bool, tensorboard: bool = False, keep_steps: int | None = None
    ) -> None:
        self.is_main = is_main
        self.console = Console(stderr=True, quiet=not is_main, highlight=False, soft_wrap=True)
        self._path = folder / METRICS
        self._board: Any = None
        if not is_main:
            return
        if keep_steps is not None and self._path.is_file():
            lines = [line for line in read_metrics(self._path) if line["step"] <= keep_steps]
            self._path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ImportError("--tensorboard needs: pip install tensorboard") from None
            self._board = SummaryWriter(str(folder))

    def say(self, text: str) -> None:
        """One line for the person at the terminal."""
        self.console.print(text, markup=False)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """One line of ``metrics.jsonl``: ``kind`` is train, val or test."""
        if not self.is_main:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[ProgressLine]:
        """A bar that goes away when it is done; nothing where the output is no terminal."""
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
            transient=True,
            disable=not (self.is_main and sys.stderr.isatty()),
        )
        with bar:
            yield ProgressLine(bar, bar.add_task(description, total=total, detail=""))

    def close(self) -> None:
        """Flushes what is buffered."""
        if self._board is not None:
            self._board.close()


class ProgressLine:
    """A bar of `RunLog.progress`."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar, self._task = bar, task

    def __call__(self, done: int, total: int) -> None:
        """(done, in all), as the progress callbacks of this package give them."""
        self._bar.update(self._task, completed=done, total=total)

    def show(self, done: int, detail: str) -> None:
        """Items done, and a few words behind the bar."""
        self._bar.update(self._task, completed=done, detail=detail)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; one that was cut off by a crash is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines
