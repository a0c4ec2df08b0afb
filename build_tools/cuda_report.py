"""Reads the resources and the code of the compiled kernels, and compares them with the recorded budget.

A row of the budget stands for one kernel template in one arithmetic type, and holds the largest figures over the other
template arguments. `python build_tools/check_cuda.py --update` writes it, where a kernel is meant to use more.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

BUDGET = Path(__file__).resolve().parent / "cuda_budget.json"
# float64 kernels call log, exp and division of the device library. Those calls may use this many bytes of stack.
FLOAT64_FRAME = 64
LOAD, STORE = r"LDG\.E\.(\w+\.)*128", r"STG\.E\.(\w+\.)*128"


@dataclass(frozen=True)
class Kernel:
    """One compiled kernel: registers per thread, and bytes of shared memory, stack frame and spills."""

    name: str
    registers: int
    shared: int
    stack: int
    spills: int

    @property
    def group(self) -> str:
        """The row of the budget: template name and arithmetic type."""
        template, _, arguments = self.name.partition("<")
        return f"{template} {'float64' if arguments.startswith('double') else 'float32'}"

    def problem(self) -> str | None:
        frame = FLOAT64_FRAME if self.group.endswith("float64") else 0
        if self.stack <= frame and self.spills <= frame:
            return None
        return f"{self.name}: {self.stack} bytes of stack, {self.spills} bytes spilled"


_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '\w+'\n"
    r".*?Function properties for \w+\n"
    r"\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def kernels_of(output: str) -> list[Kernel]:
    """The kernels that the output of `nvcc --resource-usage` lists."""
    entries = list(_ENTRY.finditer(output))
    names = demangled(entry["name"] for entry in entries)
    kernels = []
    for entry, name in zip(entries, names, strict=True):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        spills = int(entry["stores"]) + int(entry["loads"])
        kernels.append(
            Kernel(name, int(entry["registers"]), int(shared[1]) if shared else 0, int(entry["stack"]), spills)
        )
    return kernels


def demangled(names: Iterable[str]) -> list[str]:
    """The names as the source writes them, without return type and parameters."""
    command = ["c++filt", "--no-params"]
    text = subprocess.run(command, input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [line.removeprefix("void ").replace("retina_ops::", "") for line in text.splitlines()]


def budget_of(kernels: Iterable[Kernel]) -> dict[str, dict[str, int]]:
    """The largest figures of each group of kernels."""
    rows: dict[str, dict[str, int]] = {}
    for kernel in kernels:
        row = rows.setdefault(kernel.group, {"registers": 0, "shared": 0, "stack": 0})
        for key in row:
            row[key] = max(row[key], asdict(kernel)[key])
    return dict(sorted(rows.items()))


def read_budget() -> dict[str, dict[str, dict[str, int]]]:
    return json.loads(BUDGET.read_text()) if BUDGET.is_file() else {}


def write_budget(measured: dict[str, dict[str, dict[str, int]]]) -> None:
    """Replaces the rows of the architectures in `measured`, and keeps those of all others."""
    budget = dict(sorted((read_budget() | measured).items()))
    lines = [
        f'  "{arch}": {{\n' + ",\n".join(f'    "{name}": {json.dumps(row)}' for name, row in rows.items()) + "\n  }"
        for arch, rows in budget.items()
    ]
    BUDGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def over_budget(arch: str, measured: dict[str, dict[str, int]], complete: bool = True) -> list[str]:
    """Compares the kernels compiled for `arch` with the budget; `complete`: every source was compiled.

    Returns:
        One message for each figure above the budget, for each kernel that the budget lacks, and, where `complete`, for
        each row whose kernel was not compiled.
    """
    allowed = read_budget().get(arch)
    if allowed is None:
        return [f"no budget of sm_{arch} is recorded: run --update"]
    missing = [name for name in allowed if name not in measured] if complete else []
    problems = [f"{name} of sm_{arch} is no longer compiled: run --update" for name in missing]
    for name, row in measured.items():
        if name not in allowed:
            problems.append(f"{name} of sm_{arch} is not in the budget: run --update")
            continue
        problems += [
            f"{name} of sm_{arch}: {key} {value}, budget {allowed[name][key]}"
            for key, value in row.items()
            if value > allowed[name][key]
        ]
    return problems


def disassembler() -> Path | None:
    """nvdisasm on PATH, else the one that the Triton package contains, else None."""
    found = shutil.which("nvdisasm")
    if found:
        return Path(found)
    try:
        import triton
    except ImportError:
        return None
    path = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    return path if path.is_file() else None


def wide_accesses(name: str) -> tuple[str, ...]:
    """The 16-byte accesses that the code of a kernel must contain: those of kernels bound by memory bandwidth."""
    template, _, arguments = name.partition("<")
    if template in ("focal_loss_elementwise_kernel", "scale_gradient_kernel"):
        return LOAD, STORE
    if template == "focal_loss_reduced_kernel":
        return (LOAD, STORE) if arguments.endswith("true>") else (LOAD,)
    if template == "retinanet_classification_kernel":
        return LOAD, STORE
    if template == "box_coding_kernel" and arguments.startswith(("float, float", "double, double")):
        return LOAD, STORE
    return ()


def narrow_accesses(tool: Path, cubin: Path) -> list[str]:
    """One message for each access of `wide_accesses` that the code of a kernel in `cubin` lacks."""
    code = subprocess.run([str(tool), "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    sections = re.split(r"^\.text\.(\w+):$", code, flags=re.MULTILINE)
    problems = []
    for name, body in zip(demangled(sections[1::2]), sections[2::2], strict=True):
        missing = [access for access in wide_accesses(name) if not re.search(access, body)]
        problems += [f"{name}: no 16-byte access {access}" for access in missing]
    return problems
