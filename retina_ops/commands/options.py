"""What the commands share: parsing typed options, a progress bar, a table of metrics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DataError, needs_extra

with needs_extra("train"):
    import tyro
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")


def parse(options: type[T], command: str, arguments: list[str], *, default: T | None = None) -> T:
    """The options of a command; ends the process with status 2 and a message where they are wrong."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(
        options,
        prog=f"retina-ops {command}",
        description=(options.__doc__ or "").partition("\n")[0],
        args=arguments,
        **given,
    )


def output_folder(path: str) -> Path:
    """The folder, made where it is missing; raises DataError where that cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(folder, f"cannot be an output folder ({error.strerror})") from None
    return folder


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere; the callback takes (done, in all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def metrics_table(metrics: dict[str, Any]) -> str:
    """COCO metrics as lines of text: over all classes, then a line a class."""
    keys = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")
    per_class: dict[str, dict[str, Any]] = metrics.get("per_class", {})
    width = max([len("all classes"), *map(len, per_class)])
    shown = [f"{'':<{width}}" + "".join(f"{key:>8}" for key in keys)]
    for name, row in {"all classes": metrics, **per_class}.items():
        cells = (f"{row[key]:8.3f}" if row.get(key) is not None else f"{'-':>8}" for key in keys)
        shown.append(f"{name:<{width}}" + "".join(cells))
    return "\n".join(shown)
