"""Bugs in the kernels of retinanet_loss/."""

from __future__ import annotations

import torch
from inputs.heads import random_head

from .. import operators as emulated
from ..device import Device
from ..fused_loss import arguments_of, expected_of
from .plan import BOTH, Mutation


def loss(device: Device) -> None:
    """Two images whose last packs are not full, in both orders of memory; a map of one cell is planar in both."""
    for layout, classes, sizes in (
        ("planar", 19, [(5, 7), (1, 1)]),
        ("channels_last", 19, [(5, 7), (1, 1)]),
        ("channels_last", 19, [(5, 7)]),
        ("channels_last", 5, [(5, 7)]),
    ):
        head = random_head(sizes, [4, 3], classes=classes, layout=layout)
        arguments = arguments_of(head)
        losses, gradients = expected_of(head, *arguments[-2:])
        got = emulated.retinanet_loss(device, *arguments, most_blocks=1)
        again = emulated.retinanet_loss(device, *arguments, most_blocks=1)
        for mine, theirs in zip(got[:2], losses, strict=True):
            assert torch.allclose(mine.double(), theirs, rtol=1e-5)
        for mine, theirs in zip([*got[2], *got[3]], gradients, strict=True):
            assert torch.allclose(mine.double(), theirs, rtol=1e-4, atol=1e-6)
        assert torch.equal(got[0], again[0]) and torch.equal(got[1], again[1])


_LOGITS = "retinanet_loss/retinanet_loss_logit_kernels.cuh"
_BOXES = "retinanet_loss/retinanet_loss_box_kernels.cuh"
_LEVELS = "retinanet_loss/retinanet_loss_levels.cuh"
_RULE = "retinanet_loss/retinanet_loss.h"


def _bug(old: str, new: str, variants: tuple[str, ...] = BOTH, file: str = _LOGITS) -> Mutation:
    return Mutation("retinanet_loss", file, old, new, loss, variants)


MUTATIONS = {
    "loss rows: the next image's match": _bug("cursor.row + 1 < end ? matches", "true ? matches"),
    "loss rows: an image's own weights": _bug(
        "      is_new = true;\n", "      is_new = is_new || matches == nullptr;\n"
    ),
    "loss rows: packs of two images": _bug("image < a.batch; image += place", "image < 0; image += place"),
    "loss rows: written twice": _bug("is_shared ? left : n - here", "n - here", ("races",)),
    "loss rows: past the end": _bug("if (is_shared) targets.ignore_from(left);", ""),
    "loss of two kinds: the first is lost": _bug("(adds ? *a.result", "(adds && a.count == 0 ? *a.result"),
    "loss planes: past the last class": _bug(
        "classes - first < kPlaneClasses ? classes - first : kPlaneClasses", "kPlaneClasses"
    ),
    "loss planes: target past the last cell": _bug("i < available ? target_at", "true ? target_at"),
    "loss planes: tail ignored": _bug(
        "read_plane<kPack>(level.values + at, available, level.access)",
        "read_plane<kPack>(level.values + at, kPack, level.access)",
    ),
    "loss planes: every positive in one plane": _bug("<< (4 * i);", "<< (4 * 0);"),
    "loss: gap not cleared": _bug("i < level.gap;", "i < 0;", BOTH, _LEVELS),
    "loss: gap too long": _bug("i < level.gap;", "i < level.gap + kLevelAlignment;", BOTH, _LEVELS),
    "loss: a level's blocks overlap": _bug(
        "block >= a.level[level + 1].first_block", "block > a.level[level + 1].first_block", BOTH, _LEVELS
    ),
    "loss: a match of no box": _bug("if (match < 0) return", "if (match < -2) return", BOTH, _RULE),
    "loss boxes: past the last anchor": _bug(
        "const int64_t items = a.batch * level.cells * level.per_cell;",
        "const int64_t items = a.batch * level.cells * level.per_cell + 1;",
        BOTH,
        _BOXES,
    ),
    "loss boxes: step of the other order": _bug(
        "level.is_planar ? level.cells : 1;", "level.is_planar ? 1 : level.cells;", BOTH, _BOXES
    ),
}
