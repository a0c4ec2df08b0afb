"""TorchScript is not supported: its compiler is told to say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

F = TypeVar("F", bound=Callable[..., object])


def no_torchscript(function: F) -> F:
    """Makes ``torch.jit.script(function)`` raise an error that names the alternatives."""

    def refuse() -> NoReturn:
        raise RuntimeError(
            f"retina_ops.{function.__name__}: TorchScript is not supported; use torch.compile or torch.export"
        )

    function.__prepare_scriptable__ = refuse  # type: ignore[attr-defined]
    return function
