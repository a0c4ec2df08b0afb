"""The GPU check where there is no GPU: nothing is recorded as passed; and its exercises, run on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu import exercise
from samples import OPERATORS
from samples.calls import assert_same_bits

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


def test_exercises_run_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU in place of the GPU: each row gives results, and twice the same."""
    for row in OPERATORS:
        first, again = (exercise.kernels("cpu", [torch.float32], [row]) for _ in range(2))
        assert len(first) > 3
        assert_same_bits(again, first, row.name)


def test_equality_reaches_every_row() -> None:
    """Samples of one seed cover all rows, and go on with other values of other dtypes."""
    seen = list(exercise.random_samples(3000))
    assert len(seen) == 3000
    assert {row.name for row, _, _ in seen} == {row.name for row in OPERATORS}
    assert len({dtype for _, dtype, _ in seen}) > 1


def test_equality_finds_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """With results that differ between the devices in the last place of one number."""
    nms = next(row for row in OPERATORS if row.name == "nms")
    samples = [sample for sample in nms.samples(torch.float32) if len(sample.arguments["boxes"]) > 10]
    monkeypatch.setattr(exercise, "random_samples", lambda count: iter([(nms, torch.float32, samples[0])] * count))
    calls = 0

    def results_of(row, function, sample):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        results = real(row, function, sample)
        if calls == 4:
            results.outputs[0][-1] += 1
        return results

    real = exercise.results_of
    monkeypatch.setattr(exercise, "results_of", results_of)
    monkeypatch.setattr(exercise, "on_device", lambda sample, device: sample)
    assert exercise.check_equality("1") == {"cases": 1, "equal_to_the_last_bit": 1}
    with pytest.raises(AssertionError, match=r"nms.*output 0: 1 of"):
        exercise.check_equality("1")
