"""What patching adds to the classes of a torchvision RetinaNet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..anchor_cache import AnchorCache
from ..ops._torchscript import refuse_tracing
from ..ops.detections import clamp_limits, exceeds_cuda_topk, unpad_detections
from ..ops.labels import explain_labels
from ..ops.postprocess import postprocess
from ..ops.retinanet_loss import retinanet_loss
from ..reference.head_outputs import by_anchor
from .classes import Fused
from .hooks import has_global_hooks, has_hooks
from .recognition import fingerprint, reasons

Target = dict[str, Tensor]
Maps = dict[str, list[Tensor]]  # "cls_logits" [B, A * K, H, W] and "bbox_regression" [B, A * 4, H, W] of each level


@dataclass
class PatchState:
    """What is fused in a model, its anchors, and what the last call found of it."""

    replaced: tuple[str, ...]
    anchors: AnchorCache = field(default_factory=AnchorCache)
    fingerprint: list[Any] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)  # the reasons that follow from the fingerprint

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "fingerprint": [], "left": {}}  # a copy is looked at anew


class FusedHead(Fused):
    """torchvision's head, or with ``raw_maps`` the maps of its last convolutions."""

    def forward(self: Any, x: list[Tensor], *, raw_maps: bool = False) -> Any:
        if not raw_maps:
            return super().forward(x)  # type: ignore[misc]
        return {
            "cls_logits": self.classification_head(x, maps_of="cls_logits"),
            "bbox_regression": self.regression_head(x, maps_of="bbox_reg"),
        }


class FusedSubnet(Fused):
    """torchvision's classification or regression head, or the maps of the convolution ``maps_of``."""

    def forward(self: Any, x: list[Tensor], *, maps_of: str | None = None) -> Any:
        if maps_of is None:
            return super().forward(x)  # type: ignore[misc]
        convolution = getattr(self, maps_of)
        return [convolution(self.conv(features)) for features in x]


