"""TorchScript is not supported: its compiler is told to say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., object])


def refuse_tracing(name: str) -> None:
    """Raises where ``torch.jit.trace`` runs a model: sizes and numbers of detections would become constants.

    Raises:
        RuntimeError: it is being traced; the message calls it by ``name``.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise RuntimeError(f"{name}: torch.jit.trace is not supported; use torch.compile or torch.export")


def no_torchscript(function: F) -> F:
    """Makes ``torch.jit.script(function)`` raise an error that names the alternatives."""

    def refuse() -> NoReturn:
        raise RuntimeError(
            f"retina_ops.{function.__name__}: TorchScript is not supported; use torch.compile or torch.export"
        )

    function.__prepare_scriptable__ = refuse  # type: ignore[attr-defined]
    return function
