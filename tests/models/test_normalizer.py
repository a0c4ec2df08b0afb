"""`EmaNormalizer` and the normalization "ema" of the model: detectron2's recurrence, in state dicts old and new."""

from __future__ import annotations

import copy

import pytest
import torch
from models.pairs import tiny_batch

from retina_ops import EmaNormalizer, reference, retinanet_loss
from retina_ops.models import LossOptions, RetinaNet, retinanet_losses, retinanet_small_fpn


def build(normalization: str) -> RetinaNet:
    torch.manual_seed(0)
    return retinanet_small_fpn(
        num_classes=3, width=8, fpn_channels=16, min_size=64, max_size=96, loss=LossOptions(normalization=normalization)
    )


def test_recurrence(device: str) -> None:
    normalizer = EmaNormalizer(initial=50.0, momentum=0.8).to(device)
    expected = 50.0
    for foreground in ([3, 7], [0, 0], [1000, 1], [12, 5]):
        expected = 0.8 * expected + 0.2 * max(1, sum(foreground))
        got = normalizer(torch.tensor(foreground, device=device))
        assert got.shape == () and got.dtype == torch.float32 and got.item() == pytest.approx(expected)
    normalizer.eval()
    assert normalizer(torch.tensor([9, 9], device=device)).item() == pytest.approx(expected)


def test_what_it_returned_does_not_move() -> None:
    normalizer = EmaNormalizer()
    first = normalizer(torch.tensor([10]))
    normalizer(torch.tensor([10]))
    assert first.item() == pytest.approx(91)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stays_float32(dtype: torch.dtype) -> None:
    exact = EmaNormalizer(initial=70001.0).to(dtype)
    assert exact.average.item() == 70001.0  # which half would round, or make infinite
    normalizer = EmaNormalizer().to(dtype)
    assert normalizer.average.dtype == torch.float32
    for _ in range(200):
        normalizer(torch.tensor([2000]))
    assert normalizer.average.item() == pytest.approx(2000, rel=1e-4)


def test_loss_divides_by_it(device: str) -> None:
    logits = [torch.randn(2, 9, 4, 4, device=device)]
    deltas = [torch.randn(2, 12, 4, 4, device=device)]
    corner = torch.rand(48, 2, device=device) * 24
    anchors = torch.cat([corner, corner + 8], dim=1)
    boxes, labels = [anchors[:2] + 1, anchors[5:6]], [torch.tensor([0, 2]), torch.tensor([1])]
    labels = [its.to(device) for its in labels]
    got = retinanet_loss(logits, deltas, anchors, boxes, labels, normalization=EmaNormalizer().to(device))
    expected = reference.retinanet_loss(
        logits, deltas, anchors, boxes, labels, normalization=EmaNormalizer().to(device)
    )
    torch.testing.assert_close(got, expected)


def test_state_dicts_with_and_without_the_average() -> None:
    plain, averaged = build("image"), build("ema")
    assert set(averaged.state_dict()) - set(plain.state_dict()) == {"loss_normalizer.average"}
    averaged.loss_normalizer(torch.tensor([1000]))
    moved = averaged.loss_normalizer.average.item()
    averaged.load_state_dict(plain.state_dict())  # an older one: no error, the average stays
    assert averaged.loss_normalizer.average.item() == moved
    again = build("ema")
    again.load_state_dict(averaged.state_dict())
    assert again.loss_normalizer.average.item() == moved


def test_model_moves_its_average_only_in_training(device: str) -> None:
    model = build("ema").to(device).train()
    images, targets = tiny_batch(device)
    model(images, copy.deepcopy(targets))
    moved = model.loss_normalizer.average.item()
    assert moved != 100
    with torch.no_grad():
        model.eval()(images)
    assert model.loss_normalizer.average.item() == moved


def test_options_may_change() -> None:
    model = build("image")
    assert model.loss_normalizer is None
    model.loss_options = LossOptions(normalization="ema")
    kept = model.loss_normalizer
    assert isinstance(kept, EmaNormalizer)
    model.loss_options = LossOptions(normalization="ema", box_loss="giou")
    assert model.loss_normalizer is kept
    model.loss_options = LossOptions()
    assert model.loss_normalizer is None and "loss_normalizer.average" not in model.state_dict()


def test_rejects_bad_options() -> None:
    for options, message in (
        ({"initial": 0.0}, "EmaNormalizer: initial must be positive and finite, got 0.0"),
        ({"initial": float("nan")}, "initial must be positive"),
        ({"momentum": 1.0}, r"EmaNormalizer: momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, "momentum must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            EmaNormalizer(**options)
    with pytest.raises(ValueError, match="normalization must be one of image, batch, ema, got 'max'"):
        LossOptions(normalization="max")
    with pytest.raises(ValueError, match='normalization "ema" needs a normalizer, such as'):
        retinanet_losses(
            {"cls_logits": [], "bbox_regression": []}, torch.zeros(0, 4), [], LossOptions(normalization="ema")
        )
