"""What the data and evaluation modules raise: one line that names the file and the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DataError(ValueError):
    """Input that cannot be used. The message is one line, ``<file>: <reason>``.

    Args:
        source: the file or folder at fault.
        reason: what is wrong with it; line breaks are folded into spaces.
    """

    def __init__(self, source: str | Path, reason: str | None = None) -> None:
        if reason is None:
            # torch's DataLoader raises a worker's error again with a whole traceback as the only argument.
            last_line = str(source).strip().splitlines()[-1]
            source, _, reason = last_line.rpartition("DataError: ")[2].partition(": ")
        self.source = str(source)
        self.reason = " ".join(str(reason).split())
        super().__init__(f"{self.source}: {self.reason}")

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str]]:
        return type(self), (self.source, self.reason)


class DataWarning(UserWarning):
    """Input that was used after leaving something out; the message counts what."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import in its body into one line that names the extra to install.

    Args:
        extra: name of the optional dependency group, ``"train"`` for ``retina_ops[train]``.

    Raises:
        ImportError: where an import of the body fails. RuntimeError counts too: that is what torchvision raises
            when its wheel does not fit the installed torch.
    """
    try:
        yield
    except (ImportError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise ImportError(f"{cause}; this part needs: pip install 'retina_ops[{extra}]'") from None
