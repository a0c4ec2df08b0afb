"""RetinaNets of ours and torchvision's with the same weights, batches for them, and what it means to detect alike."""

from __future__ import annotations

import torch
import torchvision
from boxes import random_boxes
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
