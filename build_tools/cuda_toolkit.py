"""Finds the CUDA toolkit and decides whether the CUDA operators are built. Imported by setup.py before torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass
class CudaDecision:
    """Whether the CUDA operators are built, and with what."""

    build: bool
    reason: str | None  # why they are not built
    toolkit: str | None  # release of nvcc, such as "13.0"
    home: str | None


class CudaUnavailable(RuntimeError):
    """RETINA_OPS_CUDA has a bad value, or is 1 where the CUDA operators cannot be built."""


def find_toolkit() -> Path | None:
    """The folder that contains ``bin/nvcc`` and ``include/cuda_runtime.h``, or None.

    CUDA_HOME and CUDA_PATH come first. ``nvcc`` on PATH may be a wrapper script outside the toolkit; the line ``TOP=``
    of its dry run names the toolkit's folder.
    """
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    nvcc = shutil.which("nvcc")
    if nvcc:
        candidates += [str(Path(nvcc).parent.parent), str(Path(nvcc).resolve().parent.parent)]
        dry_run = subprocess.run(
            [nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False
        )
        top = re.search(r"TOP=(.+)", dry_run.stderr + dry_run.stdout)
        if top:
            candidates.append(top.group(1).strip())
    candidates.append("/usr/local/cuda")
    for candidate in candidates:
        if candidate and (Path(candidate) / "bin/nvcc").is_file() and _has_headers(Path(candidate)):
            return Path(os.path.normpath(candidate))
    return None


def _has_headers(home: Path) -> bool:
    return (home / "include/cuda_runtime.h").is_file() or bool(list(home.glob("targets/*/include/cuda_runtime.h")))


def toolkit_release(home: Path) -> str | None:
    output = subprocess.run([home / "bin/nvcc", "--version"], capture_output=True, text=True, check=False).stdout
    release = re.search(r"release (\d+\.\d+)", output)
    return release.group(1) if release else None


def decide(torch_cuda: str | None, home: Path | None) -> CudaDecision:
    """Decides by RETINA_OPS_CUDA (auto, 1 or 0), the toolkit, and the CUDA version of torch (None: no CUDA)."""
    wanted = os.environ.get("RETINA_OPS_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise CudaUnavailable(f"RETINA_OPS_CUDA must be auto, 1 or 0, got {wanted!r}")
    release = toolkit_release(home) if home else None
    if wanted == "0":
        return CudaDecision(False, "switched off with RETINA_OPS_CUDA=0", release, None)
    reason = None
    if home is None or release is None:
        reason = "no CUDA toolkit was found; install one (nvcc and headers) and set CUDA_HOME to its folder"
    elif torch_cuda is None:
        reason = "the torch of the build has no CUDA; install a CUDA build of torch"
    elif release.split(".")[0] != torch_cuda.split(".")[0]:
        reason = (
            f"the toolkit is CUDA {release} and torch is built with CUDA {torch_cuda}; install a toolkit "
            f"{torch_cuda.split('.')[0]}.x and set CUDA_HOME to its folder"
        )
    if reason and wanted == "1":
        raise CudaUnavailable(f"RETINA_OPS_CUDA=1, but {reason}")
    return CudaDecision(reason is None, reason, release, str(home) if home else None)


def architectures(default: str) -> str:
    """TORCH_CUDA_ARCH_LIST where it is set, else the architecture of the visible GPU, else `default`."""
    chosen = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if chosen:
        return chosen
    import torch

    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        return f"{major}.{minor}"
    return default
