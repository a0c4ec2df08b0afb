"""Compiles every CUDA source with warnings as errors and reports what ptxas says of each kernel. Needs no GPU.

python build_tools/check_cuda.py [--arch 80 90]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda_toolkit

ROOT = Path(__file__).resolve().parents[1]
# Kernels of float64 call log, exp and division of the device library; the bytes that their call frames may use.
FLOAT64_FRAME = 64


def compile_source(nvcc: Path, build: dict, source: str, arch: str, include: str) -> tuple[str, str, int]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(nvcc),
            *[flag for flag in build["nvcc_flags"] if flag not in ("--threads", "2")],
            f"-std=c++{build['cxx_standard']}",
            f"-gencode=arch=compute_{arch},code=sm_{arch}",
            "--resource-usage",
            "-Werror=all-warnings",
            "-DUSE_CUDA",
            f"-DTORCH_TARGET_VERSION={build['torch_target_version']}",
            f"-I{ROOT / 'csrc'}",
            "-isystem",
            include,
            "-c",
            str(ROOT / "csrc" / source),
            "-o",
            str(Path(folder) / "out.o"),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{source} sm_{arch}", run.stdout + run.stderr, run.returncode


def problems_of(output: str) -> tuple[int, list[str]]:
    """Kernels seen, and those that spill or use local memory."""
    kernels = re.findall(
        r"Function properties for (\S+)\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        output,
    )
    problems = []
    for name, frame, stores, loads in kernels:
        is_float64 = re.search(r"kernelId", name) is not None  # first template argument is double
        allowed = FLOAT64_FRAME if is_float64 else 0
        if max(int(frame), int(stores), int(loads)) > allowed:
            problems.append(f"{name}: {frame} bytes of stack, {stores} and {loads} bytes spilled")
    return len(kernels), problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", nargs="+", default=["80", "90"])
    arguments = parser.parse_args()
    home = cuda_toolkit.find_toolkit()
    if home is None:
        print("no CUDA toolkit was found; install one (nvcc and headers) and set CUDA_HOME to its folder")
        return 1
    import torch

    include = str(Path(torch.__file__).parent / "include")
    build = json.loads((ROOT / "csrc/build.json").read_text())
    jobs = [(source, arch) for arch in arguments.arch for source in build["cuda_sources"]]
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda job: compile_source(home / "bin/nvcc", build, *job, include), jobs)
        for name, output, code in runs:
            kernels, problems = problems_of(output)
            print(f"{name}: {'ok' if code == 0 else 'FAILED'}, {kernels} kernels, {len(problems)} spill")
            if code != 0:
                print(output)
            for problem in problems:
                print(f"  {problem}")
            failed += code != 0 or bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
