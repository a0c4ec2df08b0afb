"""Whether hooks watch a module. Imports torch alone."""

from __future__ import annotations

import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def has_hooks(module: nn.Module) -> bool:
    """Whether forward or backward hooks are registered on the module itself."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def has_global_hooks() -> bool:
    """Whether hooks are registered for all modules, which see what each module is given and returns."""
    return bool(torch.nn.modules.module._has_any_global_hook())
