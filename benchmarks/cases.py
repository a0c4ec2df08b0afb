"""Inputs that several benchmarks share."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import retinanet as torchvision_retinanet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from retina_ops import retinanet_loss
from retina_ops.models.anchors import default_anchor_generator
from retina_ops.reference.head_outputs import by_anchor

Maps = dict[str, list[Tensor]]
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}  # the last two: --full


def random_boxes(count: int, device: str, field: tuple[int, int] = (1000, 1000)) -> Tensor:
    """Boxes of 4 to 104 pixels at random places of a field (width, height)."""
    size = torch.rand(count, 2, device=device) * 100 + 4
    corner = torch.rand(count, 2, device=device) * (torch.tensor(field, device=device) - size)
    return torch.cat([corner, corner + size], dim=1)


def image_anchors(height: int, width: int, device: str) -> Tensor:
    """All anchors of the paper's five levels on an image whose sides are multiples of 32."""
    generator: AnchorGenerator = default_anchor_generator()
    maps = [torch.empty(1, 1, -(-height // s), -(-width // s), device=device) for s in (8, 16, 32, 64, 128)]
    return generator(ImageList(torch.empty(1, 1, height, width, device=device), [(height, width)]), maps)[0]


def head_maps(
    batch: int, classes: int, image: tuple[int, int], device: str, *, per_cell: int = 9
) -> tuple[list[Tensor], list[Tensor]]:
    """Logits and deltas of P3 to P7 as the convolutions of a fresh model give them, for images (height, width)."""
    logits, deltas = [], []
    for stride in (8, 16, 32, 64, 128):
        grid = -(-image[0] // stride), -(-image[1] // stride)
        logits.append(torch.randn(batch, per_cell * classes, *grid, device=device) * 0.5 - 4.6)
        deltas.append(torch.randn(batch, per_cell * 4, *grid, device=device) * 0.3)
    return logits, deltas


def objects(
    images: int, image: tuple[int, int], classes: int, device: str, *, largest: float = 400
) -> list[dict[str, Tensor]]:
    """Targets with about 10 boxes per image, with sides of 16 to `largest` pixels, as many small as large."""
    targets = []
    for index in range(images):
        count = 8 + 4 * (index % 2)
        size = 16 * (largest / 16) ** torch.rand(count, 2, device=device)
        corner = torch.rand(count, 2, device=device) * (torch.tensor([image[1], image[0]], device=device) - size)
        labels = torch.randint(classes, (count,), device=device)
        targets.append({"boxes": torch.cat([corner, corner + size], dim=1), "labels": labels})
    return targets


def stock_retinanet(network: str, image: tuple[int, int], classes: int) -> Any:
    """torchvision's RetinaNet over a ResNet of random weights, for images (height, width), in training mode."""
    torch.manual_seed(0)
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name=network,
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256),
    )
    height, width = image
    return torchvision_retinanet.RetinaNet(backbone, classes, min_size=height, max_size=width).train()


def torchvision_rows(maps: Maps) -> dict[str, Tensor]:
    """What the end of torchvision's head does to the maps: permute and cat."""
    logits, deltas = by_anchor(maps["cls_logits"], maps["bbox_regression"])
    return {"cls_logits": torch.cat(logits, dim=1), "bbox_regression": torch.cat(deltas, dim=1)}


def fused_losses(maps: Maps, anchors: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    boxes, labels = [target["boxes"] for target in targets], [target["labels"] for target in targets]
    losses = retinanet_loss(maps["cls_logits"], maps["bbox_regression"], anchors, boxes, labels)
    return {"classification": losses[0], "bbox_regression": losses[1]}
