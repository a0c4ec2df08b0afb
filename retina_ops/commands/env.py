"""`retina-ops env`, which needs no extra."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from .._library import build_info
from .._version import __version__
from ..files import write_json

_PACKAGES = ("torchvision", "safetensors", "faster-coco-eval", "tyro", "rich", "matplotlib", "scikit-learn", "ninja")


def run(arguments: list[str]) -> None:
    """Prints the environment as JSON, for bug reports."""
    description = "Print versions, build options and devices as JSON, for bug reports."
    parser = argparse.ArgumentParser(prog="retina-ops env", description=description)
    parser.add_argument("--output", default="", help="folder for env.json (default: print only)")
    output = parser.parse_args(arguments).output
    found = environment()
    print(json.dumps(found, indent=2))
    if output:
        write_json(Path(output) / "env.json", found, indent=2)


def environment() -> dict[str, Any]:
    """Versions, what was built and why parts are missing, the processor and the GPUs, as plain values."""
    return {
        "retina_ops": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": {
            "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "RETINA_OPS_ISA": os.environ.get("RETINA_OPS_ISA"),
        },
        "torch_cuda": torch.version.cuda,
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        "build": build_info(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
