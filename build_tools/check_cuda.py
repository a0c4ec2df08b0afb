"""Compiles the CUDA sources with warnings as errors and checks the generated code. Needs no GPU.

It reports spilled registers, registers and shared memory above build_tools/cuda_budget.json, and narrow accesses in
kernels that memory bandwidth bounds.

python build_tools/check_cuda.py [--arch 80 90 | --all] [--update]
python build_tools/check_cuda.py --sources nms [--arch 90]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cuda_report
import cuda_toolkit
import sources

ROOT = Path(__file__).resolve().parents[1]
OLDEST = 75  # of the architectures that PyTorch's CUDA 13 builds support


@dataclass(frozen=True)
class Compiled:
    """What the compilation of one source for one architecture found."""

    source: str
    arch: str
    kernels: list[cuda_report.Kernel]
    problems: list[str]


def compile_source(home: Path, build: dict, source: str, arch: str, include: str) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "out.cubin"
        command = [
            str(home / "bin/nvcc"),
            *[flag for flag in build["nvcc_flags"] if flag not in ("--threads", "2")],
            f"-std=c++{build['cxx_standard']}",
            f"-arch=sm_{arch}",
            "--resource-usage",
            "-Werror=all-warnings",
            "-DUSE_CUDA",
            f"-DTORCH_TARGET_VERSION={build['torch_target_version']}",
            f"-I{ROOT / 'csrc'}",
            "-isystem",
            include,
            "-cubin",
            str(ROOT / "csrc" / source),
            "-o",
            str(cubin),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        output = run.stdout + run.stderr
        if run.returncode:
            return Compiled(source, arch, [], [output])
        kernels = cuda_report.kernels_of(output)
        problems = [problem for kernel in kernels if (problem := kernel.problem())]
        tool = cuda_report.disassembler()
        problems += cuda_report.narrow_accesses(tool, cubin) if tool else []
    return Compiled(source, arch, kernels, problems)


def architectures(home: Path) -> list[str]:
    """The supported architectures that this nvcc compiles for."""
    text = subprocess.run([str(home / "bin/nvcc"), "--list-gpu-arch"], capture_output=True, text=True).stdout
    numbers = sorted(int(line.removeprefix("compute_")) for line in text.split())
    return [str(number) for number in numbers if number >= OLDEST]


def check(home: Path, archs: Sequence[str], names: Sequence[str], update: bool) -> int:
    """Compiles the sources `names` for `archs`, prints the problems, and returns how many there are."""
    import torch

    include = str(Path(torch.__file__).parent / "include")
    build = sources.settings()
    complete = list(names) == sources.cuda()
    jobs = [(name, arch) for arch in archs for name in names]
    with ThreadPoolExecutor() as pool:
        compiled = list(pool.map(lambda job: compile_source(home, build, *job, include), jobs))
    failed = 0
    measured = {}
    for arch in archs:
        of_arch = [each for each in compiled if each.arch == arch]
        measured[arch] = cuda_report.budget_of(kernel for each in of_arch for kernel in each.kernels)
        problems = [f"{each.source}: {problem}" for each in of_arch for problem in each.problems]
        problems += [] if update else cuda_report.over_budget(arch, measured[arch], complete)
        count = sum(len(each.kernels) for each in of_arch)
        print(f"sm_{arch}: {count} kernels, {'; '.join(problems) or ('recorded' if update else 'within budget')}")
        failed += len(problems)
    if update:
        cuda_report.write_budget(measured)
    if cuda_report.disassembler() is None:
        print("nvdisasm was not found: the width of the accesses was not checked")
        failed += os.environ.get("RETINA_OPS_REQUIRE_ALL") == "1"
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", help="default: the oldest supported, 90 and the newest")
    parser.add_argument("--all", action="store_true", help="every architecture that nvcc knows")
    parser.add_argument("--sources", nargs="+", help="rooms, or files relative to csrc/; default: every CUDA source")
    parser.add_argument("--update", action="store_true", help="write the figures into the budget")
    arguments = parser.parse_args()
    names = [
        name
        for name in sources.cuda()
        if not arguments.sources or name in arguments.sources or name.split("/")[0] in arguments.sources
    ]
    if not names:
        parser.error(f"no CUDA source of csrc/ matches {' '.join(arguments.sources)}")
    if arguments.update and arguments.sources:
        parser.error("--update writes the budget of all kernels, so it takes no --sources")
    home = cuda_toolkit.find_toolkit()
    if home is None:
        print("no CUDA toolkit was found; install one (nvcc and headers) and set CUDA_HOME to its folder")
        return 1
    known = architectures(home)
    archs = arguments.arch or (known if arguments.all else sorted({known[0], "90", known[-1]}, key=int))
    return 1 if check(home, archs, names, arguments.update) else 0


if __name__ == "__main__":
    sys.exit(main())
