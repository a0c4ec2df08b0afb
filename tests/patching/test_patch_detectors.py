"""Patched FCOS, SSD, Faster, Mask and Keypoint R-CNN: losses, gradients and detections are torchvision's.

Compared in float64, where torchvision's offsets of coordinates in batched_nms and the order of additions do not matter.
"""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import pytest
import torch
from inputs.boxes import random_boxes
from models.pairs import TinyBackbone, assert_same_detections
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection import fcos, roi_heads, rpn
from torchvision.models.detection._utils import BoxCoder, Matcher, SSDMatcher
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import boxes as box_ops

from retina_ops import patch_torchvision, unpatch_torchvision

SIZES: dict[str, Any] = {"min_size": 64, "max_size": 96}
R_CNN = ("matching", "box coding", "suppression")


def generator(*ratios: float) -> AnchorGenerator:
    return AnchorGenerator(((12,), (24,), (48,)), (ratios,) * 3)


def rcnn(kind: Any = detection.FasterRCNN, **options: Any) -> Any:
    pool = MultiScaleRoIAlign(["0", "1", "2"], output_size=3, sampling_ratio=2)
    return kind(
        TinyBackbone(), None, rpn_anchor_generator=generator(0.5, 1.0, 2.0), box_roi_pool=pool,
        box_head=TwoMLPHead(16 * 9, 32), box_predictor=detection.faster_rcnn.FastRCNNPredictor(32, 4),
        box_score_thresh=0.2, **SIZES, **options,
    )  # fmt: skip


def masks() -> Any:
    return rcnn(
        detection.MaskRCNN,
        mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=4, sampling_ratio=2),
        mask_head=detection.mask_rcnn.MaskRCNNHeads(16, (8,), 1),
        mask_predictor=detection.mask_rcnn.MaskRCNNPredictor(8, 8, 4),
    )


def keypoints() -> Any:
    return rcnn(
        detection.KeypointRCNN,
        keypoint_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=4, sampling_ratio=2),
        keypoint_head=detection.keypoint_rcnn.KeypointRCNNHeads(16, (8,)),
        keypoint_predictor=detection.keypoint_rcnn.KeypointRCNNPredictor(8, 3),
    )


def ssd() -> Any:
    boxes = DefaultBoxGenerator([[2]] * 3, scales=[0.1, 0.3, 0.6, 0.9])
    head = detection.ssd.SSDHead([16] * 3, boxes.num_anchors_per_location(), 4)
    return detection.ssd.SSD(TinyBackbone(), boxes, (64, 96), 4, head=head, score_thresh=0.2)


class WideBackbone(nn.Module):
    """As many channels as the 32 groups of FCOS's GroupNorm need."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.body, self.widen = TinyBackbone(), nn.Conv2d(16, 32, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: self.widen(level) for name, level in self.body(x).items()}


def fully_convolutional() -> Any:
    head = fcos.FCOSHead(32, 1, 4, num_convs=1)
    return fcos.FCOS(WideBackbone(), 4, anchor_generator=generator(1.0), head=head, score_thresh=0.1, **SIZES)


# Each: how the model is made, and what is replaced in it.
MODELS = {
    "FCOS": (fully_convolutional, ("suppression", "loss")),
    "SSD": (ssd, ("matching", "box coding", "suppression")),
    "FasterRCNN": (rcnn, R_CNN),
    "MaskRCNN": (masks, R_CNN),
    "KeypointRCNN": (keypoints, R_CNN),
}


def build(name: str) -> Any:
    """A model that detects, from one seed."""
    torch.manual_seed(4)
    model = MODELS[name][0]().double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
    if name == "FCOS":
        nn.init.constant_(model.head.classification_head.cls_logits.bias, -1.0)
    return model


def patched(name: str) -> Any:
    model = build(name)
    report = patch_torchvision(model)
    assert report.replaced == MODELS[name][1] and not report.left
    return model


def batch(name: str) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Three images, the second without objects, except for models that do not train on such an image."""
    torch.manual_seed(2)
    images, targets = [torch.rand(3, h, w).double() for h, w in ((64, 96), (64, 90), (64, 70))], []
    for image, count in zip(images, (5, 1 if name == "KeypointRCNN" else 0, 3), strict=True):
        boxes = random_boxes(count, low=10, high=50, width=image.shape[-1], height=64).double()
        target = {"boxes": boxes, "labels": torch.randint(1, 4, (count,))}
        if name == "MaskRCNN":
            target["masks"] = torch.randint(0, 2, (count, *image.shape[-2:]), dtype=torch.uint8)
        if name == "KeypointRCNN":
            middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
            target["keypoints"] = torch.cat([middle, torch.ones(count, 1, 1)], dim=2).repeat(1, 3, 1).float()
        targets.append(target)
    return images, targets


