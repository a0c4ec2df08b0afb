"""postprocess against torchvision's own RetinaNet, from the outputs of its convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retina_ops import postprocess, reference

CLASSES = 11


def spread_out(model: RetinaNet) -> None:
    """Random weights that find many objects: a raised bias of the classes, logits and deltas of a trained spread."""
    classifier, regressor = model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg
    for outputs, convolution, spread in ((0, classifier, 0.8), (1, regressor, 0.3)):
        measured = torch.cat([level.flatten() for level in maps_of(model, images_of("cpu"))[outputs]]).std()
        with torch.no_grad():
            convolution.weight.mul_(spread / measured)
    nn.init.constant_(classifier.bias, -3.0)


def images_of(device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(3, *size, generator=generator).to(device) for size in ((192, 256), (256, 180))]


def maps_of(model: RetinaNet, images: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[dict[str, Tensor]]]:
    """What the last convolutions give on each level, and the model's detections on the resized images."""
    logits: list[Tensor] = []
    deltas: list[Tensor] = []
    found: list[dict[str, Tensor]] = []
    hooks = [
        model.head.classification_head.cls_logits.register_forward_hook(lambda *call: logits.append(call[2])),
        model.head.regression_head.bbox_reg.register_forward_hook(lambda *call: deltas.append(call[2])),
    ]
    rescale = model.transform.postprocess
    model.transform.postprocess = lambda detections, *sizes: found.extend(detections) or detections  # type: ignore[method-assign]
    try:
        with torch.no_grad():
            model(images)
    finally:
        model.transform.postprocess = rescale  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()
    return logits, deltas, found


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    torch.manual_seed(5)
    # Both sides of an image end up between 90 and 160 pixels.
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
    )
    net = RetinaNet(backbone, CLASSES, min_size=128, max_size=160, detections_per_img=200)
    spread_out(net.eval())
    return net


def agrees(found: list[dict[str, Tensor]], outputs: tuple[Tensor, ...]) -> None:
    """The same detections in the same order but for scores that float32 cannot tell apart."""
    boxes, scores, labels, counts = outputs
    for image, theirs in enumerate(found):
        count = int(counts[image])
        assert count == len(theirs["scores"]) >= 50
        torch.testing.assert_close(scores[image, :count], theirs["scores"], rtol=3e-7, atol=0)
        gaps = theirs["scores"].diff().abs() < 3e-7
        tied = torch.zeros(count, dtype=torch.bool, device=boxes.device)
        tied[1:] |= gaps
        tied[:-1] |= gaps
        assert tied.float().mean() < 0.1
        assert torch.equal(labels[image, :count][~tied], theirs["labels"][~tied])
        torch.testing.assert_close(boxes[image, :count][~tied], theirs["boxes"][~tied], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_matches_torchvision(device: str, model: RetinaNet, layout: torch.memory_format) -> None:
    model = model.to(device).to(memory_format=layout)
    images = images_of(device)
    logits, deltas, found = maps_of(model, images)
    assert all(level.is_contiguous(memory_format=layout) for level in logits[:3])
    resized, _ = model.transform(images)
    anchors = model.anchor_generator(resized, logits)[0]
    sizes = resized.image_sizes
    outputs = postprocess(logits, deltas, anchors, sizes, detections_per_img=200)
    agrees(found, outputs)
    # Its definition says the same, and so do other settings.
    agrees(found, reference.postprocess(logits, deltas, anchors, sizes, detections_per_img=200))
    model.score_thresh, model.topk_candidates, model.nms_thresh, model.detections_per_img = 0.1, 100, 0.3, 80
    try:
        found = maps_of(model, images)[2]
    finally:
        model.score_thresh, model.topk_candidates, model.nms_thresh, model.detections_per_img = 0.05, 1000, 0.5, 200
    agrees(
        found,
        postprocess(
            logits, deltas, anchors, sizes, score_thresh=0.1, topk_candidates=100, nms_thresh=0.3, detections_per_img=80
        ),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_outputs_are_taken_as_they_are(device: str, model: RetinaNet, dtype: torch.dtype) -> None:
    """torchvision would round scores and boxes to half; it is compared on float32 copies of the same half outputs."""
    model = model.to(device).to(memory_format=torch.contiguous_format)
    images = images_of(device)
    logits, deltas, _ = maps_of(model, images)
    resized, _ = model.transform(images)
    anchors = model.anchor_generator(resized, logits)
    logits, deltas = [level.to(dtype) for level in logits], [level.to(dtype) for level in deltas]
    rows, codes = reference.head_outputs.by_anchor(
        [level.float() for level in logits], [level.float() for level in deltas]
    )
    # Half logits tie in large numbers, and torchvision leaves the order of ties open: here the earlier is a hair more.
    parts = [row.shape[1] for row in rows]
    hair = torch.linspace(0, 1e-8, sum(parts) * CLASSES, dtype=torch.float64, device=device).view(1, -1, CLASSES)
    distinct = [row.double() - own for row, own in zip(rows, hair.split(parts, dim=1), strict=True)]
    found = model.postprocess_detections(
        {"cls_logits": distinct, "bbox_regression": [code.double() for code in codes]},
        [[part.double() for part in anchor.split(parts)] for anchor in anchors],
        resized.image_sizes,
    )
    outputs = postprocess(logits, deltas, anchors[0], resized.image_sizes, detections_per_img=200)
    for image, theirs in enumerate(found):
        boxes, scores, labels = (output[image, : int(outputs[3][image])] for output in outputs[:3])
        assert len(scores) == len(theirs["scores"]) >= 50
        assert torch.equal(labels, theirs["labels"])
        torch.testing.assert_close(scores.double(), theirs["scores"], rtol=1e-7, atol=0)
        torch.testing.assert_close(boxes.double(), theirs["boxes"], rtol=1e-5, atol=1e-3)
