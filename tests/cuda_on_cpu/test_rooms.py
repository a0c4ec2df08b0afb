"""The checks that each room brings: in order, with indices past 2^31, and in random orders of threads and blocks."""

from __future__ import annotations

from pathlib import Path

from .build import CSRC, MARK, find_rooms
from .device import Device
from .rooms import ROOMS


def test_every_room_has_its_module() -> None:
    assert sorted(find_rooms()) == sorted(ROOMS)
    for name, room in ROOMS.items():
        for needed in ("RANDOM", "LARGE", "PLANTED"):
            assert getattr(room, needed, None), f"rooms/{name} defines no {needed}"


def test_every_room_registers_its_launches(room: str) -> None:
    sources = [*(CSRC / room).glob("*.cuh"), *(CSRC / room).glob("*.cu")]
    assert any(MARK in path.read_text() for path in sources), f"csrc/{room}: no {MARK}...) stands after a launch"


def test_every_planted_bug_has_a_place(room: str) -> None:
    lost = [name for name, bug in ROOMS[room].PLANTED.items() if bug.old not in (CSRC / bug.file).read_text()]
    assert not lost


def test_planted_bugs_have_names_of_their_own() -> None:
    names = [name for room in ROOMS.values() for name in room.PLANTED]
    assert len(names) == len(set(names))


def test_checks(gpu: Device, room: str) -> None:
    for check in ROOMS[room].RANDOM:
        check(gpu)


def test_large_indices(gpu: Device, room: str) -> None:
    """The first index is past 2^31: one of 32 bits would be outside the arrays."""
    for check in ROOMS[room].LARGE:
        check(gpu)


def test_random_schedules_find_nothing(races: Path, room: str, schedule: int) -> None:
    for check in ROOMS[room].RANDOM:
        check(Device(races, "random", schedule))
