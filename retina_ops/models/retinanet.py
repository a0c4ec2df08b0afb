"""RetinaNet, with torchvision's interface, weights and results, on the operators of this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from .. import EmaNormalizer
from ..errors import needs_extra
from ..inference import predict_files
from ..resizing import RESIZED_BY, resized_size
from .anchors import AnchorCache, default_anchor_generator
from .config import ModelConfig
from .head import RetinaNetHead
from .loss import retinanet_losses
from .loss_options import LossOptions
from .postprocess import PostprocessOptions, detections_of

with needs_extra("models"):
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import interpolate
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

Target = dict[str, Any]


class Resize(GeneralizedRCNNTransform):
    """torchvision's transform. An image that has the wanted size is not interpolated again, and no side becomes 0."""

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        """The image and the boxes of its target at the size that torchvision's transform gives them."""
        height, width = image.shape[-2:]
        resized_by = None if target is None else target.pop(RESIZED_BY, None)
        if len(self.min_size) == 1 and self.fixed_size is None:
            if resized_by == (height, width, self.min_size[0], self.max_size):
                return image, target
            wanted = resized_size(height, width, self.min_size[0], self.max_size)
            if wanted == (height, width):
                return image, target
            if 1 in wanted and not (self.training and self._skip_resize):  # torchvision may round this side to 0
                image = interpolate(image[None], wanted, mode="bilinear", align_corners=False)[0]
                if target is not None:
                    target["boxes"] = resize_boxes(target["boxes"], [height, width], list(wanted))
                return image, target
        resized: tuple[Tensor, Target | None] = super().resize(image, target)
        return resized


