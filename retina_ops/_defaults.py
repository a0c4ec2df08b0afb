"""torch's default device and dtype, which a program may have changed, as this package's own tensors need them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def standard_defaults() -> Iterator[None]:
    """Makes new tensors float32 and puts them on the CPU in the ``with`` statement, as torch does by default."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
