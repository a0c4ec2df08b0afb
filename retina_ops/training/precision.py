"""Mixed precision: the type that convolutions compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ..errors import needs_extra

with needs_extra("train"):
    import torch

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(name: str, device: torch.device) -> str:
    """Resolves ``"auto"``: bf16 where the hardware has it, otherwise fp16 on GPUs and fp32 on CPUs."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The autocast context of a forward pass. ``precision`` is fp32, bf16 or fp16."""
    return torch.autocast(device.type, dtype=_TYPES.get(precision), enabled=precision in _TYPES)
