"""RetinaNet, with torchvision's interface, weights and results, on the operators of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from .. import EmaNormalizer
from ..errors import needs_extra
from ..inference import predict_files
from ..ops._torchscript import refuse_tracing
from ..ops.labels import explain_labels
from ..patching.hooks import has_global_hooks, has_hooks
from .anchors import AnchorCache, default_anchor_generator
from .composed import composed_loss, has_plain_loss, is_plain_coder, is_plain_matcher, shared_anchors
from .config import ModelConfig
from .head import Levels, RetinaNetHead, all_levels, by_level, count_classes, head_levels, refuse_torchscript
from .loss import retinanet_losses
from .loss_options import LossOptions
from .options import option_of
from .postprocess import PostprocessOptions, detections_of
from .resize import Resize as Resize
from .targets import Target, check_targets

with needs_extra("models"):
    import torch
    from torch import Tensor, nn
    from torchvision.models.detection import retinanet
    from torchvision.models.detection._utils import BoxCoder, Matcher
    from torchvision.models.detection.anchor_utils import AnchorGenerator


_ONES = (1.0, 1.0, 1.0, 1.0)


class RetinaNet(retinanet.RetinaNet):  # type: ignore[misc]
    """RetinaNet (Lin et al. 2017): a backbone with FPN, a classification and a box subnet, and anchors.

    It is torchvision's ``RetinaNet`` with the fused loss and post-processing: it takes and returns the same, loads its
    state dicts, and has its attributes. ``score_thresh``, ``nms_thresh``, ``detections_per_img``, ``topk_candidates``,
    ``proposal_matcher``, ``box_coder``, ``anchor_generator``, ``transform`` and ``head.regression_head._loss_type`` are
    read at each call. A subclass may override ``compute_loss``, ``postprocess_detections``, ``eager_outputs`` or
    ``forward``, and a head or subnet ``forward`` or ``compute_loss``; they are given what torchvision would give them.
    A matcher or box coder of another class is used in place of the fused operators.

    Args:
        backbone: gives feature maps of the levels as a dict; has ``out_channels``.
        num_classes: K; labels are 0..K-1, there is no background class. (torchvision's weights have 91 for COCO.)
        min_size, max_size: images are scaled to this shorter side, unless the longer one would exceed ``max_size``.
        image_mean, image_std: of the pixels in 0..1; default ImageNet's.
        anchor_generator: default three scales and three aspect ratios per cell, 32 to 512 pixels.
        head: default `RetinaNetHead`.
        proposal_matcher: default torchvision's ``Matcher`` with the thresholds of the loss.
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

    __prepare_scriptable__ = refuse_torchscript
    has_fused_operators = True  # `retina_ops.patch_torchvision` has nothing to do

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
        proposal_matcher: Any = None,
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
        nn.Module.__init__(self)  # not torchvision's, which makes a head and a transform of its own
        if not hasattr(backbone, "out_channels"):
            raise ValueError("backbone must have an attribute out_channels: the channels of every level")
        if not isinstance(anchor_generator, (AnchorGenerator, type(None))):
            raise TypeError(f"anchor_generator must be an AnchorGenerator or None, got {type(anchor_generator)}")
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
        self.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self.loss_normalizer: EmaNormalizer | None = None
        options = loss or LossOptions(fg_iou_thresh=fg_iou_thresh, bg_iou_thresh=bg_iou_thresh)
        self.proposal_matcher = Matcher(options.fg_iou_thresh, options.bg_iou_thresh, options.allow_low_quality_matches)
        self.loss_options = options
        if proposal_matcher is not None:
            self.proposal_matcher = proposal_matcher
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
        self._has_warned = False  # torchvision's, for TorchScript

    score_thresh = option_of("postprocess_options", "score_thresh")
    nms_thresh = option_of("postprocess_options", "nms_thresh")
    detections_per_img = option_of("postprocess_options", "detections_per_img")
    topk_candidates = option_of("postprocess_options", "topk_candidates")
    fg_iou_thresh = option_of("proposal_matcher", "high_threshold")
    bg_iou_thresh = option_of("proposal_matcher", "low_threshold")

    @property
    def loss_options(self) -> LossOptions:
        """Options of the loss; may be set at any time.

        The thresholds and ``allow_low_quality_matches`` are those of ``proposal_matcher``, and the box loss is
        ``head.regression_head._loss_type``, as in torchvision. So a new matcher or head brings its own.
        """
        options, matcher = self._loss_options, self.proposal_matcher
        regression = getattr(self.head, "regression_head", None)
        current: dict[str, Any] = {
            "fg_iou_thresh": getattr(matcher, "high_threshold", options.fg_iou_thresh),
            "bg_iou_thresh": getattr(matcher, "low_threshold", options.bg_iou_thresh),
            "allow_low_quality_matches": getattr(
                matcher, "allow_low_quality_matches", options.allow_low_quality_matches
            ),
            "box_loss": getattr(regression, "_loss_type", options.box_loss),
        }
        if all(getattr(options, name) == value for name, value in current.items()):
            return options
        return replace(options, **current)

    @loss_options.setter
    def loss_options(self, options: LossOptions) -> None:
        self._loss_options = options
        matcher: Any = self.proposal_matcher
        if hasattr(matcher, "high_threshold"):  # a matcher of another kind has its own rule
            matcher.high_threshold, matcher.low_threshold = options.fg_iou_thresh, options.bg_iou_thresh
            matcher.allow_low_quality_matches = options.allow_low_quality_matches
        regression = getattr(self.head, "regression_head", None)
        if hasattr(regression, "_loss_type"):
            regression._loss_type = options.box_loss  # type: ignore[union-attr,assignment]
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

        Raises:
            TargetError: targets that are missing or do not fit, see `retina_ops.models.targets`.
        """
        refuse_tracing("retina_ops.models.RetinaNet")
        images = [image if image.is_floating_point() else image.float().div_(255) for image in images]
        if self.training:
            check_targets(targets, len(images))
        original_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, targets = self.transform(list(images), None if targets is None else list(targets))
        tensors = batch.tensors
        if self._is_channels_last():
            tensors = tensors.contiguous(memory_format=torch.channels_last)
        features = self.backbone(tensors)
        features = [features] if isinstance(features, Tensor) else list(features.values())
        levels = head_levels(self.head, features)
        anchors = self._anchors(batch, features)
        losses: dict[str, Tensor] = {}
        detections: list[dict[str, Tensor]] = []
        if self.training:
            assert targets is not None
            if self._overrides("compute_loss"):
                losses = self.compute_loss(targets, all_levels(levels), [each.clone() for each in anchors])
            else:
                losses = self._loss(targets, levels, anchors)
        else:
            if self._overrides("postprocess_detections"):
                rows, split = by_level(levels, [each.clone() for each in anchors])
                detections = self.postprocess_detections(rows, split, batch.image_sizes)
            else:
                detections = self._detections(levels, anchors, batch.image_sizes)
            detections = self.transform.postprocess(detections, batch.image_sizes, original_sizes)
        found: dict[str, Tensor] | list[dict[str, Tensor]] = self.eager_outputs(losses, detections)
        return found

    def compute_loss(
        self, targets: Sequence[Target], head_outputs: dict[str, Tensor], anchors: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The losses of a batch, as torchvision's method of this name.

        Args:
            targets: for each image ``boxes`` and ``labels``, at the size of the resized image.
            head_outputs: ``cls_logits`` ``[B, A, K]`` and ``bbox_regression`` ``[B, A, 4]`` of all levels.
            anchors: ``[A, 4]`` for each image.

        Returns:
            ``classification`` and ``bbox_regression``: scalars.
        """
        return self._loss(targets, {name: [rows] for name, rows in head_outputs.items()}, anchors)

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: Sequence[Sequence[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """The detections of a batch in pixels of the resized images, as torchvision's method of this name.

        Args:
            head_outputs: of each level ``cls_logits`` ``[B, a, K]`` and ``bbox_regression`` ``[B, a, 4]``.
            anchors: for each image ``[a, 4]`` of each level.
            image_shapes: (height, width) of each resized image.
        """
        return self._detections(head_outputs, [torch.cat(list(levels)) for levels in anchors], image_shapes)

    def _overrides(self, method: str) -> bool:
        """Whether a subclass or the instance has a method of its own."""
        return method in self.__dict__ or getattr(type(self), method) is not getattr(RetinaNet, method)

    def _anchors(self, batch: Any, features: list[Tensor]) -> list[Tensor]:
        """``[A, 4]`` for each image: one tensor where the generator is torchvision's. It must not be edited."""
        generator, images = self.anchor_generator, len(batch.image_sizes)
        methods = ("forward", "grid_anchors", "set_cell_anchors")
        is_own = any(name in generator.__dict__ for name in methods)  # set on the instance
        is_own = is_own or type(generator).forward is not AnchorGenerator.forward
        if not is_own and not has_hooks(generator) and not has_global_hooks():
            return [self._anchor_cache.get(generator, tuple(batch.tensors.shape[-2:]), features)] * images
        anchors: list[Tensor] = generator(batch, features)
        return anchors

    def _loss(self, targets: Sequence[Target], levels: Levels, anchors: Sequence[Tensor]) -> dict[str, Tensor]:
        shared = shared_anchors(anchors)
        if shared is None or not (is_plain_matcher(self.proposal_matcher) and has_plain_loss(self.head)):
            return composed_loss(self, targets, all_levels(levels), anchors)
        coder = getattr(getattr(self.head, "regression_head", None), "box_coder", None)
        weights = _ONES if coder is None else tuple(coder.weights)
        arguments = (levels, shared, targets, self.loss_options, self.loss_normalizer)
        options: dict[str, Any] = {} if weights == _ONES else {"bbox_reg_weights": weights}
        if torch.compiler.is_compiling():
            return retinanet_losses(*arguments, **options)
        try:
            return retinanet_losses(*arguments, **options)
        except RuntimeError as error:
            explain_labels(error, targets, count_classes(levels))

    def _detections(
        self, levels: Levels, anchors: Sequence[Tensor], image_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        shared = shared_anchors(anchors)
        if shared is None or not is_plain_coder(self.box_coder):
            rows, split = by_level(levels, anchors)
            return cast(list[dict[str, Tensor]], super().postprocess_detections(rows, split, image_sizes))
        weights = tuple(self.box_coder.weights)
        return detections_of(levels, shared, image_sizes, self.postprocess_options, bbox_reg_weights=weights)

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