class RetinaNet(nn.Module):
    """RetinaNet (Lin et al. 2017): a backbone with FPN, a classification and a box subnet, and anchors.

    Takes and returns what ``torchvision.models.detection.RetinaNet`` does, and loads its state dicts.

    Args:
        backbone: gives feature maps of the levels as a dict; has ``out_channels``.
        num_classes: K; labels are 0..K-1, there is no background class. (torchvision's weights have 91 for COCO.)
        min_size, max_size: images are scaled to this shorter side, unless the longer one would exceed ``max_size``.
        image_mean, image_std: of the pixels in 0..1; default ImageNet's.
        anchor_generator: default three scales and three aspect ratios per cell, 32 to 512 pixels.
        head: default `RetinaNetHead`.
        score_thresh, nms_thresh, detections_per_img, topk_candidates: see `PostprocessOptions`.
        fg_iou_thresh, bg_iou_thresh: see `LossOptions`.
        loss: all options of the loss; overrides the two thresholds.
        categories: ``{"id": int, "name": str}`` for each label: id and name in the annotations.
        **kwargs: passed to torchvision's ``GeneralizedRCNNTransform``.

    Example:
        >>> from retina_ops.models import retinanet_resnet18_fpn
        >>> model = retinanet_resnet18_fpn(num_classes=3, min_size=64, max_size=64).eval()
        >>> [sorted(d) for d in model([torch.rand(3, 64, 64)])]
        [['boxes', 'labels', 'scores']]
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        anchor_generator: AnchorGenerator | None = None,
        head: nn.Module | None = None,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.5,
        detections_per_img: int = 300,
        fg_iou_thresh: float = 0.5,
        bg_iou_thresh: float = 0.4,
        topk_candidates: int = 1000,
        *,
        loss: LossOptions | None = None,
        categories: Sequence[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if not hasattr(backbone, "out_channels"):
            raise ValueError("backbone must have an attribute out_channels: the channels of every level")
        self.backbone = backbone
        self.anchor_generator = anchor_generator or default_anchor_generator()
        anchors_per_cell = self.anchor_generator.num_anchors_per_location()[0]
        self.head = head or RetinaNetHead(cast(int, backbone.out_channels), anchors_per_cell, num_classes)
        self.num_classes = num_classes
        self.transform = Resize(
            min_size,
            max_size,
            list(image_mean or (0.485, 0.456, 0.406)),
            list(image_std or (0.229, 0.224, 0.225)),
            **kwargs,
        )
        self.loss_normalizer: EmaNormalizer | None = None
        self.loss_options = loss or LossOptions(fg_iou_thresh=fg_iou_thresh, bg_iou_thresh=bg_iou_thresh)
        self.postprocess_options = PostprocessOptions(score_thresh, nms_thresh, detections_per_img, topk_candidates)
        self.categories: list[dict[str, Any]] = (
            [dict(category) for category in categories]
            if categories is not None
            else [{"id": label, "name": str(label)} for label in range(num_classes)]
        )
        if len(self.categories) != num_classes:
            raise ValueError(f"categories must be {num_classes}, one for each class, got {len(self.categories)}")
        self.config: ModelConfig | None = None  # set by `build_model`
        self._anchor_cache = AnchorCache()

    @property
    def loss_options(self) -> LossOptions:
        """Options of the loss; may be set at any time."""
        return self._loss_options

    @loss_options.setter
    def loss_options(self, options: LossOptions) -> None:
        self._loss_options = options
        if options.normalization != "ema":
            self.loss_normalizer = None
        elif self.loss_normalizer is None:
            device = next((parameter.device for parameter in self.parameters()), None)
            self.loss_normalizer = EmaNormalizer().to(device).train(self.training)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training mode, detections otherwise.

        Args:
            images: ``[3, H, W]`` each, floating in 0..1 or uint8; sizes may differ.
            targets: in training mode, for each image ``boxes`` ``[n, 4]`` (x1, y1, x2, y2) in pixels with positive
                sides, n may be 0; ``labels`` int64 ``[n]``; optionally ``iscrowd`` ``[n]``: 1 for regions to ignore.

        Returns:
            ``{"classification", "bbox_regression"}``: scalar losses; or for each image ``boxes`` ``[n, 4]`` in its
            pixels, ``scores`` ``[n]`` descending and ``labels`` ``[n]``.
        """
        images = [image if image.is_floating_point() else image.float().div_(255) for image in images]
        if self.training:
            _check_targets(targets, len(images))
        original_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, targets = self.transform(list(images), None if targets is None else list(targets))
        tensors = batch.tensors
        if self._is_channels_last():
            tensors = tensors.contiguous(memory_format=torch.channels_last)
        features = self.backbone(tensors)
        features = [features] if isinstance(features, Tensor) else list(features.values())
        head_outputs = self.head(features)
        anchors = self._anchor_cache.get(self.anchor_generator, tuple(tensors.shape[-2:]), features)
        if self.training:
            assert targets is not None
            return retinanet_losses(head_outputs, anchors, targets, self.loss_options, self.loss_normalizer)
        detections = detections_of(head_outputs, anchors, batch.image_sizes, self.postprocess_options)
        detections = self.transform.postprocess(detections, batch.image_sizes, original_sizes)
        return detections

    def _is_channels_last(self) -> bool:
        """Whether the weights are channels-last, judged by the first convolution with several taps and channels."""
        for parameter in self.parameters():
            if parameter.dim() == 4 and parameter.shape[1] > 1 and parameter.shape[-1] > 1:
                return parameter.is_contiguous(memory_format=torch.channels_last)
        return False

    def predict(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        threshold: float = 0.5,
        classes: Sequence[str] | None = None,
        batch_size: int = 4,
    ) -> list[dict[str, Any]]:
        """Detections in image files; see `retina_ops.inference.predict_files`."""
        return list(predict_files(self, paths, threshold=threshold, classes=classes, batch_size=batch_size))


def _check_targets(targets: Sequence[Target] | None, images: int) -> None:
    if targets is None:
        raise ValueError("targets must be given in training mode")
    if len(targets) != images:
        raise ValueError(f"there must be one target per image, got {len(targets)} for {images} images")
    for index, target in enumerate(targets):
        boxes = target["boxes"]
        if boxes.dim() != 2 or boxes.shape[-1] != 4:
            raise ValueError(f"boxes of target {index} must be [n, 4], got {list(boxes.shape)}")
        if len(target["labels"]) != len(boxes):
            raise ValueError(f"target {index} has {len(boxes)} boxes and {len(target['labels'])} labels")
    if targets:
        _check_sides([target["boxes"] for target in targets])


def _check_sides(boxes: list[Tensor]) -> None:
    """Waits for the device once. A compiled model does not wait, and raises RuntimeError."""
    good = torch.stack([(image_boxes[:, 2:] > image_boxes[:, :2]).all() for image_boxes in boxes]).all()
    if torch.compiler.is_compiling():
        torch._assert_async(good, "boxes must have positive width and height")
    elif not bool(good):
        for index, image_boxes in enumerate(boxes):
            for bad in image_boxes[(image_boxes[:, 2:] <= image_boxes[:, :2]).any(dim=1)].tolist():
                raise ValueError(f"boxes must have positive width and height; target {index} has {bad}")
