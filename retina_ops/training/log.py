"""The log of a run: messages, metrics as JSON lines, a progress bar, and TensorBoard events on request."""

from __future__ import annotations

import json
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
        keep_steps: for a run that is resumed: metrics of later steps are removed from the file. None: all are kept.
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
            write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ImportError("--tensorboard needs: pip install tensorboard") from None
            self._board = SummaryWriter(str(folder))

    def say(self, text: str) -> None:
        """Prints a line to stderr."""
        self.console.print(text, markup=False)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Appends a line to ``metrics.jsonl``. ``kind`` is train, val, test or chosen."""
        if not self.is_main:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
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
    """The lines of a ``metrics.jsonl``. A line that a crash cut off is skipped."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines
