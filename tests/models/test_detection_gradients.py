"""Detections of our models and of patched ones carry the gradients that torchvision's carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models.pairs import tiny_batch, tiny_torchvision
from torch import Tensor

from retina_ops import patch_torchvision
from retina_ops.models import RetinaNet


def stock() -> Any:
    return tiny_torchvision().double().eval()


def patched() -> Any:
    model = stock()
    patch_torchvision(model)
    return model


def ours() -> Any:
    return tiny_torchvision(RetinaNet).double().eval()


MODELS: dict[str, Callable[[], Any]] = {"ours": ours, "patched": patched}


def objective(found: list[dict[str, Tensor]]) -> Tensor:
    """Of scores and boxes, independent of the order of the detections."""
    return sum(
        image["scores"].square().sum() + (image["scores"][:, None] * image["boxes"]).sum() / 50 for image in found
    )


def gradients(model: Any, device: str, create_graph: bool = False) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
    """By the images, as saliency and attacks want them, and by the parameters."""
    torch.manual_seed(1)
    images = [image.requires_grad_() for image in tiny_batch(device, torch.float64)[0]]
    found = model.to(device)(images)
    leaves = [*images, *model.parameters()]
    found_gradients = torch.autograd.grad(objective(found), leaves, create_graph=create_graph, allow_unused=True)
    return found, [torch.zeros_like(a) if g is None else g for a, g in zip(leaves, found_gradients, strict=True)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_torchvisions(device: str, name: str, layout: torch.memory_format) -> None:
    found, got = gradients(MODELS[name]().to(memory_format=layout), device)
    theirs, expected = gradients(stock().to(memory_format=layout), device)
    assert all(image["scores"].requires_grad and image["boxes"].requires_grad for image in found)
    assert not any(image["labels"].requires_grad for image in found)
    assert [len(image["scores"]) for image in found] == [len(image["scores"]) for image in theirs]
    assert min(len(image["scores"]) for image in found) >= 20
    assert all(float(grad.abs().max()) > 0 for grad in expected[:3])
    for mine, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-8, atol=1e-9 * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("name", MODELS)
def test_values_do_not_depend_on_the_graph(device: str, name: str) -> None:
    model = MODELS[name]().float().to(device)
    images = tiny_batch(device)[0]
    recorded = model(images)
    with torch.no_grad():
        plain = model(images)
    for mine, theirs in zip(recorded, plain, strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
        assert mine["scores"].requires_grad and not theirs["scores"].requires_grad


@pytest.mark.parametrize("name", MODELS)
def test_second_derivatives(device: str, name: str) -> None:
    """A penalty on the gradient by the image, as for adversarial training."""
    penalties = []
    for model in (MODELS[name](), stock()):
        _, grads = gradients(model, device, create_graph=True)
        penalty = sum(grad.square().sum() for grad in grads[:3])
        leaf = model.head.classification_head.cls_logits.weight
        penalties.append(torch.autograd.grad(penalty, leaf)[0])
    torch.testing.assert_close(penalties[0], penalties[1], rtol=1e-7, atol=1e-9 * float(penalties[1].abs().max()))


@pytest.mark.parametrize("name", MODELS)
def test_a_frozen_model_records_nothing(device: str, name: str) -> None:
    model = MODELS[name]().float().to(device).requires_grad_(False)
    found = model(tiny_batch(device)[0])
    assert not any(image["scores"].requires_grad or image["boxes"].requires_grad for image in found)


@pytest.mark.parametrize("name", MODELS)
def test_an_attack_lowers_the_scores(device: str, name: str) -> None:
    """Steps along the sign of the gradient by the pixels: what a model without gradients would not do."""
    model, image = MODELS[name]().float().to(device), tiny_batch(device)[0][0]
    before = float(model([image])[0]["scores"].detach().sum())
    for _ in range(3):
        image = image.detach().requires_grad_()
        model([image])[0]["scores"].sum().backward()
        image = image - 0.02 * image.grad.sign()
    assert float(model([image])[0]["scores"].detach().sum()) < 0.9 * before
