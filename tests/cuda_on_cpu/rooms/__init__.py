"""The rooms of csrc on an emulated device, found by folder: what each module defines, `room.Room` says."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from ..room import Room

ROOMS: dict[str, Room] = {name: import_module(f"{__name__}.{name}") for _, name, _ in iter_modules(__path__)}
