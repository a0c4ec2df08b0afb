"""What the classes of a patched model add to torchvision's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..anchor_cache import AnchorCache
from ..ops.detections import clamp_limits, exceeds_cuda_topk, unpad_detections
from ..ops.postprocess import postprocess
from ..ops.retinanet_loss import retinanet_loss
from ..reference.head_outputs import by_anchor
from .classes import Fused
from .recognition import change, hooked, of_anchors

Target = dict[str, Tensor]
Maps = dict[str, list[Tensor]]
STATE = "_retina_ops"  # attribute of a patched model: its `PatchState`
_AGAIN = "unpatch_torchvision and patch_torchvision the model again"


@dataclass
class PatchState:
    """What is fused in a model, and its anchors."""

    replaced: tuple[str, ...]
    anchors: AnchorCache = field(default_factory=AnchorCache)


class FusedHead(Fused):
    """Calls its subnets for maps where it is asked for them; else torchvision's head."""

    def forward(self, x: list[Tensor], *, raw_maps: bool = False) -> Any:
        if not raw_maps:
            return super().forward(x)  # type: ignore[misc]
        return {
            "cls_logits": self.classification_head(x, raw_maps=True),  # type: ignore[attr-defined]
            "bbox_regression": self.regression_head(x, raw_maps=True),  # type: ignore[attr-defined]
        }


class FusedSubnet(Fused):
    """Gives the maps of its last convolution where it is asked for them; else torchvision's subnet."""

    predictor_name: str

    def forward(self, x: list[Tensor], *, raw_maps: bool = False) -> Any:
        if not raw_maps:
            return super().forward(x)  # type: ignore[misc]
        predictor = getattr(self, self.predictor_name)
        return [predictor(self.conv(features)) for features in x]  # type: ignore[attr-defined]


class FusedClassificationHead(FusedSubnet):
    predictor_name = "cls_logits"


class FusedRegressionHead(FusedSubnet):
    predictor_name = "bbox_reg"


