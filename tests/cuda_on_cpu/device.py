"""An emulated CUDA device: a compiled program that runs kernels over arrays in files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .build import symbolized

ENVIRONMENT = {
    **os.environ,
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:use_sigaltstack=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


class Report(AssertionError):
    """A kernel broke a rule; the message says which, where."""


@dataclass(frozen=True)
class Array:
    """An argument of a kernel: its tensor is read, and written back. is_filled: False for memory as allocated.
    offset: bytes past a 16-byte boundary."""

    tensor: Tensor
    is_filled: bool = True
    offset: int = 0


@dataclass(frozen=True)
class Device:
    """A compiled program, and the order in which it runs threads and blocks: forward, reverse, or random by seed."""

    program: Path
    order: str = "forward"
    seed: int = 1

    def run(self, kernel: str, scalars: dict[str, float], arrays: dict[str, Array | Tensor | None]) -> None:
        """Runs the kernels of one call; raises Report where one breaks a rule."""
        given = {name: a if isinstance(a, Array) else Array(a) for name, a in arrays.items() if a is not None}
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / kernel
            folder.mkdir()
            lines = [f"scalar {name} {float(value)!r}" for name, value in scalars.items()]
            for name, array in given.items():
                assert array.tensor.is_contiguous()
                content = _bytes_of(array.tensor)
                (folder / f"{name}.bin").write_bytes(content)
                lines.append(f"array {name} {len(content)} {array.offset} {'filled' if array.is_filled else 'empty'}")
            (folder / "case.txt").write_text("\n".join(lines) + "\n")
            command = [str(self.program), self.order, str(self.seed), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, errors="replace")
            if done.returncode:
                raise Report(symbolized(self.program, done.stderr)[:6000] or f"ended with {done.returncode}")
            for name, array in given.items():
                _fill(array.tensor, (folder / f"{name}.bin").read_bytes())


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _fill(tensor: Tensor, content: bytes) -> None:
    if content:
        read = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(tensor.dtype)
        tensor.copy_(read.reshape(tensor.shape))
