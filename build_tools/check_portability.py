"""Tests the wheel under a torch without CUDA, and compiles the sources against the oldest supported torch.

It downloads both releases of torch.

python build_tools/check_portability.py [wheel] [headers] [--all]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda_toolkit
import sources

ROOT = Path(__file__).resolve().parents[1]
RELEASES = ("2.10.0", "2.11.0", "2.12.0", "2.13.0", "2.14.0", "2.15.0")
CPU_TORCH = "2.13.0"
# The smallest wheel of a release. The headers are the same on every platform.
HEADER_PLATFORM = [
    "--platform",
    "manylinux_2_28_aarch64",
    "--only-binary=:all:",
    "--no-deps",
    "--python-version",
    "3.11",
]


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command[:5]))} failed:\n{done.stdout[-3000:]}{done.stderr[-6000:]}")
    return done.stdout


def check_wheel(folder: Path, releases: Sequence[str]) -> None:
    """Builds the wheel, installs it in an environment with nothing but torch, and tests every CPU operator there."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ".")
    (wheel,) = folder.glob("*.whl")
    tag = wheel.stem.split("-", 2)[2]
    assert tag.startswith("cp310-abi3-"), f"the wheel is {tag}, not cp310-abi3"
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", f"torch=={CPU_TORCH}", "numpy")
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    has_cuda = run(python, "-c", "import torch; print(torch.version.cuda)", cwd=folder).strip() != "None"
    out = run(python, ROOT / "build_tools" / "check_operators.py", cwd=folder)
    info = json.loads(
        run(python, "-c", "import json, retina_ops; print(json.dumps(retina_ops.build_info()))", cwd=folder)
    )
    kind = "has CUDA, so this proves less" if has_cuda else "has no CUDA"
    print(f"{wheel.name}, built with torch {info['torch']}, under torch {info['torch_running']}, which {kind}:")
    print(out.strip())
    print(f"its CUDA operators: {info['cuda_problem'] or 'loaded'}")


def check_headers(folder: Path, releases: Sequence[str]) -> None:
    """Compiles every source against the headers of each release. Warnings are errors."""
    for release in releases:
        compile_against(release, folder / release)


def compile_against(release: str, folder: Path) -> None:
    run(sys.executable, "-m", "pip", "download", "-q", *HEADER_PLATFORM, "-d", folder, f"torch=={release}")
    (archive,) = folder.glob("torch-*.whl")
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder, [name for name in content.namelist() if name.startswith("torch/include/")])
    build = sources.settings()
    cpp, cuda = [*sources.core(), *sources.cpu_operators()], sources.cuda()
    include = ["-I", str(ROOT / "csrc"), "-isystem", str(folder / "torch/include")]
    shared = [f"-std=c++{build['cxx_standard']}", f"-DTORCH_TARGET_VERSION={build['torch_target_version']}", *include]
    compiler = os.environ.get("CXX", "c++")
    commands = [
        [compiler, *build["cxx_flags"], "-Werror", "-fPIC", *shared, "-fsyntax-only", str(ROOT / "csrc" / source)]
        for source in cpp
    ]
    home = cuda_toolkit.find_toolkit()
    if home is not None:
        flags = [flag for flag in build["nvcc_flags"] if flag not in ("--threads", "2")]
        commands += [
            [str(home / "bin/nvcc"), *flags, *shared, "-DUSE_CUDA", "-Werror=all-warnings", "-arch=sm_80", "-ptx",
             str(ROOT / "csrc" / source), "-o", os.devnull]
            for source in cuda
        ]  # fmt: skip
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda command: run(*command), commands))
    of_cuda = f"and {len(cuda)} CUDA sources" if home is not None else "(no CUDA toolkit: CUDA left out)"
    print(f"{len(cpp)} C++ sources {of_cuda} compile against torch {release}", flush=True)


CHECKS = {"wheel": check_wheel, "headers": check_headers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], help="default: both")
    parser.add_argument("--all", action="store_true", help="the headers of every supported release")
    arguments = parser.parse_args()
    for name in arguments.checks or CHECKS:
        with tempfile.TemporaryDirectory() as folder:
            CHECKS[name](Path(folder), RELEASES if arguments.all else RELEASES[:1])


if __name__ == "__main__":
    main()
