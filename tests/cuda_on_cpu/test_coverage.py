"""Every line of the CUDA kernels runs on the emulated device."""

from __future__ import annotations

import shutil

from requirements import require

from .coverage import measure


def test_every_kernel_line_runs() -> None:
    require(shutil.which("gcov") is not None, "gcov")
    table, missed = measure()
    assert len(table) >= 10 and not missed, "\n".join(missed)
