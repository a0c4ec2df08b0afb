"""torchvision's own functions: telling them from replacements, and calling their code with other helpers."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any


def unwrapped(function: Any) -> Any:
    """The function that a replacement of `patch_torchvision_ops` stands for; any other function as it is."""
    return getattr(function, "_stands_for", function)


def is_torchvisions(function: Any) -> bool:
    """Whether a function's code is torchvision's, maybe wrapped by torch.jit, or stands for it.

    ``functools.wraps`` copies the name and the ``__module__`` of what it wraps, but not the globals.
    """
    function = unwrapped(function)
    return str(getattr(function, "__globals__", {}).get("__name__", "")).startswith(("torchvision.", "torch.jit."))


def rebound(function: FunctionType, helpers: Mapping[str, Any]) -> FunctionType:
    """A copy of a function that finds `helpers` where its module has functions of these names.

    The code stays torchvision's own, of whichever version is installed. The copy's globals have no ``__name__``, so
    that ``torch.compile`` does not look the helpers up in torchvision's module.
    """
    names = {**function.__globals__, **helpers}
    names.pop("__name__", None)
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
