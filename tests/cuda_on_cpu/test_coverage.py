"""Every line of the CUDA kernels runs on the emulated device, and every planted bug has a place in them."""

from __future__ import annotations

import shutil

from requirements import require

from .build import CSRC
from .coverage import measure
from .mutations import MUTATIONS


def test_every_kernel_line_runs() -> None:
    require(shutil.which("gcov") is not None, "gcov")
    table, missed = measure()
    assert len(table) >= 10 and not missed, "\n".join(missed)


def test_every_planted_bug_has_a_place() -> None:
    lost = [name for name, bug in MUTATIONS.items() if bug.old not in (CSRC / bug.file).read_text()]
    assert not lost
