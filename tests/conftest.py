"""Devices to test on, and how a skip for a missing tool is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `device` runs on every device there is."""
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20171)


def require(condition: bool, what: str) -> None:
    """Skips because a tool or data is missing; RETINA_OPS_REQUIRE_ALL=1 (CI) makes that a failure."""
    if condition:
        return
    if os.environ.get("RETINA_OPS_REQUIRE_ALL") == "1":
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")


@pytest.fixture
def bccd() -> Path:
    """The real blood-cell photographs, where they are present."""
    require((SHARED_DATA / "bccd").is_dir(), "../shared/data/bccd")
    return SHARED_DATA / "bccd"
