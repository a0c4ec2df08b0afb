"""The check of the compiled CUDA kernels reports spills, grown figures, and narrow accesses."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from requirements import require

ROOT = Path(__file__).resolve().parents[2]
LOSS = "_ZN10retina_ops25focal_loss_reduced_kernelI13__nv_bfloat16lLNS_5GammaE0ELb1EEEvNS_4ArgsE"
MASK = "_ZN10retina_ops15nms_mask_kernelIdEEvNS_8NmsBoxesIT_EElPm"


def entry(name: str, registers: int, stack: int, spilled: int, shared: int) -> str:
    return (
        f"ptxas info    : Compiling entry function '{name}' for 'sm_90'\n"
        f"ptxas info    : Function properties for {name}\n"
        f"    {stack} bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads\n"
        f"ptxas info    : Used {registers} registers, used 1 barriers, {shared} bytes smem\n"
        "ptxas info    : Compile time = 1.000 ms\n"
    )


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    require(shutil.which("c++filt") is not None, "c++filt")
    monkeypatch.syspath_prepend(str(ROOT / "build_tools"))
    module = importlib.import_module("cuda_report")
    monkeypatch.setattr(module, "BUDGET", tmp_path / "budget.json")
    return module


def test_reads_what_ptxas_says(report: ModuleType) -> None:
    kernels = report.kernels_of(entry(LOSS, 40, 0, 0, 128) + entry(MASK, 30, 32, 0, 2048))
    assert [kernel.registers for kernel in kernels] == [40, 30]
    assert report.budget_of(kernels) == {
        "focal_loss_reduced_kernel float32": {"registers": 40, "shared": 128, "stack": 0},
        "nms_mask_kernel float64": {"registers": 30, "shared": 2048, "stack": 32},
    }
    assert [kernel.problem() for kernel in kernels] == [None, None]


def test_reports_spills_and_stack(report: ModuleType) -> None:
    spilled, framed = report.kernels_of(entry(LOSS, 40, 0, 8, 0) + entry(MASK, 30, 72, 0, 0))
    assert "16 bytes spilled" in spilled.problem()
    assert "72 bytes of stack" in framed.problem()


def test_budget_holds_until_it_is_updated(report: ModuleType) -> None:
    measured = report.budget_of(report.kernels_of(entry(LOSS, 40, 0, 0, 128)))
    assert report.over_budget("90", measured) == ["no budget of sm_90 is recorded: run --update"]
    report.write_budget({"90": measured})
    assert report.over_budget("90", measured) == []
    grown = report.budget_of(report.kernels_of(entry(LOSS, 41, 0, 0, 128) + entry(MASK, 30, 0, 0, 0)))
    assert report.over_budget("90", grown) == [
        "focal_loss_reduced_kernel float32 of sm_90: registers 41, budget 40",
        "nms_mask_kernel float64 of sm_90 is not in the budget: run --update",
    ]
    assert "no longer compiled" in report.over_budget("90", {})[0]
    assert report.over_budget("90", {}, complete=False) == []


def test_wide_accesses(report: ModuleType, tmp_path: Path) -> None:
    tool = tmp_path / "disassemble"
    tool.write_text(f"#!{sys.executable}\nprint('.text.{LOSS}:')\nprint('LDG.E.128.CONSTANT R4, [R2]')\n")
    tool.chmod(0o755)
    (problem,) = report.narrow_accesses(tool, tmp_path)
    assert problem.startswith("focal_loss_reduced_kernel<__nv_bfloat16") and "STG" in problem
