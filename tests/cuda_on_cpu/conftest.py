"""The emulated device, one per module and way of compiling (--variants), and the rooms (--parts)."""

from __future__ import annotations

from pathlib import Path

import pytest

from .build import build
from .device import Device
from .rooms import ROOMS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `room` runs for each room."""
    if "room" in metafunc.fixturenames:
        metafunc.parametrize("room", metafunc.config.getoption("--parts") or list(ROOMS))


@pytest.fixture(scope="module")
def gpu(request: pytest.FixtureRequest) -> Device:
    return Device(build(request.param, rooms=request.config.getoption("--parts") or ()))


@pytest.fixture(scope="session")
def races(request: pytest.FixtureRequest) -> Path:
    """The program with the race checker."""
    return build("races", rooms=request.config.getoption("--parts") or ())