def run(model: Any, name: str) -> tuple[dict[str, Tensor], list[Tensor], list[dict[str, Tensor]]]:
    """Losses, gradients and detections. torchvision samples anchors at random: from one seed."""
    images, targets = batch(name)
    torch.manual_seed(7)
    model.train().zero_grad(set_to_none=True)
    losses = model(images, copy.deepcopy(targets))
    sum(losses.values()).backward()
    with torch.no_grad():
        return losses, [p.grad for p in model.parameters() if p.grad is not None], model.eval()(images)


def assert_alike(model: Any, stock: Any, name: str, least: int = 3) -> None:
    (losses, grads, found), (expected, wanted, theirs) = run(model, name), run(stock, name)
    assert list(losses) == list(expected)
    for key, loss in losses.items():
        torch.testing.assert_close(loss, expected[key], rtol=1e-8, atol=1e-12)
    assert len(grads) == len(wanted)
    for mine, other in zip(grads, wanted, strict=True):
        assert (mine - other).abs().max() <= 1e-7 * max(1e-3, float(other.abs().max()))
    assert_same_detections(found, theirs, least=least)
    for mine, other in zip(found, theirs, strict=True):
        assert list(mine) == list(other) and [mine[k].dtype for k in mine] == [other[k].dtype for k in other]


@pytest.mark.parametrize("name", MODELS)
def test_equals_torchvision(name: str) -> None:
    assert_alike(patched(name), build(name), name)


@pytest.mark.parametrize("name", MODELS)
def test_unpatched_in_one_call(name: str) -> None:
    """Every module and every object that a module holds is as it was."""

    def picture(model: Any) -> list[Any]:
        return [
            (path, type(module), {key: type(value) for key, value in vars(module).items()})
            for path, module in model.named_modules()
        ]

    model = build(name)
    before, keys = picture(model), list(model.state_dict())
    patch_torchvision(model)
    assert picture(model) != before and list(model.state_dict()) == keys
    assert patch_torchvision(model).left == {"model": "it is patched already"}
    assert unpatch_torchvision(model).restored == MODELS[name][1]
    assert picture(model) == before and not unpatch_torchvision(model).restored


@pytest.mark.parametrize("name", MODELS)
def test_copies_and_pickles_are_patched(name: str) -> None:
    model = patched(name)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin) is type(model)
        assert_alike(twin, model, name)
        unpatch_torchvision(twin)
        assert type(twin).__name__ == name


@pytest.mark.parametrize("name", MODELS)
def test_torchscript_is_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match="TorchScript does not support a patched model: call unpatch_torchvision"):
        torch.jit.script(patched(name))


