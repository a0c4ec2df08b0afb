"""RetinaNet against torchvision's: same weights and images, same losses and detections."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from models.pairs import SIZES, assert_same_detections, excite, images_and_targets, pair

from retina_ops import reference
from retina_ops.models import LossOptions, retinanet_resnet18_fpn
from retina_ops.reference.head_outputs import by_anchor


@pytest.mark.parametrize("name", ["resnet18", "v1", "v2"])
def test_detections_equal_torchvision(device: str, name: str) -> None:
    ours, theirs = (model.eval().to(device) for model in pair(name))
    images, _ = images_and_targets(device)
    with torch.no_grad():
        got, expected = ours(images), theirs(images)
    assert_same_detections(got, expected)


@pytest.mark.parametrize("name", ["resnet18", "v1", "v2"])
def test_losses_and_gradients_equal_torchvision(device: str, name: str) -> None:
    ours, theirs = (model.train().to(device) for model in pair(name))
    images, targets = images_and_targets(device)
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        found = model(images, copy.deepcopy(targets))
        sum(found.values()).backward()
        losses.append(found)
    assert set(losses[0]) == set(losses[1]) == {"classification", "bbox_regression"}
    for key in losses[0]:
        torch.testing.assert_close(losses[0][key], losses[1][key], rtol=1e-5, atol=0)
    for (key, mine), (_, wanted) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        scale = wanted.grad.abs().max()
        assert scale == 0 or (mine.grad - wanted.grad).abs().max() / scale < 2e-3, key


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou", "diou", "ciou"])
def test_box_losses_equal_torchvision(device: str, box_loss: str) -> None:
    ours, theirs = (model.train().to(device) for model in pair("resnet18"))
    theirs.head.regression_head._loss_type = box_loss
    ours.loss_options = LossOptions(box_loss=box_loss)
    images, targets = images_and_targets(device)
    got, expected = ours(images, targets), theirs(images, copy.deepcopy(targets))
    torch.testing.assert_close(got["bbox_regression"], expected["bbox_regression"], rtol=1e-5, atol=0)


def test_state_dicts_are_the_same_both_ways() -> None:
    ours, theirs = pair("resnet18")
    theirs.load_state_dict(ours.state_dict())
    old = {}  # the names of torchvision's published first weights
    for key, value in ours.state_dict().items():
        parts = key.split(".")
        if len(parts) > 3 and parts[2] == "conv" and parts[0] == "head":
            key = ".".join([*parts[:3], str(2 * int(parts[3])), parts[-1]])
        old[key] = value
    assert set(old) != set(ours.state_dict())
    ours.load_state_dict(old)


def test_batch_normalization(device: str) -> None:
    """All foreground anchors of the batch share one divisor; the definition is written out."""
    ours, _ = pair("resnet18")
    ours = ours.train().to(device)
    ours.loss_options = LossOptions(normalization="batch", box_loss_weight=2.0, alpha=0.4, gamma=1.5)
    images, targets = images_and_targets(device)
    batch, scaled = ours.transform(images, copy.deepcopy(targets))
    features = list(ours.backbone(batch.tensors).values())
    outputs = ours.head(features)
    anchors = ours._anchor_cache.get(ours.anchor_generator, tuple(batch.tensors.shape[-2:]), features)
    logits, deltas = (torch.cat(rows, dim=1) for rows in by_anchor(outputs["cls_logits"], outputs["bbox_regression"]))
    classification = boxes = positives = 0
    for i, target in enumerate(scaled):
        matches = reference.match_anchors(anchors, target["boxes"])
        labels = torch.where(matches == -1, 7, -1)
        foreground = matches >= 0
        labels[foreground] = target["labels"][matches[foreground]]
        classification += reference.sigmoid_focal_loss(logits[i], labels, 0.4, 1.5, "sum")
        wanted = reference.encode_boxes(target["boxes"][matches[foreground]], anchors[foreground])
        boxes += (deltas[i][foreground] - wanted).abs().sum()
        positives += int(foreground.sum())
    assert positives > 20
    got = ours(images, targets)
    torch.testing.assert_close(got["classification"], classification / positives, rtol=1e-4, atol=0)
    torch.testing.assert_close(got["bbox_regression"], 2 * boxes / positives, rtol=1e-4, atol=0)


def test_crowd_boxes_are_regions_to_ignore(device: str) -> None:
    """A crowd box is no ground truth: the background under it costs nothing."""
    ours, _ = pair("resnet18")
    ours = ours.train().to(device)
    image = torch.rand(3, 128, 128, device=device)
    box = torch.tensor([[30.0, 30, 60, 60]], device=device)
    region = torch.tensor([[0.0, 0, 128, 128]], device=device)
    label = torch.tensor([2], device=device)
    plain = ours([image], [{"boxes": box, "labels": label, "iscrowd": torch.zeros(1, device=device)}])
    crowd = ours(
        [image],
        [
            {
                "boxes": torch.cat([box, region]),
                "labels": torch.cat([label, label]),
                "iscrowd": torch.tensor([0, 1], device=device),
            }
        ],
    )
    torch.testing.assert_close(plain["bbox_regression"], crowd["bbox_regression"])
    assert crowd["classification"] < 0.5 * plain["classification"]


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_trains_in_mixed_precision_and_channels_last(device: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    model = retinanet_resnet18_fpn(num_classes=7, norm="group", **SIZES).to(device)
    images, targets = images_and_targets(device)
    plain = model(images, copy.deepcopy(targets))
    model = model.to(memory_format=torch.channels_last)
    with torch.autocast(device, dtype):
        mixed = model(images, targets)
    assert mixed["classification"].dtype == torch.float32
    for key in plain:
        torch.testing.assert_close(mixed[key], plain[key], rtol=0.05, atol=0)
    sum(mixed.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad(), torch.autocast(device, dtype):
        found = model.eval()(images)
    assert all(d["boxes"].dtype == torch.float32 for d in found)


def test_uint8_images_equal_floats(device: str) -> None:
    model = retinanet_resnet18_fpn(num_classes=7, **SIZES).eval().to(device)
    excite(model)
    image = torch.randint(0, 256, (3, 128, 140), dtype=torch.uint8, device=device)
    with torch.no_grad():
        a, b = model([image])[0], model([image.float() / 255])[0]
    assert len(a["boxes"]) > 0 and torch.equal(a["boxes"], b["boxes"])


def test_anchor_cache_is_bounded_and_right(device: str) -> None:
    model = retinanet_resnet18_fpn(num_classes=7, min_size=64, max_size=2000).eval().to(device)
    model._anchor_cache.capacity = 3
    with torch.no_grad():
        for width in (64, 96, 128, 160, 192, 64):
            model([torch.rand(3, 64, width, device=device)])
    assert len(model._anchor_cache) == 3
    features = [torch.zeros(1, 1, 8, 8, device=device)] * 5
    first = model._anchor_cache.get(model.anchor_generator, (64, 64), features)
    assert model._anchor_cache.get(model.anchor_generator, (64, 64), features) is first
    assert len(copy.deepcopy(model)._anchor_cache) == 0


GOOD = {"boxes": torch.tensor([[1.0, 1, 5, 9]]), "labels": torch.tensor([0])}
# Each: the targets of one image, torchvision's exception for them, what ours says.
BAD_TARGETS: dict[str, tuple[Any, type[Exception], str]] = {
    "none": (None, AssertionError, "targets must be given in training mode"),
    "too few": ([], IndexError, "one target per image, got 0 for 1 images"),
    "too many": ([GOOD, GOOD], ValueError, "one target per image, got 2 for 1 images"),
    "a dict": (GOOD, TypeError, "targets must be a list with one dict per image, got dict"),
    "a list": ([[1, 2]], TypeError, "target 0 must be a dict, got list"),
    "no boxes": ([{"labels": GOOD["labels"]}], KeyError, "target 0 has no boxes: it has labels"),
    "no labels": ([{"boxes": GOOD["boxes"]}], KeyError, "target 0 has no labels: it has boxes"),
    "boxes as a list": ([{**GOOD, "boxes": [[1, 1, 5, 9]]}], AssertionError, "boxes of target 0 must be a tensor, got"),
    "one box": ([{**GOOD, "boxes": torch.rand(4)}], AssertionError, r"boxes of target 0 must be \[n, 4\], got \[4\]"),
    "no area": (
        [{**GOOD, "boxes": torch.tensor([[5.0, 5, 5, 9]])}],
        AssertionError,
        r"positive width and height; target 0 has \[5\.0, 5\.0, 5\.0, 9\.0\]",
    ),
    "NaN": ([{**GOOD, "boxes": torch.tensor([[5.0, 5, torch.nan, 9]])}], ValueError, r"target 0 has \[5\.0, 5\.0, nan"),
    "two labels": ([{**GOOD, "labels": torch.tensor([0, 1])}], ValueError, "target 0 has 1 boxes and 2 labels"),
    "no label": ([{**GOOD, "labels": torch.tensor([]).long()}], IndexError, "target 0 has 1 boxes and 0 labels"),
    "float labels": ([{**GOOD, "labels": torch.rand(1)}], IndexError, "labels of target 0 must be integers, got"),
    "label above": ([{**GOOD, "labels": torch.tensor([7])}], IndexError, r"labels of target 0 .* \[0, 7\), got 7"),
    "label below": ([{**GOOD, "labels": torch.tensor([-1])}], ValueError, r"labels of target 0 .* \[0, 7\), got -1"),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets_raise_what_torchvision_raises(case: str) -> None:
    """And a ValueError in any case; torchvision takes those for which only ValueError is expected."""
    targets, error, message = BAD_TARGETS[case]
    image = torch.rand(3, 128, 128)
    ours, theirs = (model.train() for model in pair("resnet18"))
    with pytest.raises(error, match=message) as raised:
        ours([image], targets)
    assert isinstance(raised.value, ValueError)
    if error is not ValueError:
        with pytest.raises(error):
            theirs([image], targets)


def test_the_second_target_is_named() -> None:
    model = retinanet_resnet18_fpn(num_classes=7, **SIZES).train()
    image = torch.rand(3, 128, 128)
    for labels, message in ((torch.tensor([9]), "labels of target 1"), (torch.tensor([1, 2]), "target 1 has 1 boxes")):
        with pytest.raises(ValueError, match=message):
            model([image, image], [GOOD, {**GOOD, "labels": labels}])


def test_rejects_bad_options() -> None:
    with pytest.raises(ValueError, match="box_loss must be one of l1, smooth_l1, giou, diou, ciou, got 'l3'"):
        LossOptions(box_loss="l3")
    with pytest.raises(ValueError, match=r"bg_iou_thresh must be at most fg_iou_thresh, 0\.5, got 0\.6"):
        LossOptions(bg_iou_thresh=0.6)
