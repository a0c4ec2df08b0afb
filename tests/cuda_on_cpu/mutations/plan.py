"""What a planted bug is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..device import Device

BOTH = ("sanitizers", "races")


@dataclass(frozen=True)
class Mutation:
    """One bug: `old` becomes `new`, once, in a file of csrc; `check`, which runs the kernels of `part` alone, must then
    fail in each of the variants."""

    part: str
    file: str
    old: str
    new: str
    check: Callable[[Device], None]
    variants: tuple[str, ...] = ("races",)