@pytest.mark.parametrize("name", MODELS)
def test_the_operators_are_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchvision spends its time on no longer runs."""
    for owner, attribute in ((box_ops, "_batched_nms_vanilla"), (box_ops, "_batched_nms_coordinate_trick")):
        monkeypatch.setattr(owner, attribute, None)  # not called: it would fail
    monkeypatch.setattr(box_ops, "_box_inter_union", None)
    run(patched(name), name)
    with pytest.raises(TypeError):
        run(build(name), name)


# --- changes, before and after patching -------------------------------------------------------------------------------


class OwnMatcher(Matcher):
    def __call__(self, match_quality_matrix: Tensor) -> Tensor:
        return super().__call__(match_quality_matrix * 1.3)


class OwnCoder(BoxCoder):
    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        return super().encode_single(reference_boxes, proposals) + 0.1


def set_matcher(model: Any) -> None:
    model.rpn.proposal_matcher = OwnMatcher(0.7, 0.3, allow_low_quality_matches=True)
    model.roi_heads.proposal_matcher = OwnMatcher(0.5, 0.5)


def set_coder(model: Any) -> None:
    model.rpn.box_coder = OwnCoder((1.0, 1.0, 1.0, 1.0))
    model.roi_heads.box_coder.weights = (5.0, 5.0, 5.0, 5.0)


def set_clip(model: Any) -> None:
    model.rpn.box_coder.bbox_xform_clip = 0.2


def set_similarity(model: Any) -> None:
    model.rpn.box_similarity = box_ops.generalized_box_iou


def set_method(model: Any) -> None:
    own = model.roi_heads.postprocess_detections
    model.roi_heads.postprocess_detections = lambda *given: tuple([each[1:] for each in part] for part in own(*given))


def set_thresholds(model: Any) -> None:
    model.rpn.nms_thresh, model.roi_heads.score_thresh, model.roi_heads.detections_per_img = 0.3, 0.3, 5
    model.rpn.proposal_matcher.high_threshold, model.roi_heads.proposal_matcher.low_threshold = 0.5, 0.2


CHANGES = (set_matcher, set_coder, set_clip, set_similarity, set_method, set_thresholds)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_take_effect(change: Any, when: str) -> None:
    model, stock = build("FasterRCNN"), build("FasterRCNN")
    plain = run(stock, "FasterRCNN")
    change(stock)
    if when == "after":
        patch_torchvision(model)
    change(model)
    left = patch_torchvision(model).left if when == "before" else {}
    assert bool(left) == (when == "before" and change in (set_matcher, set_coder, set_method))
    assert_alike(model, stock, "FasterRCNN", least=1)
    assert str(run(stock, "FasterRCNN")) != str(plain)


def replaced(function: Any, change: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        return change(function(*arguments, **options))

    return wrapper


# Each: the model, whose attribute is replaced, and what is done to its result.
MONKEYPATCHES: dict[str, tuple[str, Any, str, Any]] = {
    "batched_nms": ("FasterRCNN", box_ops, "batched_nms", lambda kept: kept[1:]),
    "nms": ("SSD", box_ops, "nms", lambda kept: kept[1:]),
    "box_iou": ("FasterRCNN", box_ops, "box_iou", lambda iou: iou / 2),
    "box_iou of SSD": ("SSD", box_ops, "box_iou", lambda iou: iou / 2),
    "matcher": ("FasterRCNN", Matcher, "__call__", lambda matches: matches.clamp(max=0)),
    "matching": ("FasterRCNN", Matcher, "set_low_quality_matches_", lambda matches: None),
    "encoding": ("SSD", detection._utils, "encode_boxes", lambda codes: codes + 1),
    "decoding": ("SSD", BoxCoder, "decode_single", lambda boxes: boxes + 1),
    "focal loss": ("FCOS", fcos, "sigmoid_focal_loss", lambda loss: 2 * loss),
    "GIoU loss": ("FCOS", fcos, "generalized_box_iou_loss", lambda loss: 2 * loss),
    "proposals": ("FasterRCNN", rpn.RegionProposalNetwork, "filter_proposals", lambda found: found),
    "targets": ("FasterRCNN", rpn.RegionProposalNetwork, "assign_targets_to_anchors", lambda found: found),
    "detections": (
        "FasterRCNN", roi_heads.RoIHeads, "postprocess_detections",
        lambda found: tuple([each[1:] for each in part] for part in found),
    ),
    "forward": ("SSD", detection.ssd.SSD, "forward", lambda result: result),
}  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("case", MONKEYPATCHES)
def test_monkeypatches_are_called(case: str, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that come after patching: nothing is ignored in silence, and undoing them brings the speed back."""
    name, owner, attribute, change = MONKEYPATCHES[case]
    model, stock = build(name), build(name)
    if when == "after":
        patch_torchvision(model)
    calls: list[int] = []
    monkeypatch.setattr(
        owner, attribute, replaced(getattr(owner, attribute), lambda result: (calls.append(1), change(result))[1])
    )
    if when == "before":
        patch_torchvision(model)
    run(stock, name)
    expected = len(calls)
    run(model, name)
    assert expected > 0 and len(calls) == 2 * expected
    assert_alike(model, stock, name, least=0)
    monkeypatch.undo()
    assert_alike(model, build(name), name)