class FusedRetinaNet(Fused):
    """torchvision's forward around the fused operators. Parts that were left alone are called as torchvision does."""

    def forward(self: Any, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        state: PatchState = self._retina_ops
        refuse_tracing("a patched model")
        check_unchanged(self)
        if not torch.compiler.is_compiling() and has_global_hooks():
            return super().forward(images, targets)  # type: ignore[misc]  # they see what torchvision's modules return
        if not _are_valid(images, targets if self.training else []):
            return super().forward(images, targets)  # type: ignore[misc]  # raises torchvision's error
        original_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, scaled_targets = self.transform(images, targets)
        if scaled_targets and _has_box_without_area(scaled_targets):
            return super().forward(images, targets)  # type: ignore[misc]  # raises torchvision's error
        features = self.backbone(batch.tensors)
        features = [features] if isinstance(features, Tensor) else list(features.values())
        maps = self.head(features, raw_maps=True)
        anchors = _anchors(self, state, batch, features)
        losses: dict[str, Tensor] = {}
        detections: list[dict[str, Tensor]] = []
        is_fused = ("loss" if self.training else "post-processing") in state.replaced
        if is_fused and self.training:
            losses = _losses(self, maps, anchors, scaled_targets)
        elif is_fused and not exceeds_cuda_topk(maps["cls_logits"], self.topk_candidates):
            detections = _detections(self, maps, anchors, batch.image_sizes)
        else:
            logits, deltas = by_anchor(maps["cls_logits"], maps["bbox_regression"])
            own_anchors = [anchors.clone() for _ in images]  # user code may edit those of each image
            if self.training:
                rows = {"cls_logits": torch.cat(logits, dim=1), "bbox_regression": torch.cat(deltas, dim=1)}
                losses = self.compute_loss(scaled_targets, rows, own_anchors)
            else:
                levels = {"cls_logits": logits, "bbox_regression": deltas}
                split = [list(each.split([level.shape[1] for level in logits])) for each in own_anchors]
                detections = self.postprocess_detections(levels, split, batch.image_sizes)
        if not self.training:
            detections = self.transform.postprocess(detections, batch.image_sizes, original_sizes)
        return self.eager_outputs(losses, detections)


def patched_modules(model: Any) -> tuple[tuple[Any, type], ...]:
    """The modules that are patched, and what their classes get. None for a head that another head does not have."""
    head = model.head
    return (
        (model, FusedRetinaNet),
        (head, FusedHead),
        (getattr(head, "classification_head", None), FusedSubnet),
        (getattr(head, "regression_head", None), FusedSubnet),
    )


def check_unchanged(model: Any) -> None:
    """Raises where the fused operators no longer stand for the model. Asks for reasons only where something changed."""
    state: PatchState = model._retina_ops
    found = [] if torch.compiler.is_compiling() else fingerprint(model)  # a graph would not look at each call
    if found and found == state.fingerprint:
        return
    left = reasons(found) if found else {}
    for module, added in patched_modules(model):
        if not isinstance(module, added):
            left.setdefault("model", f"{type(module).__qualname__} took the place of a patched head")
    for part in ("model", *state.replaced):
        if part in left and part != "anchors":
            raise RuntimeError(
                f"the model was changed after it was patched: {left[part]}: "
                "unpatch_torchvision and patch_torchvision the model again"
            )
    if found:
        state.left, state.fingerprint = left, found


def _anchors(model: Any, state: PatchState, batch: Any, features: list[Tensor]) -> Tensor:
    """``[A, 4]``, the same for every image. Those of the cache must not be edited."""
    generator = model.anchor_generator
    is_hooked = has_hooks(generator)
    if "anchors" in state.replaced and "anchors" not in state.left and not is_hooked:
        return state.anchors.get(generator, tuple(batch.tensors.shape[-2:]), features)
    anchors: list[Tensor] = generator(batch, features)
    if is_hooked:
        alike = torch.stack([(anchors[0] == of_image).all() for of_image in anchors]).all()
        message = "hooks of the anchor generator gave each image other anchors: unpatch_torchvision the model"
        if torch.compiler.is_compiling():
            torch._assert_async(alike, message)
        elif not bool(alike):
            raise RuntimeError(message)
    return anchors[0]


def _losses(model: Any, maps: Maps, anchors: Tensor, targets: list[Target]) -> dict[str, Tensor]:
    matcher, regression = model.proposal_matcher, model.head.regression_head
    arguments = (
        maps["cls_logits"],
        maps["bbox_regression"],
        anchors,
        [target["boxes"] for target in targets],
        [target["labels"] for target in targets],
    )
    options = {
        "fg_iou_thresh": matcher.high_threshold,
        "bg_iou_thresh": matcher.low_threshold,
        "allow_low_quality_matches": matcher.allow_low_quality_matches,
        "box_loss": regression._loss_type,
        "bbox_reg_weights": regression.box_coder.weights,
    }
    if torch.compiler.is_compiling():
        classification, box_loss = retinanet_loss(*arguments, **options)
    else:
        try:
            classification, box_loss = retinanet_loss(*arguments, **options)
        except RuntimeError as error:
            explain_labels(error, targets, model.head.classification_head.num_classes)
    return {"classification": classification, "bbox_regression": box_loss}


def _detections(model: Any, maps: Maps, anchors: Tensor, image_sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
    limit = model.detections_per_img
    is_negative = limit is not None and limit < 0  # torchvision slices: -3 is all but the last three
    topk, count = clamp_limits(maps["cls_logits"], model.topk_candidates, None if is_negative else limit)
    padded = postprocess(
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
    found = unpad_detections(*padded)
    return [{name: rows[:limit] for name, rows in image.items()} for image in found] if is_negative else found


def _are_valid(images: list[Tensor], targets: list[Target] | None) -> bool:
    """Whether torchvision accepts the shapes of the images and of the targets' boxes."""
    if targets is None or any(image.dim() < 2 for image in images):
        return False
    boxes = [target["boxes"] for target in targets]
    return all(isinstance(each, Tensor) and each.dim() == 2 and each.shape[-1] == 4 for each in boxes)


def _has_box_without_area(targets: list[Target]) -> bool:
    """Waits for the device once for all images, and in a compiled graph never: there the error comes later."""
    found = torch.stack([(each["boxes"][:, 2:] <= each["boxes"][:, :2]).any() for each in targets]).any()
    if torch.compiler.is_compiling():
        torch._assert_async(~found, "All bounding boxes should have positive height and width.")
        return False
    return bool(found)
