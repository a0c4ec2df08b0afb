"""Devices to test on, the seed, and the real data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from requirements import SHARED_DATA, require


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--schedules", type=int, default=20, help="random schedules of the emulated CUDA kernels")
    parser.addoption("--parts", nargs="+", help="rooms whose emulated CUDA kernels are compiled; default: all")
    parser.addoption(
        "--variants", nargs="+", default=["sanitizers", "races"], help="how the emulated CUDA kernels are compiled"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `device` runs on every device there is; one that takes `schedule`, in --schedules seeds."""
    if "gpu" in metafunc.fixturenames:
        metafunc.parametrize("gpu", metafunc.config.getoption("--variants"), indirect=True, scope="module")
    if "schedule" in metafunc.fixturenames:
        metafunc.parametrize("schedule", range(1, metafunc.config.getoption("--schedules") + 1))
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20171)


@pytest.fixture
def bccd() -> Path:
    """The real blood-cell photographs, where they are present."""
    require((SHARED_DATA / "bccd").is_dir(), "../shared/data/bccd")
    return SHARED_DATA / "bccd"
