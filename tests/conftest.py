"""Devices to test on, the seed, and the real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from requirements import SHARED_DATA, require


def pytest_configure(config: pytest.Config) -> None:
    """Processes of pytest-xdist share the cores."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--schedules", type=int, default=20, help="random schedules of the emulated CUDA kernels")
    parser.addoption("--fast", action="store_true", help="float32 alone, without the tests that are marked as slow")
    parser.addoption("--parts", nargs="+", help="rooms whose emulated CUDA kernels are compiled; default: all")
    parser.addoption(
        "--variants", nargs="+", default=["sanitizers", "races"], help="how the emulated CUDA kernels are compiled"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --fast: contracts in float32 alone, and nothing that compiles or is marked as slow."""
    if not config.getoption("--fast"):
        return
    kept, left_out = [], []
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        is_slow = item.get_closest_marker("slow") is not None or parameters.get("dtype", torch.float32) != torch.float32
        (left_out if is_slow else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


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
