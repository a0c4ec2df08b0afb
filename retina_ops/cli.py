"""The command `retina-ops`: runs a subcommand, and explains errors that users can cause in one line."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .errors import TargetError

COMMANDS = {
    "train": "train a RetinaNet on a COCO or Pascal VOC data set",
    "evaluate": "compute COCO metrics of a model or of a file of detections",
    "predict": "detect objects in images: annotated pictures and COCO JSON",
    "inspect": "inspect a data set before training: ground truth, class counts, fit of the anchors",
    "demo": "train and evaluate a small RetinaNet on digits scenes, without a download",
    "study": "run experiments of the focal loss paper: tables, plots and a report",
    "env": "print versions, build options and devices",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Returns:
        The exit status: 0; 1 for an error that is explained in one line; 2 for wrong usage; 130 after Ctrl-C; 143 after
        SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _escape_what_the_terminal_cannot_show()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from ._version import __version__

        print(f"retina-ops {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"retina-ops: unknown command {name!r}; known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings(), _raised_sigterm():
            warnings.showwarning = _one_line_warnings(warnings.showwarning)
            run: Callable[[list[str]], None] = importlib.import_module(f"retina_ops.commands.{name}").run
            run(rest)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        if not error.args:  # otherwise a message was printed
            print(f"retina-ops {name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except _Terminated:
        print(f"retina-ops {name}: terminated", file=sys.stderr)
        return 128 + signal.SIGTERM
    except Exception as error:
        if not _is_explained(error):
            raise
        print(f"retina-ops {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def _raised_sigterm() -> Iterator[None]:
    """Makes SIGTERM an exception in the ``with`` statement, so that no temporary file is left."""

    def terminate(number: int, frame: Any) -> None:
        raise _Terminated

    is_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, terminate) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, previous)


def _escape_what_the_terminal_cannot_show() -> None:
    """A class name that is not ASCII on an ASCII terminal, or a file name that is not text, is printed escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: retina-ops COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "retina-ops COMMAND --help lists the options of a command.",
        ]
    )


def _is_explained(error: Exception) -> bool:
    """Whether the message tells a user what to do. Other errors are bugs and keep their traceback."""
    if isinstance(error, (OSError, TargetError)):
        return True
    if type(error).__name__ in ("DataError", "TrainingError", "WorkerError", "OutOfMemoryError"):
        return True
    return type(error) in (ValueError, ImportError) and _was_raised_by_package(error)


def _was_raised_by_package(error: Exception) -> bool:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and str(traceback.tb_frame.f_globals.get("__name__", "")).startswith("retina_ops")


def _one_line_warnings(default: Callable[..., None]) -> Callable[..., None]:
    """Shows warnings about input and about old names in one line, and hides deprecations in other packages."""

    def show(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
        if category is FutureWarning or category.__name__ == "DataWarning":
            print(f"warning: {message}", file=sys.stderr)
        elif not issubclass(category, DeprecationWarning):
            default(message, category, *place, **options)

    return show
