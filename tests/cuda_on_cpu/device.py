"""An emulated CUDA device: a compiled program that runs launches over arrays in files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}  # Dtype of common/half_block.h


class Report(AssertionError):
    """A kernel broke a rule; the message says which and where."""


@dataclass(frozen=True)
class Array:
    """A pointer of a launch's argument struct: the tensor is read, and written back.

    Attributes:
        is_filled: False for memory as it is allocated: reading a byte that no thread has written is reported.
        offset: elements that the array lies past a 64-byte boundary.
        first: index that the kernels use for ``tensor[0]``. The pointer is moved back by as many rows.
    """

    tensor: Tensor
    is_filled: bool = True
    offset: int = 0
    first: int = 0


Field = Array | Tensor | torch.dtype | float | None | Sequence["Field"] | Mapping[str, "Field"]


@dataclass(frozen=True)
class Device:
    """A compiled program, and the order in which it runs threads and blocks: forward, reverse, or random by seed."""

    program: Path
    order: str = "forward"
    seed: int = 1

    def forward(self) -> Device:
        """The same program, which runs threads and blocks in their order."""
        return Device(self.program)

    def launch(self, function: str, fields: Mapping[str, Field]) -> None:
        """Calls a launch function of csrc with these fields of its argument struct.

        A tensor is an array, None a null pointer, a sequence an array of fields, a mapping a nested struct.

        Raises:
            Report: a kernel broke a rule, or the fields are not those of the launch.
        """
        with tempfile.TemporaryDirectory() as name:
            folder, arrays, lines = Path(name), [], [f"launch {function}"]
            for path, value in _flat("", fields):
                if isinstance(value, Array):
                    file = folder / f"{len(arrays)}.bin"
                    content = _bytes_of(value.tensor)
                    file.write_bytes(content)
                    arrays.append((value.tensor, file))
                    lines.append(f"array {path} {file.name} {len(content)} {_placement(value)}")
                else:
                    lines.append(f"scalar {path} {value}")
            (folder / "case.txt").write_text("\n".join(lines) + "\n")
            command = [str(self.program), self.order, str(self.seed), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, errors="replace")
            if done.returncode:
                report = symbolized(self.program, done.stderr)[:6000]
                raise Report(report or f"{function} ended with {done.returncode}")
            for tensor, file in arrays:
                _fill(tensor, file.read_bytes())


def _flat(prefix: str, fields: Mapping[str, Field]) -> Iterator[tuple[str, Array | str]]:
    """Arrays, and numbers as text, by their path in the struct."""
    for name, value in fields.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(f"{path}.", value)
        elif isinstance(value, Tensor | Array):
            yield path, value if isinstance(value, Array) else Array(value)
        elif isinstance(value, Sequence):
            yield from _flat("", {f"{path}[{i}]": element for i, element in enumerate(value)})
        elif isinstance(value, torch.dtype):
            yield path, str(DTYPES[value])
        elif value is not None:
            yield path, repr(int(value) if isinstance(value, bool) else value)


def _placement(array: Array) -> str:
    """ELEMENT_BYTES OFFSET SHIFT filled|empty of case.h."""
    tensor, size = array.tensor, array.tensor.element_size()
    row = tensor[0].numel() if array.first else 0
    return f"{size} {array.offset * size} {array.first * row * size} {'filled' if array.is_filled else 'empty'}"


def _bytes_of(tensor: Tensor) -> bytes:
    assert tensor.is_contiguous()
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _fill(tensor: Tensor, content: bytes) -> None:
    if content:
        read = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(tensor.dtype)
        tensor.copy_(read.reshape(tensor.shape))