class Halved(rpn.RegionProposalNetwork):
    def filter_proposals(self, proposals: Tensor, *given: Any) -> Any:
        boxes, scores = super().filter_proposals(proposals, *given)
        return [each[::2] for each in boxes], [each[::2] for each in scores]


def test_an_overridden_method_is_left_alone_and_named() -> None:
    model, stock = build("FasterRCNN"), build("FasterRCNN")
    for each in (model, stock):
        each.rpn.__class__ = Halved
    left = patch_torchvision(model).left
    assert left == {
        "model.rpn.filter_proposals": f"it is Halved.filter_proposals of {__name__}, not torchvision's",
    }
    assert_alike(model, stock, "FasterRCNN", least=1)


def test_a_box_that_overlaps_nothing() -> None:
    """The row of `match_anchors` in docs/differences.md applies."""
    anchors, boxes = torch.tensor([[0.0, 0, 9, 9], [20, 20, 30, 30]]), torch.tensor([[100.0, 100, 110, 110]])
    model, stock = patched("FasterRCNN"), build("FasterRCNN")
    target = [{"boxes": boxes}]
    assert stock.rpn.assign_targets_to_anchors([anchors], target)[0][0].tolist() == [1.0, 1.0]
    assert model.rpn.assign_targets_to_anchors([anchors], target)[0][0].tolist() == [0.0, 0.0]


def test_errors_are_torchvisions() -> None:
    images, targets = batch("FasterRCNN")
    for bad in (None, [{"boxes": targets[0]["boxes"]}] * 3, [{**targets[0], "boxes": targets[0]["boxes"][:, :3]}] * 3):
        messages = []
        for model in (patched("FasterRCNN"), build("FasterRCNN")):
            with pytest.raises(Exception) as raised:
                model.train()(images, copy.deepcopy(bad))
            messages.append((type(raised.value), str(raised.value)))
        assert messages[0] == messages[1]


def test_ssd_matcher_is_torchvisions() -> None:
    model = patched("SSD")
    assert type(model.proposal_matcher) is SSDMatcher


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_box_coding_has_torchvisions_dtypes(dtype: torch.dtype) -> None:
    """Of one and of several boxes a row, empty ones too; rounded once, so nearer to float64 than torchvision's."""
    stock, model = build("FasterRCNN"), patched("FasterRCNN")
    boxes = random_boxes(40, low=5, high=50)
    for count, classes in ((40, 1), (40, 3), (0, 2)):
        codes = (torch.randn(count, 4 * classes) / 2).to(dtype)
        got, expected = (each.roi_heads.box_coder.decode_single(codes, boxes[:count]) for each in (model, stock))
        exact = stock.roi_heads.box_coder.decode_single(codes.double(), boxes[:count].double())
        assert got.dtype == expected.dtype and got.shape == expected.shape
        if count:
            assert (got - exact).abs().max() <= 1.01 * (expected - exact).abs().max() + 1e-4
    own = boxes.to(dtype)
    moved = own + 1
    got, expected = (each.rpn.box_coder.encode_single(moved, own) for each in (model, stock))
    assert got.dtype == expected.dtype
    exact = stock.rpn.box_coder.encode_single(moved.double(), own.double())
    assert (got - exact).abs().max() <= 1.01 * (expected - exact).abs().max() + 1e-6
