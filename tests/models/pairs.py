"""RetinaNets of ours and torchvision's with the same weights, batches for them, and what it means to detect alike."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from inputs.boxes import random_boxes
from torch import Tensor, nn
from torchvision.models.detection import retinanet as torchvision_retinanet

from retina_ops.models import RetinaNet, retinanet_resnet18_fpn, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

SIZES = {"min_size": 128, "max_size": 160}


def excite(model: nn.Module) -> None:
    """Spreads the classifier's scores, so that random weights detect."""
    torch.manual_seed(5)
    classifier = model.head.classification_head.cls_logits
    nn.init.normal_(classifier.weight, std=0.1)
    nn.init.normal_(classifier.bias, mean=-3, std=1)
    nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.05)


def torchvision_resnet18() -> nn.Module:
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256),
    )
    return torchvision_retinanet.RetinaNet(backbone, 7, score_thresh=0.2, **SIZES)


def torchvision_model(name: str) -> nn.Module:
    """Of torchvision alone, 7 classes, with weights that detect: resnet18, v1 or v2."""
    if name == "resnet18":
        model = torchvision_resnet18()
    else:
        build = {
            "v1": torchvision_retinanet.retinanet_resnet50_fpn,
            "v2": torchvision_retinanet.retinanet_resnet50_fpn_v2,
        }
        model = build[name](weights=None, weights_backbone=None, num_classes=7, score_thresh=0.2, **SIZES)
    excite(model)
    return model


def pair(name: str) -> tuple[RetinaNet, nn.Module]:
    """A model of each, with the same weights; theirs are loaded into ours."""
    torch.manual_seed(3)
    theirs = torchvision_model(name)
    build = {"resnet18": retinanet_resnet18_fpn, "v1": retinanet_resnet50_fpn, "v2": retinanet_resnet50_fpn_v2}[name]
    ours = build(num_classes=7, score_thresh=0.2, **SIZES)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def images_and_targets(device: str = "cpu") -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Three sizes, one image without boxes."""
    images = [torch.rand(3, h, w, device=device) for h, w in ((120, 150), (128, 128), (200, 170))]
    targets = []
    for image, count in zip(images, (4, 0, 9), strict=True):
        height, width = image.shape[-2:]
        boxes = random_boxes(count, device, low=20, high=100, width=width, height=height)
        targets.append({"boxes": boxes, "labels": torch.randint(0, 7, (count,), device=device)})
    return images, targets


def assert_same_detections(got: list[dict[str, Tensor]], expected: list[dict[str, Tensor]], least: int = 50) -> None:
    """The same boxes, scores and labels, in one order where scores are distinct; at least `least` an image."""
    for mine, wanted in zip(got, expected, strict=True):
        assert len(wanted["boxes"]) >= least
        torch.testing.assert_close(mine["scores"], wanted["scores"], rtol=0, atol=1e-5)
        # Detections of (almost) one score may change places: compared by label and corner.
        run = torch.cumsum(wanted["scores"].diff(prepend=wanted["scores"][:1]).abs() > 2e-5, 0)
        orders = []
        for found in (mine, wanted):
            keys = torch.column_stack([run, found["labels"], found["boxes"].round().long()[:, :2]]).tolist()
            orders.append(sorted(range(len(keys)), key=keys.__getitem__))
        assert torch.equal(mine["labels"][orders[0]], wanted["labels"][orders[1]])
        torch.testing.assert_close(mine["boxes"][orders[0]], wanted["boxes"][orders[1]], rtol=0, atol=1e-3)


class TinyBackbone(nn.Module):
    """Three levels of strides 8, 16 and 32 in a few convolutions."""

    out_channels = 16

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, stride=8)
        self.down = nn.ModuleList([nn.Conv2d(16, 16, 3, stride=2, padding=1) for _ in range(2)])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels = [self.stem(x)]
        for layer in self.down:
            levels.append(layer(levels[-1].relu()))
        return {str(i): level for i, level in enumerate(levels)}


def tiny_torchvision(kind: type = torchvision_retinanet.RetinaNet, **options: Any) -> Any:
    """A torchvision RetinaNet of three levels and three classes that detects, for images of about 64 x 96."""
    torch.manual_seed(4)
    sizes = ((12, 16), (24, 32), (48, 64))
    generator = torchvision.models.detection.anchor_utils.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 3)
    options = {"anchor_generator": generator, "min_size": 64, "max_size": 96, "score_thresh": 0.2, **options}
    model = kind(TinyBackbone(), 3, **options)
    excite(model)
    for layer in model.head.modules():
        if isinstance(layer, nn.Conv2d) and layer.out_channels == 16:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.2)
    return model


def tiny_batch(device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images of one size and one of another, the second without boxes."""
    images = [torch.rand(3, h, w, device=device, dtype=dtype) for h, w in ((64, 96), (64, 96), (64, 70))]
    targets = []
    for image, count in zip(images, (5, 0, 3), strict=True):
        boxes = random_boxes(count, device, low=10, high=50, width=image.shape[-1], height=64).to(dtype)
        targets.append({"boxes": boxes, "labels": torch.randint(0, 3, (count,), device=device)})
    return images, targets
