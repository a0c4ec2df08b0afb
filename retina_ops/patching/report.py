"""What patching did to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PARTS = ("head", "loss", "post-processing", "anchors")


@dataclass(frozen=True)
class PatchReport:
    """What was replaced in a model, or restored, and what was left alone.

    Attributes:
        replaced: parts that are fused now, of "head", "loss", "post-processing" and "anchors".
        restored: parts that are torchvision's again.
        left: the reason for each part, or for the "model", that was left alone.
    """

    replaced: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = []
        for name, parts in (("replaced", self.replaced), ("restored", self.restored)):
            if parts:
                lines.append(f"{name}: {', '.join(parts)}")
        lines += [f"left alone: {part}: {reason}" for part, reason in self.left.items()]
        return "\n".join(lines) if lines else "nothing to do"
