"""`patch_torchvision_ops` and ``python -m retina_ops.patch``: torchvision's functions replaced for third-party code."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from inputs.boxes import random_boxes
from models.pairs import tiny_torchvision
from patching.patched_models import EVERYTHING, assert_same
from torch import Tensor
from torchvision.models.detection import fcos, retinanet
from torchvision.ops import boxes as box_ops
from torchvision.ops import nms as imported_before

import retina_ops
from retina_ops import patch_torchvision, patch_torchvision_ops, unpatch_torchvision_ops

NAMES = (
    "nms", "batched_nms", "box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou",
    "generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss", "sigmoid_focal_loss",
)  # fmt: skip


@pytest.fixture
def stock() -> Iterator[dict[str, Any]]:
    """torchvision's functions; they are in place again after the test."""
    yield {name: getattr(torchvision.ops, name) for name in NAMES}
    unpatch_torchvision_ops()


def arguments(name: str) -> tuple[Any, ...]:
    boxes, others = random_boxes(60, high=120, width=300, height=300), random_boxes(60, width=300, height=300)
    scores = torch.randperm(60).float() / 60
    return {
        "nms": (boxes, scores, 0.4),
        "batched_nms": (boxes, scores, torch.arange(60) % 3, 0.4),
        "sigmoid_focal_loss": (torch.randn(9, 5), (torch.rand(9, 5) > 0.5).float(), 0.3, 1.5, "sum"),
    }.get(name, (boxes, others))


@pytest.mark.parametrize("name", NAMES)
def test_each_function_is_ours_and_gives_torchvisions_result(stock: dict[str, Any], name: str) -> None:
    assert patch_torchvision_ops().replaced == NAMES
    replaced, given = getattr(torchvision.ops, name), arguments(name)
    assert replaced is not stock[name] and replaced.__name__ == name
    got, expected = replaced(*given), stock[name](*given)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(got, getattr(retina_ops, name)(*given))


def test_every_module_that_has_imported_a_function_gets_it(stock: dict[str, Any]) -> None:
    """Also this one, torchvision's own, and one that calls a function by another name."""
    other = types.ModuleType("third_party_of_this_test")
    other.suppress = torchvision.ops.nms  # type: ignore[attr-defined]
    sys.modules[other.__name__] = other
    try:
        patch_torchvision_ops()
        for function in (imported_before, box_ops.nms, torchvision.ops.nms, other.suppress):
            assert function._stands_for is stock["nms"]
        for module in (retinanet, fcos, torchvision.ops.focal_loss):
            assert module.sigmoid_focal_loss._stands_for is stock["sigmoid_focal_loss"]
        assert unpatch_torchvision_ops().restored == NAMES
        assert imported_before is box_ops.nms is other.suppress is stock["nms"]
        assert retinanet.sigmoid_focal_loss is stock["sigmoid_focal_loss"]
        assert not unpatch_torchvision_ops().restored
    finally:
        del sys.modules[other.__name__]


def test_some_functions(stock: dict[str, Any]) -> None:
    assert patch_torchvision_ops(["nms", "box_iou"]).replaced == ("nms", "box_iou")
    assert torchvision.ops.batched_nms is stock["batched_nms"]
    assert patch_torchvision_ops(["nms"]).replaced == ()
    assert unpatch_torchvision_ops(["nms"]).restored == ("nms",)
    assert torchvision.ops.box_iou is not stock["box_iou"]
    with pytest.raises(ValueError, match=r"names must be of nms, .*, got 'roi_align'"):
        patch_torchvision_ops(["roi_align"])


