"""The log of a run: messages, metrics as JSON lines, a progress bar, and TensorBoard events on request."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors import needs_extra
from ..files import write_text
from .progress import ProgressBar, progress_bar

with needs_extra("train"):
    from rich.console import Console

METRICS = "metrics.jsonl"


class RunLog:
    """Writes in the main process only.

    Args:
        folder: folder of ``metrics.jsonl`` and of TensorBoard's files.
        is_main: whether this is the main process.
        tensorboard: also write TensorBoard events.
    """

    def __init__(self, folder: Path, *, is_main: bool, tensorboard: bool = False) -> None:
        self.is_main = is_main
        self.console = Console(stderr=True, quiet=not is_main, highlight=False, soft_wrap=True)
        self._path = folder / METRICS
        self._board: Any = None
        self._new_board: Callable[[], Any] | None = None
        if is_main and tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ImportError("--tensorboard needs: pip install tensorboard") from None
            self._new_board = lambda: SummaryWriter(str(folder))  # which writes a file, so not before the run begins

    def keep(self, step: int, validated: int) -> None:
        """Removes the lines of later steps, and of later validations, than those of the checkpoint to resume from."""
        if not self.is_main or not self._path.is_file():
            return
        last = {"val": validated, "test": step - 1, "chosen": step - 1}
        lines = [line for line in read_metrics(self._path) if line["step"] <= last.get(line["kind"], step)]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))

    def say(self, text: str) -> None:
        """Prints a line to stderr."""
        self.console.print(text, markup=False)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Appends a line to ``metrics.jsonl``. ``kind`` is train, val, test or chosen."""
        if not self.is_main:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        if self._board is None and self._new_board is not None:
            self._board = self._new_board()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def progress(self, description: str, total: int) -> AbstractContextManager[ProgressBar]:
        """A progress bar below the messages."""
        return progress_bar(description, total, console=self.console, enabled=self.is_main)

    def close(self) -> None:
        """Writes buffered TensorBoard events."""
        if self._board is not None:
            self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; none if there is no such file. A line that a crash cut off is skipped."""
    lines: list[dict[str, Any]] = []
    if not path.exists():
        return lines
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int) and "kind" in entry:
            lines.append(entry)
    return lines
