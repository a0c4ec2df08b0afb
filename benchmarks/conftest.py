"""Options of the benchmarks, and the figures that each row carries beside its time."""

from __future__ import annotations

import pytest
import torch
from harness import cuda_clock


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the sizes and dtypes of the published tables")
    parser.addoption("--device", choices=["cpu", "cuda"], help="to run on; default: all there are")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--device")
        there_are = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        metafunc.parametrize("device", [asked] if asked else there_are)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cases on CUDA are timed by the device's own events."""
    for item in items:
        if getattr(item, "callspec", None) is not None and item.callspec.params.get("device") == "cuda":
            item.add_marker(pytest.mark.benchmark(timer=cuda_clock))


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20171)
