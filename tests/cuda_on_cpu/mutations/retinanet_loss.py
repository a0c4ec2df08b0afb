"""Bugs in the kernels of retinanet_loss/."""

from __future__ import annotations

import torch
from heads import random_head

from .. import operators as emulated
from ..device import Device
from ..fused_loss import arguments_of, expected_of
from .plan import BOTH, Mutation


def loss(device: Device) -> None:
    """Two images whose last packs are not full, in both orders of memory."""
    for layout in ("planar", "channels_last"):
        head = random_head([(5, 7), (1, 3)], [4, 3], classes=19, layout=layout)
        arguments = arguments_of(head)
        losses, gradients = expected_of(head, *arguments[-2:])
        got = emulated.retinanet_loss(device, *arguments)
        again = emulated.retinanet_loss(device, *arguments)
        for mine, theirs in zip(got[:2], losses, strict=True):
            assert torch.allclose(mine.double(), theirs, rtol=1e-5)
        for mine, theirs in zip([*got[2], *got[3]], gradients, strict=True):
            assert torch.allclose(mine.double(), theirs, rtol=1e-4, atol=1e-6)
        assert torch.equal(got[0], again[0]) and torch.equal(got[1], again[1])


_LOSS = "retinanet_loss/retinanet_loss_kernels.cuh"
_RULE = "retinanet_loss/retinanet_loss.h"


def _bug(old: str, new: str, variants: tuple[str, ...] = BOTH, file: str = _LOSS) -> Mutation:
    return Mutation("retinanet_loss", file, old, new, loss, variants)


MUTATIONS = {
    "loss rows: target past the last row": _bug("if (at + i < n) {", "{"),
    "loss rows: an image's first anchor": _bug("if (anchor == level.cells) {", "if (false) {"),
    "loss rows: sum past the end": _bug("pack_sum += at + i < n ? loss[i] : A(0);", "pack_sum += loss[i];"),
    "loss planes: past the last class": _bug(
        "first + kPlaneClasses < classes ? first + kPlaneClasses : classes;", "first + kPlaneClasses;"
    ),
    "loss planes: target past the last cell": _bug("cell + i < level.cells ? target_at", "true ? target_at"),
    "loss planes: tail ignored": _bug(
        "load_pack(level.values + at, level.cells - cell, level.aligned, x);",
        "load_pack(level.values + at, kPack, level.aligned, x);",
    ),
    "loss: gap not cleared": _bug("i < level.gap;", "i < 0;"),
    "loss: gap too long": _bug("i < level.gap;", "i < level.gap + kLevelAlignment;"),
    "loss: a level's blocks overlap": _bug(
        "block >= a.level[level + 1].first_block", "block > a.level[level + 1].first_block"
    ),
    "loss: a match of no box": _bug("if (match < 0) return", "if (match < -2) return", BOTH, _RULE),
    "loss boxes: past the last anchor": _bug(
        "const int64_t items = a.batch * level.cells * level.per_cell;",
        "const int64_t items = a.batch * level.cells * level.per_cell + 1;",
    ),
    "loss boxes: step of the other order": _bug(
        "level.is_planar ? level.cells : 1;", "level.is_planar ? 1 : level.cells;"
    ),
}
