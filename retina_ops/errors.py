"""Errors and warnings about input, of one line that names the file and the reason; and missing extras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DataError(ValueError):
    """Input that cannot be used. The message is one line, ``<file>: <reason>``.

    Args:
        source: the file or folder.
        reason: what is wrong with it. Line breaks are replaced by spaces.
    """

    def __init__(self, source: str | Path, reason: str | None = None) -> None:
        if reason is None:
            # torch's DataLoader raises the error of a worker again, with the traceback as its only argument.
            last_line = str(source).strip().splitlines()[-1]
            source, _, reason = last_line.rpartition("DataError: ")[2].partition(": ")
        self.source = str(source)
        self.reason = " ".join(str(reason).split())
        super().__init__(f"{self.source}: {self.reason}")

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str]]:
        return type(self), (self.source, self.reason)


class WorkerError(RuntimeError):
    """A process that loads images died. The message is one line."""


class DataWarning(UserWarning):
    """Input of which parts were left out. The message says what and how much."""


class TargetError(ValueError, AssertionError):
    """A target that a model cannot be trained on. An AssertionError, which torchvision raises, and a ValueError."""


class TargetKeyError(TargetError, KeyError):
    """A target without boxes or labels. Also a KeyError, which torchvision raises."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would put it in quotes


class TargetIndexError(TargetError, IndexError, RuntimeError):
    """Targets or labels that do not fit images, boxes or classes. Also an IndexError, which torchvision raises."""


class TargetTypeError(TargetError, TypeError):
    """Targets that are not a list of dicts. Also a TypeError, which torchvision raises."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turns a failed import in the ``with`` statement into one line that names the extra to install.

    Args:
        extra: name of the optional dependency group: ``"train"`` for ``retina_ops[train]``.

    Raises:
        ImportError: an import failed, also with RuntimeError, which torchvision raises if it was built for another
            version of torch.
    """
    try:
        yield
    except (ImportError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise ImportError(f"{cause}; this part needs: pip install 'retina_ops[{extra}]'") from None
