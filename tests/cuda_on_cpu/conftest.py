"""The emulated device, once a module for each way of compiling (--variants)."""

from __future__ import annotations

import pytest

from .build import KERNELS, build
from .device import Device


@pytest.fixture(scope="module")
def gpu(request: pytest.FixtureRequest) -> Device:
    return Device(build(request.param, parts=request.config.getoption("--parts") or tuple(KERNELS)))