class FusedRetinaNet(Fused):
    """`forward` of torchvision's RetinaNet around the fused operators; the parts left alone are called as before."""

    def forward(self: Any, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        state: PatchState = self._retina_ops
        _check_unchanged(self, state)
        if self.training:
            _check_targets(targets)
        original_sizes = []
        for image in images:
            torch._assert(
                image.dim() >= 2,
                f"expecting the last two dimensions of the Tensor to be H and W instead got {image.shape[-2:]}",
            )
            original_sizes.append((image.shape[-2], image.shape[-1]))
        batch, targets = self.transform(images, targets)
        if targets:
            _check_degenerate(targets)
        features = self.backbone(batch.tensors)
        features = [features] if isinstance(features, Tensor) else list(features.values())
        maps = self.head(features, raw_maps=True)
        anchors = _anchors(self, state, batch, features)
        losses: dict[str, Tensor] = {}
        detections: list[dict[str, Tensor]] = []
        if self.training and "loss" in state.replaced:
            losses = _losses(self, targets or [], maps, anchors)
        elif self.training:
            rows = {name: torch.cat(levels, dim=1) for name, levels in _rows(maps).items()}
            losses = self.compute_loss(targets, rows, _of_each(anchors, len(original_sizes)))
        else:
            can_sort = not exceeds_cuda_topk(maps["cls_logits"], self.topk_candidates)
            if "post-processing" in state.replaced and can_sort:
                detections = _detections(self, maps, anchors, batch.image_sizes)
            else:
                split_rows = _rows(maps)
                sizes = [level.shape[1] for level in split_rows["cls_logits"]]
                split = [list(rows.split(sizes)) for rows in _of_each(anchors, len(original_sizes))]
                detections = self.postprocess_detections(split_rows, split, batch.image_sizes)
            detections = self.transform.postprocess(detections, batch.image_sizes, original_sizes)
        return self.eager_outputs(losses, detections)


def _check_unchanged(model: Any, state: PatchState) -> None:
    """Raises where a part is no longer the one that was patched."""
    head = model.head
    for module in (head, *(getattr(head, name, None) for name in ("classification_head", "regression_head"))):
        if not isinstance(module, Fused):
            raise RuntimeError(f"{type(module).__name__} took the place of a patched part: {_AGAIN}")
    if torch.compiler.is_compiling():
        return  # what is compiled would not look again at each call
    if reason := change(model, state.replaced):
        raise RuntimeError(f"the model was changed after it was patched: {reason}: {_AGAIN}")


def _anchors(model: Any, state: PatchState, batch: Any, features: list[Tensor]) -> Tensor:
    """``[A, 4]`` of every image; those of the cache must not be edited."""
    generator = model.anchor_generator
    must_call = hooked(generator) if torch.compiler.is_compiling() else of_anchors(model)
    if "anchors" in state.replaced and not must_call:
        return state.anchors.get(generator, tuple(batch.tensors.shape[-2:]), features)
    anchors: list[Tensor] = generator(batch, features)  # torchvision's forward: the same for all images
    if hooked(generator):
        _check_alike(anchors)
    return anchors[0]


def _check_alike(anchors: list[Tensor]) -> None:
    alike = torch.stack([(anchors[0] == others).all() for others in anchors]).all()
    message = "hooks of the anchor generator gave images anchors of their own: unpatch_torchvision the model"
    if torch.compiler.is_compiling():
        torch._assert_async(alike, message)
    elif not bool(alike):
        raise RuntimeError(message)


def _of_each(anchors: Tensor, images: int) -> list[Tensor]:
    """Each image's own, as torchvision has them: the user's code may edit them."""
    return [anchors.clone() for _ in range(images)]


def _rows(maps: Maps) -> Maps:
    """The maps as torchvision's head has them: ``[B, anchors, K]`` and ``[B, anchors, 4]`` a level."""
    logits, deltas = by_anchor(maps["cls_logits"], maps["bbox_regression"])
    return {"cls_logits": logits, "bbox_regression": deltas}


def _losses(model: Any, targets: list[Target], maps: Maps, anchors: Tensor) -> dict[str, Tensor]:
    matcher, regression = model.proposal_matcher, model.head.regression_head
    classification, box_loss = retinanet_loss(
        maps["cls_logits"],
        maps["bbox_regression"],
        anchors,
        [target["boxes"] for target in targets],
        [target["labels"] for target in targets],
        fg_iou_thresh=matcher.high_threshold,
        bg_iou_thresh=matcher.low_threshold,
        allow_low_quality_matches=matcher.allow_low_quality_matches,
        box_loss=regression._loss_type,
        bbox_reg_weights=regression.box_coder.weights,
    )
    return {"classification": classification, "bbox_regression": box_loss}


def _detections(model: Any, maps: Maps, anchors: Tensor, image_sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
    most = model.detections_per_img
    but_last = most is not None and most < 0  # torchvision slices: the best but for the last of them
    topk, count = clamp_limits(maps["cls_logits"], model.topk_candidates, None if but_last else most)
    found = unpad_detections(
        *postprocess(
            maps["cls_logits"],
            maps["bbox_regression"],
            anchors,
            image_sizes,
            score_thresh=model.score_thresh,
            topk_candidates=topk,
            nms_thresh=model.nms_thresh,
            detections_per_img=count,
            bbox_reg_weights=model.box_coder.weights,
        )
    )
    return [{name: values[:most] for name, values in image.items()} for image in found] if but_last else found


def _check_targets(targets: list[Target] | None) -> None:
    """torchvision's checks, with its words."""
    torch._assert(targets is not None, "targets should not be none when in training mode")
    for target in targets or []:
        boxes = target["boxes"]
        torch._assert(isinstance(boxes, Tensor), "Expected target boxes to be of type Tensor.")
        torch._assert(
            boxes.dim() == 2 and boxes.shape[-1] == 4, "Expected target boxes to be a tensor of shape [N, 4]."
        )


def _check_degenerate(targets: list[Target]) -> None:
    """torchvision's error for boxes without area; waits for the device once, not once an image, compiled never."""
    bad = torch.stack([(target["boxes"][:, 2:] <= target["boxes"][:, :2]).any() for target in targets]).any()
    if torch.compiler.is_compiling():
        torch._assert_async(~bad, "All bounding boxes should have positive height and width.")
        return
    if not bool(bad):
        return
    for index, target in enumerate(targets):
        boxes = target["boxes"]
        degenerate = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1)
        if bool(degenerate.any()):
            raise AssertionError(
                "All bounding boxes should have positive height and width. Found invalid box "
                f"{boxes[degenerate][0].tolist()} for target at index {index}."
            )


__all__ = ["FusedRetinaNet", "FusedSubnet", "PatchState"]
