"""Extreme numbers: candidates and detections without limit, none, fewer than none; levels; labels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from models.pairs import assert_same_detections, excite, tiny_batch, tiny_torchvision
from patching.patched_models import assert_same, patched
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from retina_ops import patch_torchvision
from retina_ops import postprocess as fused
from retina_ops.ops._postprocess_limits import CUDA_TOPK, is_too_many_for_cuda, within


def found_by(model: Any, device: str, topk: int, detections: int | None) -> list[dict[str, Tensor]]:
    model.topk_candidates, model.detections_per_img = topk, detections
    with torch.no_grad():
        return model.to(device).eval()(tiny_batch(device)[0])


@pytest.mark.parametrize(
    ("topk", "detections"),
    [
        (1000, 10**12),
        (1000, None),
        (10**12, None),
        (10**30, 10**30),
        (5, 10**12),
        (1000, 0),
        (0, None),
        (1000, -3),
        (1000, -(10**6)),
    ],
)
def test_any_number_of_detections(device: str, topk: int, detections: int | None) -> None:
    """torchvision slices: None is all, and a number below 0 all but the last."""
    stock, model = tiny_torchvision(), patched()
    torch.manual_seed(0)
    expected = found_by(stock, device, topk, detections)
    torch.manual_seed(0)
    got = found_by(model, device, topk, detections)
    assert [len(image["scores"]) for image in got] == [len(image["scores"]) for image in expected]
    is_none = topk == 0 or detections == 0 or detections == -(10**6)
    assert_same_detections(got, expected, least=0 if is_none else 5)
    assert (sum(len(image["scores"]) for image in got) == 0) == is_none


def test_rejects_fewer_than_no_candidates() -> None:
    """So does torchvision, in `topk`."""
    with pytest.raises(ValueError, match="topk_candidates must be at least 0, got -2"):
        found_by(patched(), "cpu", -2, 300)
    with pytest.raises(RuntimeError, match="out of range"):
        found_by(tiny_torchvision(), "cpu", -2, 300)


def test_limits() -> None:
    maps = [torch.empty(2, 6, 3, 4), torch.empty(2, 10, 2)]
    assert within(maps, 1000, 300) == (72, 92) and within(maps, 30, None) == (30, 50)
    assert within(maps, 30, 7) == (30, 7) and within(maps, 30, 10**12) == (30, 50)


def test_more_candidates_than_the_cuda_kernel_sorts() -> None:
    """Post-processing is torchvision's then. The rule needs only shapes and the device, so nothing is allocated."""

    class OnCuda:
        is_cuda = True

        def __init__(self, *shape: int) -> None:
            self.shape = torch.Size(shape)

    many, few = OnCuda(2, 90, 32, 32), OnCuda(2, 90, 8, 8)
    assert is_too_many_for_cuda([few, many], CUDA_TOPK + 1) and not is_too_many_for_cuda([few, many], CUDA_TOPK)
    assert not is_too_many_for_cuda([few], 10**12)
    assert not is_too_many_for_cuda([torch.empty(2, 90, 32, 32)], 10**12)


def test_post_processing_is_torchvisions_for_too_many_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    stock, model = tiny_torchvision(), patched()
    monkeypatch.setattr("retina_ops.patching.fused.is_too_many_for_cuda", lambda maps, topk: topk > 900)
    called: list[int] = []
    monkeypatch.setattr(
        "retina_ops.patching.fused.postprocess", lambda *given, **options: called.append(1) or fused(*given, **options)
    )
    images = tiny_batch()[0]
    for topk, calls in ((1000, 0), (900, 1)):
        model.topk_candidates = stock.topk_candidates = topk
        with torch.no_grad():
            assert_same_detections(model.eval()(images), stock.eval()(images), least=20)
        assert len(called) == calls


def test_labels_below_0(device: str) -> None:
    """torchvision uses a label as an index: -1 is the last class."""
    stock, model = tiny_torchvision().to(device), patched().to(device)
    images, targets = tiny_batch(device)
    losses = []
    for label in (2, -1):
        targets[0]["labels"][0] = label
        losses.append(stock(images, copy.deepcopy(targets))["classification"].item())
    assert losses[0] == losses[1]
    if device == "cuda":
        assert model(images, targets)["classification"].isnan()
        return
    with pytest.raises(RuntimeError, match=r"gt_labels in \[0, 3\)"):
        model(images, targets)


class Levels(nn.Module):
    """`count` levels of strides 8, 16, ...; the last ones have one cell."""

    out_channels = 8

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.stem = count, nn.Conv2d(3, 8, 8, stride=8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels = [self.stem(x)]
        while len(levels) < self.count:
            levels.append(nn.functional.max_pool2d(levels[-1], 2, ceil_mode=True))
        return {str(i): level for i, level in enumerate(levels)}


def model_of_levels(count: int) -> Any:
    torch.manual_seed(1)
    generator = AnchorGenerator(tuple((8 + 4 * i,) for i in range(count)), ((0.5, 1.0),) * count)
    options = {"anchor_generator": generator, "min_size": 64, "max_size": 96, "score_thresh": 0.05}
    model = RetinaNet(Levels(count), 3, **options)
    for layer in model.head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    excite(model)
    return model


def test_as_many_levels_as_the_operators_take() -> None:
    model, stock = model_of_levels(8), model_of_levels(8)
    assert not patch_torchvision(model).left
    assert_same(model, stock)


def test_more_levels_than_the_operators_take() -> None:
    model = model_of_levels(9)
    report = patch_torchvision(model)
    assert report.replaced == () and report.left == {"model": "it has 9 levels, the fused operators take 8"}
    assert type(model) is RetinaNet


def test_rejects_more_levels_after_patching() -> None:
    model = model_of_levels(8)
    patch_torchvision(model)
    model.backbone, model.anchor_generator = Levels(9), model_of_levels(9).anchor_generator
    with pytest.raises(RuntimeError, match="must have 1 to 8 levels, got 9"):
        model(*tiny_batch())
