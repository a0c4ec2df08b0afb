"""What the module of a room defines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .device import Device

Check = Callable[[Device], None]  # launches kernels and asserts that their results are right
BOTH = ("sanitizers", "races")


@dataclass(frozen=True)
class Bug:
    """A bug to plant in a copy of csrc: `old` becomes `new`, once, in `file`.

    Attributes:
        file: path in csrc.
        check: must fail with the bug, by a report or a wrong result, in each of `variants`.
    """

    file: str
    old: str
    new: str
    check: Check
    variants: tuple[str, ...] = ("races",)


class Room(Protocol):
    """rooms/<room>.py.

    Attributes:
        RANDOM: checks that run under every variant in order, and under the race checker in random orders. Together
            with the room's own test file, if it has one, they run every line of its kernels.
        LARGE: checks with a first index past 2^31.
        PLANTED: bugs by what they do wrong.
    """

    RANDOM: Sequence[Check]
    LARGE: Sequence[Check]
    PLANTED: Mapping[str, Bug]
