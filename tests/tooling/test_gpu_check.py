"""The GPU check where there is no GPU: nothing is recorded as passed; and its exercises, run on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu import exercise

CHECK = Path(__file__).resolve().parents[1] / "gpu" / "check.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_nothing_passes_without_a_gpu(tmp_path: Path) -> None:
    stages = "tests,memcheck,determinism,equality,benchmarks,training"
    command = [sys.executable, str(CHECK), "--stages", stages, "--output", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    record = json.loads((tmp_path / "no-gpu-gpu-check.json").read_text())
    assert list(record["stages"]) == stages.split(",")
    assert {stage["status"] for stage in record["stages"].values()} == {"unavailable"}
    assert record["environment"]["torch"] == torch.__version__ and record["environment"]["device"] is None


def test_unknown_stage() -> None:
    run = subprocess.run([sys.executable, str(CHECK), "--stages", "x"], capture_output=True, text=True)
    assert run.returncode == 2 and "unknown stage 'x'" in run.stderr


def test_exercises_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercise, "DTYPES", (torch.float32, torch.bfloat16))
    monkeypatch.setattr(exercise, "SIZES", ((0, 3), (7, 5)))
    torch.manual_seed(0)
    first = exercise.kernels("cpu")
    torch.manual_seed(0)
    again = exercise.kernels("cpu")
    assert len(first) > 300
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, again, strict=True))
