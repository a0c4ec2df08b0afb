"""Compiled training: the loss is in the model's graph, and no graph ends but where torchvision's transform ends it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from models.pairs import tiny_batch, tiny_torchvision
from torch import Tensor

from retina_ops import patch_torchvision
from retina_ops.models import LossOptions, retinanet_small_fpn


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def small_model(device: str, **loss: Any) -> Any:
    torch.manual_seed(2)
    model = retinanet_small_fpn(
        num_classes=3, width=8, fpn_channels=16, head_depth=1, min_size=64, max_size=96, loss=LossOptions(**loss)
    )
    return model.to(device).train()


def crowded_batch(device: str) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images, targets = tiny_batch(device)
    targets[0]["iscrowd"] = torch.tensor([0, 1, 0, 0, 1], device=device)  # the other images say nothing of crowds
    return images[:2], targets[:2]


def gradients(
    model: Any, call: Any, images: list[Tensor], targets: list[Any]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    model.zero_grad(set_to_none=True)
    losses = call(images, copy.deepcopy(targets))
    sum(losses.values()).backward()
    return losses, [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("normalization", ["image", "batch", "ema"])
def test_a_whole_step_is_one_graph(device: str, normalization: str) -> None:
    """Transform, network, matching and loss, with crowds: nothing breaks the graph, the numbers are eager's."""
    model = small_model(device, normalization=normalization, box_loss="giou")
    twin = copy.deepcopy(model)
    images, targets = crowded_batch(device)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got, mine = gradients(model, compiled, images, targets)
    expected, theirs = gradients(twin, twin, images, targets)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=0)
    for a, b in zip(mine, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)  # the moving average too


def test_a_patched_model_breaks_only_in_torchvisions_transform(device: str) -> None:
    model = tiny_torchvision().to(device).train()
    patch_torchvision(model)
    images, targets = tiny_batch(device)
    explained = torch._dynamo.explain(model)(images, targets)
    where = [reason.user_stack[-1].filename for reason in explained.break_reasons]
    assert where and {path.rpartition("torchvision/")[2] for path in where} == {"models/detection/transform.py"}


def test_training_of_a_compiled_patched_model(device: str) -> None:
    model = tiny_torchvision().to(device).train()
    patch_torchvision(model)
    twin = copy.deepcopy(model)
    images, targets = tiny_batch(device)
    compiled = torch.compile(model, backend="aot_eager")
    for _ in range(2):  # both modes, twice: what was compiled is used again
        got, mine = gradients(model.train(), compiled, images, targets)
        expected, theirs = gradients(twin.train(), twin, images, targets)
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=0)
        for a, b in zip(mine, theirs, strict=True):
            assert (a - b).abs().max() <= 1e-4 * b.abs().max()
        with torch.no_grad():
            model.eval(), twin.eval()
            for a, b in zip(compiled(images), twin(images), strict=True):
                assert torch.equal(a["labels"], b["labels"]) and len(a["labels"]) >= 20


def test_compiled_models_refuse_boxes_without_area() -> None:
    bad = [{"boxes": torch.tensor([[5.0, 5, 5, 9]]), "labels": torch.tensor([0])}]
    model = small_model("cpu")
    with pytest.raises(RuntimeError, match="boxes must have positive width and height"):
        torch.compile(model, backend="aot_eager")([torch.rand(3, 64, 96)], bad)
    patched = tiny_torchvision().train()
    patch_torchvision(patched)
    with pytest.raises(RuntimeError, match="All bounding boxes should have positive height and width"):
        torch.compile(patched, backend="aot_eager")([torch.rand(3, 64, 96)], bad)