def test_unsupported_arguments_go_to_torchvision(stock: dict[str, Any]) -> None:
    patch_torchvision_ops()
    targets = torch.rand(9, 5, requires_grad=True)
    loss = torchvision.ops.sigmoid_focal_loss(torch.randn(9, 5), targets, reduction="sum")
    assert torch.autograd.grad(loss, targets)[0].abs().sum() > 0
    logits, dense = torch.randn(9, 5), torch.ones(9, 5, dtype=torch.bool)
    for name, given in (("sigmoid_focal_loss", (logits, dense)), ("nms", (torch.rand(3, 4, device="meta"),) * 3)):
        outcomes = []
        for function in (stock[name], getattr(torchvision.ops, name)):
            try:
                outcomes.append(str(function(*given)))
            except Exception as error:
                outcomes.append(f"{type(error)}: {error}")
        assert outcomes[0] == outcomes[1]

    class Boxes(Tensor):
        pass

    boxes = random_boxes(5)
    assert torch.equal(torchvision.ops.box_iou(boxes.as_subclass(Boxes), boxes), stock["box_iou"](boxes, boxes))


def test_gradients_and_keywords(stock: dict[str, Any]) -> None:
    patch_torchvision_ops()
    boxes, scores, _ = arguments("nms")
    assert torch.equal(
        torchvision.ops.nms(boxes=boxes, scores=scores, iou_threshold=0.4), stock["nms"](boxes, scores, 0.4)
    )
    boxes.requires_grad_()
    torchvision.ops.generalized_box_iou_loss(boxes, random_boxes(60), reduction="sum").backward()
    assert boxes.grad is not None and boxes.grad.isfinite().all()


def keeps_best(boxes: Tensor, scores: Tensor) -> Tensor:
    return torchvision.ops.nms(boxes, scores, 0.5)


def test_torchscript_compiles_torchvisions_functions(stock: dict[str, Any]) -> None:
    patch_torchvision_ops()
    boxes, scores, _ = arguments("nms")
    assert torch.equal(torch.jit.script(keeps_best)(boxes, scores), stock["nms"](boxes, scores, 0.5))
    assert torch.equal(torch.jit.script(torchvision.ops.nms)(boxes, scores, 0.5), stock["nms"](boxes, scores, 0.5))


def test_a_monkeypatch_is_left_alone(stock: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.ops, "nms", keeps_best)
    report = patch_torchvision_ops()
    assert report.left == {"nms": f"torchvision.ops.nms is keeps_best of {__name__}"} and "nms" not in report.replaced
    assert torchvision.ops.nms is keeps_best


@pytest.mark.parametrize("first", ["model", "functions"])
def test_together_with_a_patched_model(stock: dict[str, Any], first: str) -> None:
    """The replaced functions are as good as torchvision's: a model may be patched before and after."""
    model, plain = tiny_torchvision(), tiny_torchvision()
    if first == "functions":
        patch_torchvision_ops()
    assert patch_torchvision(model).replaced == EVERYTHING
    patch_torchvision_ops()
    assert_same(model, plain)
    unpatch_torchvision_ops()
    assert_same(model, plain)


# --- the command ------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from torchvision.ops import nms
import beside_the_script
if __name__ == "__main__":
    print(hasattr(nms, "_stands_for"), sys.argv[1:], beside_the_script.VALUE)
    sys.exit(3)
"""


def run(*given: str, folder: Path) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.path[1:1] = {sys.path!r}; sys.argv = ['retina_ops.patch', *{list(given)!r}]\n"
        "import runpy; runpy.run_module('retina_ops.patch', run_name='__main__', alter_sys=True)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


def test_runs_a_script_and_a_module(tmp_path: Path) -> None:
    (tmp_path / "beside_the_script.py").write_text("VALUE = 7\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    for given in (["script.py"], ["-m", "script"]):
        done = run(*given, "--lr", "1", folder=tmp_path)
        assert done.stdout.split()[:4] == ["True", "['--lr',", "'1']", "7"], done.stderr[-2000:]
        assert done.returncode == 3
    plain = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path)
    assert plain.stdout == "False [] 7\n"


def test_bad_command_lines(tmp_path: Path) -> None:
    for given, message in (
        ([], "usage: python -m retina_ops.patch"),
        (["nothing.py"], "no such file: nothing.py"),
        (["-x"], "usage:"),
    ):
        done = run(*given, folder=tmp_path)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
