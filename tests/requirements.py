"""What a test needs beyond the package: real data, tools; and how a skip for want of one is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def require(condition: bool, what: str) -> None:
    """Skips because a tool or data is missing; RETINA_OPS_REQUIRE_ALL=1 (CI) makes that a failure."""
    if condition:
        return
    if os.environ.get("RETINA_OPS_REQUIRE_ALL") == "1":
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")
