"""Annotations that cannot be used: an error, or left out and counted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from ..errors import DataError, DataWarning

OnBadAnnotation = Literal["error", "skip"]


class BadAnnotations:
    """Counts the annotations of a data set that cannot be used.

    Args:
        name: of the data set, for the warning.
        action: ``"error"`` lets the error of the first one pass; ``"skip"`` leaves such annotations out.
    """

    def __init__(self, name: str, action: OnBadAnnotation) -> None:
        if action not in ("error", "skip"):
            raise ValueError(f'on_bad_annotation must be "error" or "skip", got {action!r}')
        self.name, self.action = name, action
        self.seen = self.bad = 0
        self.first: DataError | None = None

    @contextmanager
    def reading(self, *, counts: bool = True) -> Iterator[None]:
        """Around the reading of one annotation, which ends where it raises DataError.

        counts: False where the annotation was read in two parts, for the second one.
        """
        self.seen += counts
        try:
            yield
        except DataError as error:
            if self.action == "error":
                raise
            self.bad += 1
            self.first = self.first or error

    def warn(self) -> None:
        """Says in one line how many there were."""
        if self.bad:
            message = f"{self.name}: left out {self.bad} of {self.seen} annotations; the first: {self.first}"
            warnings.warn(message, DataWarning, stacklevel=4)
