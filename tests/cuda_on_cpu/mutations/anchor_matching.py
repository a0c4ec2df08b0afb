"""Bugs in the kernels of anchor_matching/."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes

from retina_ops import reference

from .. import operators as emulated
from ..device import Device
from .plan import BOTH, Mutation


def match(device: Device) -> None:
    anchors, truth = random_boxes(700), [random_boxes(40), random_boxes(3)]
    got, _ = emulated.match_anchors(device, anchors, truth, regions=[random_boxes(5), random_boxes(0)])
    again, foreground = emulated.match_anchors(device, anchors, truth)
    for image, boxes in enumerate(truth):
        assert torch.equal(again[image], reference.match_anchors(anchors, boxes))
    assert torch.equal(foreground, (again >= 0).sum(dim=1))
    assert got.shape == again.shape


_MATCH = "anchor_matching/anchor_matching_kernels.cuh"
MUTATIONS = {
    "match: past the anchors": Mutation(
        "anchor_matching",
        _MATCH,
        "  if (warp.index < a.anchor_count) {\n    a.matches",
        "  if (true) {\n    a.matches",
        match,
        BOTH,
    ),
    "match: maximum not atomic": Mutation(
        "anchor_matching",
        _MATCH,
        "atomicMax(&a.best[warp.image * a.gt_capacity + index], iou_bits(highest));",
        "auto& best = a.best[warp.image * a.gt_capacity + index];\n"
        "        best = best > iou_bits(highest) ? best : iou_bits(highest);",
        match,
    ),
    "match: vote of a part of the warp": Mutation(
        "anchor_matching",
        _MATCH,
        "__any_sync(kFullWarp, !is_foreground(match))",
        "(here && __any_sync(kFullWarp, !is_foreground(match)))",
        match,
        BOTH,
    ),
    "match: count not atomic": Mutation(
        "anchor_matching",
        _MATCH,
        "atomicAdd(&a.foreground[warp.image], 1ull);",
        "a.foreground[warp.image] += 1ull;",
        match,
    ),
}
