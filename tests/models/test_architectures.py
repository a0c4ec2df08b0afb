"""The table of architectures: what reads it agrees with it, and builder functions ignore no argument silently."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
import torch
from torch import nn

from retina_ops import models
from retina_ops.models import LossOptions, ModelConfig, build_model
from retina_ops.models.architecture_table import ARCHITECTURES, ArchitectureName

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]
SIZES = {"min_size": 64, "max_size": 64}
TORCHVISION_ARGUMENTS = ("weights", "progress", "num_classes", "weights_backbone", "trainable_backbone_layers")


def group_norms(model: nn.Module) -> list[int]:
    return [layer.num_groups for layer in model.modules() if isinstance(layer, nn.GroupNorm)]


def test_names() -> None:
    assert set(ARCHITECTURES) == {name for name in models.__all__ if name.startswith("retinanet_") and "_fpn" in name}
    assert get_args(ArchitectureName) == tuple(ARCHITECTURES)
    with pytest.raises(ValueError, match=r"architecture must be one of retinanet_resnet18_fpn, .*, got 'yolo'"):
        ModelConfig.from_dict({"architecture": "yolo"})
    with pytest.raises(ValueError, match=r"architecture must be one of retinanet_resnet18_fpn, .*, got 'yolo'"):
        build_model(ModelConfig(architecture="yolo"), CATEGORIES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_builder_function(name: str) -> None:
    build = getattr(models, name)
    assert build.__name__ == name and len(inspect.getdoc(build) or "") > 60
    if name != "retinanet_small_fpn":
        assert set(TORCHVISION_ARGUMENTS) <= set(inspect.signature(build).parameters)
    with torch.device("meta"):
        model = build(num_classes=2, **SIZES)
        by_config = build_model(ModelConfig(architecture=name, fpn_channels=32, head_depth=1, **SIZES), CATEGORIES)
    row = ARCHITECTURES[name]
    assert model.backbone.out_channels == row.fpn_channels and by_config.backbone.out_channels == 32
    assert len(model.head.classification_head.conv) == row.head_depth
    assert len(by_config.head.classification_head.conv) == 1
    assert model.backbone.fpn.extra_blocks.use_P5 == (row.p6_from == "p5")
    assert model.loss_options == LossOptions(box_loss=row.box_loss)
    assert [sizes[0] for sizes in model.anchor_generator.sizes] == list(row.base_sizes)
    assert bool(group_norms(model.head)) == (row.head_norm is not None)
    assert bool(group_norms(by_config.head)) == row.is_head_norm_fixed


def test_v2_is_torchvisions() -> None:
    with torch.device("meta"):
        model = models.retinanet_resnet50_fpn_v2(num_classes=2, fg_iou_thresh=0.6, **SIZES)
    assert group_norms(model.head) == [32] * 8 and not model.backbone.fpn.extra_blocks.use_P5
    assert model.loss_options == LossOptions(box_loss="giou", fg_iou_thresh=0.6)


def test_options_of_a_builder_function() -> None:
    with torch.device("meta"):
        plain = models.retinanet_small_fpn(num_classes=2, head_norm=None, base_sizes=(8, 16, 32, 64, 128))
        given = models.retinanet_resnet18_fpn(num_classes=2, norm="group", loss=LossOptions(gamma=1.0))
    assert not group_norms(plain.head) and plain.anchor_generator.sizes[0][0] == 8
    assert group_norms(given.backbone) and given.loss_options == LossOptions(gamma=1.0)


@pytest.mark.parametrize("name", ["retinanet_resnet18_fpn", "retinanet_resnet34_fpn", "retinanet_resnet101_fpn"])
def test_rejects_weights_that_are_not_published(name: str) -> None:
    with pytest.raises(ValueError, match=f"no weights of {name} are published: use weights_backbone"):
        getattr(models, name)(weights="COCO_V1")
    with pytest.raises(ValueError, match="num_classes must be 91 with these weights, got 3"):
        models.retinanet_resnet50_fpn(weights="COCO_V1", num_classes=3)
