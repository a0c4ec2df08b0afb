"""retinanet_loss/ on an emulated device."""

from __future__ import annotations

import torch
from inputs.heads import random_head
from torch import Tensor

from retina_ops.ops._retinanet_loss_autograd import BOX_LOSSES

from ..arguments import arithmetic, head_levels, level_starts, limits, output
from ..device import Array, Device, Field
from ..fused_loss import arguments_of, expected_of
from ..room import BOTH, Bug

PARTIALS = 16384 + 8  # kLossPartials


def retinanet_loss(
    device: Device,
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    matches: Tensor,
    normalizer: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_loss: str = "l1",
    smooth_l1_beta: float = 1.0,
    bbox_reg_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
    with_grad: bool = True,
    upstream: tuple[float, float] | None = None,
    first: int = 0,
    offset: int = 0,
    most_blocks: int = 3,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Both losses, and the gradients of the levels.

    Args:
        logits: levels as `as_levels` gives them, as are `deltas` and the gradients.
        upstream: factors of the gradients, as of the backward operator; the losses are then NaN.
        first: index of the first image.
        most_blocks: few, so that a thread computes several items.
    """
    losses = [torch.full((), torch.nan, dtype=arithmetic(levels[0].dtype)) for levels in (logits, deltas)]
    flat = [torch.full((level_starts(levels)[-1],), 7, dtype=levels[0].dtype) for levels in (logits, deltas)]
    done = torch.zeros(2, dtype=torch.int32)
    fields: dict[str, Field] = {
        "logits": head_levels(logits, offset=offset, first=first),
        "deltas": head_levels(deltas, offset=offset, first=first),
        "anchors": Array(anchors, offset=offset),
        "gt_boxes": Array(gt_boxes, offset=offset, first=first),
        "gt_labels": Array(gt_labels, first=first),
        "gt_capacity": gt_boxes.shape[1],
        "matches": Array(matches, first=first),
        "normalizer": Array(normalizer, first=first),
        "alpha": alpha,
        "gamma": gamma,
        "box_loss": BOX_LOSSES.index(box_loss),
        "smooth_l1_beta": smooth_l1_beta,
        "weights": bbox_reg_weights,
        "partial": output(torch.empty(2, PARTIALS, dtype=torch.float64)),
        "done": done,
        "limits": limits(first, most_blocks),
    }
    if with_grad:
        fields |= {"logits_gradient": output(flat[0]), "deltas_gradient": output(flat[1])}
    if upstream is None:
        fields |= {"classification": output(losses[0]), "box": output(losses[1])}
    else:
        factors = [torch.tensor(factor, dtype=torch.float64) for factor in upstream]
        fields |= {"classification_factor": factors[0], "box_factor": factors[1]}
    device.launch("launch_retinanet_loss", fields)
    assert not done.any()
    gradients = [_by_level(gradient, levels) for gradient, levels in zip(flat, (logits, deltas), strict=True)]
    return losses[0], losses[1], gradients[0], gradients[1]


def _by_level(flat: Tensor, levels: list[Tensor]) -> list[Tensor]:
    """The levels of an array of all of them. Between them it must hold zeros, or be untouched."""
    starts, parts = level_starts(levels), []
    for start, end, level in zip(starts, starts[1:], levels, strict=False):
        parts.append(flat[start : start + level.numel()].view(level.shape))
        gap = flat[start + level.numel() : end]
        assert not gap.any() or bool((flat == 7).all())
    return parts


def loss(device: Device) -> None:
    """Two images whose last packs are not full, in both memory formats; a map of one cell is planar in both."""
    for layout, classes, sizes in (
        ("planar", 19, [(5, 7), (1, 1)]),
        ("channels_last", 19, [(5, 7), (1, 1)]),
        ("channels_last", 19, [(5, 7)]),
        ("channels_last", 5, [(5, 7)]),
    ):
        head = random_head(sizes, [4, 3], classes=classes, layout=layout)
        arguments = arguments_of(head)
        losses, gradients = expected_of(head, *arguments[-2:])
        got = retinanet_loss(device, *arguments, most_blocks=1)
        again = retinanet_loss(device, *arguments, most_blocks=1)
        for found, right in zip(got[:2], losses, strict=True):
            assert torch.allclose(found.double(), right, rtol=1e-5)
        for found, right in zip([*got[2], *got[3]], gradients, strict=True):
            assert torch.allclose(found.double(), right, rtol=1e-4, atol=1e-6)
        assert torch.equal(got[0], again[0]) and torch.equal(got[1], again[1])


def losses_do_not_depend_on_the_schedule(device: Device) -> None:
    """One memory format per seed."""
    layout = "planar" if device.seed % 2 else "channels_last"
    arguments = arguments_of(random_head([(5, 7), (2, 2)], [4, 2], layout=layout))
    got, expected = retinanet_loss(device, *arguments), retinanet_loss(device.forward(), *arguments)
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])


def large(device: Device) -> None:
    for layout in ("planar", "channels_last"):
        arguments = arguments_of(random_head([(3, 5), (2, 2)], [3, 1], layout=layout))
        near = retinanet_loss(device, *arguments)
        far = retinanet_loss(device, *arguments, first=2**31 // 16 + 1)
        assert torch.equal(near[0], far[0]) and torch.equal(near[1], far[1])
        for found, right in zip([*far[2], *far[3]], [*near[2], *near[3]], strict=True):
            assert torch.equal(found, right)


_LOGITS = "retinanet_loss/retinanet_loss_logit_kernels.cuh"
_BOXES = "retinanet_loss/retinanet_loss_box_kernels.cuh"
_LEVELS = "retinanet_loss/retinanet_loss_levels.cuh"
_RULE = "retinanet_loss/retinanet_loss.h"

RANDOM = [losses_do_not_depend_on_the_schedule]
LARGE = [large]
PLANTED = {
    "loss rows: the next image's match": Bug(_LOGITS, "cursor.row + 1 < end ? matches", "true ? matches", loss, BOTH),
    "loss rows: the weights of the image before": Bug(
        _LOGITS, "      is_new = true;\n", "      is_new = is_new || matches == nullptr;\n", loss, BOTH
    ),
    "loss rows: packs of two images": Bug(
        _LOGITS, "image < args.batch; image += place", "image < 0; image += place", loss, BOTH
    ),
    "loss rows: written twice": Bug(_LOGITS, "is_shared ? left : n - current", "n - current", loss),
    "loss rows: past the end": Bug(_LOGITS, "if (is_shared) targets.ignore_from(left);", "", loss, BOTH),
    "loss of two formats: the first is lost": Bug(
        _LOGITS, "(adds ? *args.result", "(adds && args.count == 0 ? *args.result", loss, BOTH
    ),
    "loss planes: past the last class": Bug(
        _LOGITS, "classes - first < kPlaneClasses ? classes - first : kPlaneClasses", "kPlaneClasses", loss, BOTH
    ),
    "loss planes: target past the last cell": Bug(_LOGITS, "i < available ? target_at", "true ? target_at", loss, BOTH),
    "loss planes: tail ignored": Bug(
        _LOGITS,
        "read_plane<kPack>(level.values + at, available, level.access)",
        "read_plane<kPack>(level.values + at, kPack, level.access)",
        loss,
        BOTH,
    ),
    "loss planes: every positive in one plane": Bug(_LOGITS, "<< (4 * i);", "<< (4 * 0);", loss, BOTH),
    "loss: gap not cleared": Bug(_LEVELS, "i < level.gap;", "i < 0;", loss, BOTH),
    "loss: gap too long": Bug(_LEVELS, "i < level.gap;", "i < level.gap + kLevelAlignment;", loss, BOTH),
    "loss: a level's blocks overlap": Bug(
        _LEVELS, "block >= args.level[level + 1].first_block", "block > args.level[level + 1].first_block", loss, BOTH
    ),
    "loss: a match of no box": Bug(_RULE, "if (match < 0) return", "if (match < -2) return", loss, BOTH),
    "loss boxes: past the last anchor": Bug(
        _BOXES,
        "const int64_t items = args.batch * level.cells * level.per_cell;",
        "const int64_t items = args.batch * level.cells * level.per_cell + 1;",
        loss,
        BOTH,
    ),
    "loss boxes: step of the other memory format": Bug(
        _BOXES, "level.is_planar ? level.cells : 1;", "level.is_planar ? 1 : level.cells;", loss, BOTH
    ),
}
