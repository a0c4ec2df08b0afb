"""A patched torchvision RetinaNet: its losses, gradients and detections are torchvision's, and so is all around it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from models.pairs import assert_same_detections, images_and_targets, tiny_batch, tiny_torchvision, torchvision_model
from patching.patched_models import EVERYTHING, changed, patched
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import BoxCoder, Matcher

from retina_ops import patch_torchvision, unpatch_torchvision


def losses_and_gradients(
    model: Any, images: list[Tensor], targets: list[Any]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    model.train().zero_grad(set_to_none=True)
    losses = model(images, copy.deepcopy(targets))
    sum(losses.values()).backward()
    return losses, [parameter.grad.clone() for parameter in model.parameters()]


def assert_same_training(model: Any, stock: Any, images: list[Tensor], targets: list[Any], tight: bool) -> None:
    """The same losses and gradients; `tight` for float64, where they differ by rounding alone."""
    got, grads = losses_and_gradients(model, images, targets)
    expected, wanted = losses_and_gradients(stock, images, targets)
    assert list(got) == list(expected)
    for name, loss in got.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-10 if tight else 1e-5, atol=0)
    for mine, theirs in zip(grads, wanted, strict=True):
        assert (mine - theirs).abs().max() <= (1e-9 if tight else 2e-3) * theirs.abs().max()


@pytest.mark.parametrize("name", ["resnet18", "v1", "v2"])
def test_equals_torchvision(device: str, name: str) -> None:
    torch.manual_seed(3)
    stock = torchvision_model(name).to(device)
    model = copy.deepcopy(stock)
    report = patch_torchvision(model)
    assert report.replaced == EVERYTHING and not report.left
    images, targets = images_and_targets(device)
    with torch.no_grad():
        assert_same_detections(model.eval()(images), stock.eval()(images))
    assert_same_training(model, stock, images, targets, tight=False)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"proposal_matcher": Matcher(0.6, 0.3, allow_low_quality_matches=False)},
        {"proposal_matcher": Matcher(0.5, 0.5, allow_low_quality_matches=True)},
        {"head.regression_head.box_coder": BoxCoder((10, 8, 5, 4)), "box_coder": BoxCoder((9, 9, 5, 4))},
        {"score_thresh": 0.3, "nms_thresh": 0.3, "detections_per_img": 20, "topk_candidates": 40},
        *({"head.regression_head._loss_type": name} for name in ("smooth_l1", "giou", "diou", "ciou")),
    ],
    ids=["default", "matcher", "one threshold", "box coder", "post-processing", "smooth_l1", "giou", "diou", "ciou"],
)  # fmt: skip
def test_settings_are_the_users_own(device: str, settings: dict[str, Any]) -> None:
    """In float64, losses to 1e-10 and the same detections. Settings may be changed before and after patching."""
    stock, before, after = (tiny_torchvision().double().to(device) for _ in range(3))
    for path, value in settings.items():
        changed(stock, path, value), changed(before, path, value)
    assert patch_torchvision(before).replaced == patch_torchvision(after).replaced == EVERYTHING
    for path, value in settings.items():
        changed(after, path, value)
    images, targets = tiny_batch(device, torch.float64)
    for model in (before, after):
        assert_same_training(model, stock, images, targets, tight=True)
        with torch.no_grad():
            assert_same_detections(model.eval()(images), stock.eval()(images), least=20)


def test_anchor_generator_with_cells_of_its_own(device: str) -> None:
    """Cell anchors that were set by hand, as after clustering; and set again after the first call."""
    stock, model = tiny_torchvision().to(device), patched().to(device)
    images, targets = tiny_batch(device)
    for scale in (1.0, 1.7, 0.6):
        cells = [scale * level for level in tiny_torchvision().anchor_generator.cell_anchors]
        stock.anchor_generator.cell_anchors, model.anchor_generator.cell_anchors = cells, list(cells)
        assert_same_training(model, stock, images, targets, tight=False)


def test_backbone_with_one_level(device: str) -> None:
    """A backbone may return a tensor instead of a dict."""

    class OneLevel(nn.Conv2d):
        out_channels = 16

    def build() -> Any:
        torch.manual_seed(0)
        from torchvision.models.detection.anchor_utils import AnchorGenerator

        generator = AnchorGenerator(((16, 32),), ((0.5, 1.0),))
        return RetinaNet(OneLevel(3, 16, 8, stride=8), 3, anchor_generator=generator, min_size=64, max_size=96)

    stock, model = build().to(device), build().to(device)
    patch_torchvision(model)
    images, targets = tiny_batch(device)
    assert_same_training(model, stock, images, targets, tight=False)
    with torch.no_grad():
        assert_same_detections(model.eval()(images), stock.eval()(images), least=0)


def test_unpatch_restores_exactly() -> None:
    model = tiny_torchvision()
    images, targets = tiny_batch()
    reference, grads = losses_and_gradients(model, images, targets)

    def picture() -> list[Any]:
        modules = [(name, type(module), sorted(vars(module))) for name, module in model.named_modules()]
        return [modules, [id(p) for p in model.parameters()], list(model.state_dict())]

    before = picture()
    assert str(patch_torchvision(model)) == "replaced: head, loss, post-processing, anchors"
    assert isinstance(model, RetinaNet) and picture()[1:] == before[1:]
    losses_and_gradients(model, images, targets)
    assert str(unpatch_torchvision(model)) == "restored: head, loss, post-processing, anchors"
    assert picture() == before
    again, grads_again = losses_and_gradients(model, images, targets)
    assert all(torch.equal(reference[name], again[name]) for name in reference)
    assert all(map(torch.equal, grads, grads_again))
    assert str(unpatch_torchvision(model)) == "nothing to do"
    assert patch_torchvision(model).replaced == EVERYTHING


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_are_patched_and_separate(how: Any) -> None:
    model = patched()
    images, targets = tiny_batch()
    expected, _ = losses_and_gradients(model, images, targets)
    twin = how(model)
    assert type(twin) is type(model) and twin._retina_ops.anchors is not model._retina_ops.anchors
    unpatch_torchvision(model)
    assert type(twin).__name__ == "FusedRetinaNet" and type(model) is RetinaNet
    got, _ = losses_and_gradients(twin, images, targets)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    unpatch_torchvision(twin)
    assert type(twin) is RetinaNet


def test_pickles_are_read_by_a_fresh_process(tmp_path: Path) -> None:
    model = patched()
    torch.save(model.eval(), tmp_path / "model.pt")
    script = f"""
import sys; sys.path[:0] = {sys.path!r}
import torch
model = torch.load({str(tmp_path / "model.pt")!r}, weights_only=False)
print(type(model).__name__, [sorted(found) for found in model([torch.rand(3, 64, 64)])])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.strip() == "FusedRetinaNet [['boxes', 'labels', 'scores']]", run.stderr[-2000:]


def test_state_dicts_go_both_ways() -> None:
    stock, model = tiny_torchvision(), patched()
    assert list(stock.state_dict()) == list(model.state_dict())
    for parameter in stock.parameters():
        nn.init.normal_(parameter)
    model.load_state_dict(stock.state_dict())
    stock.load_state_dict(model.state_dict())


def test_modes_and_half_way_changes() -> None:
    """Training and evaluation take turns; a learning rate of nothing: the losses stay."""
    stock, model = tiny_torchvision(), patched()
    images, targets = tiny_batch()
    for _ in range(2):
        with torch.inference_mode():
            assert_same_detections(model.eval()(images), stock.eval()(images), least=20)
            assert_same_detections(model(images, targets), stock(images, targets), least=20)
        assert_same_training(model, stock, images, targets, tight=False)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed_data_parallel(one_process: None) -> None:
    model = tiny_torchvision()
    images, targets = tiny_batch()
    expected, grads = losses_and_gradients(model, images, targets)
    patch_torchvision(model)
    got, mine = losses_and_gradients(nn.parallel.DistributedDataParallel(model), images, targets)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=0)
    for a, b in zip(mine, grads, strict=True):
        assert (a - b).abs().max() <= 2e-3 * b.abs().max()


@pytest.mark.parametrize("first", ["patched", "sharded"])
def test_fully_sharded(one_process: None, first: str) -> None:
    """Sharding a head sets hooks on it, which patching would refuse: that comes after patching."""
    model = tiny_torchvision()
    images, targets = tiny_batch()
    expected, _ = losses_and_gradients(model, images, targets)
    if first == "patched":
        patch_torchvision(model)
        fully_shard(model.head.regression_head)
    fully_shard(model)
    if first == "sharded":
        assert patch_torchvision(model).replaced == EVERYTHING
    got, _ = losses_and_gradients(model, images, targets)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=0)


def test_the_head_keeps_its_interface() -> None:
    """Called by itself a patched head gives what torchvision's gives."""
    stock, model = tiny_torchvision(), patched()
    features = [torch.rand(2, 16, 8, 12), torch.rand(2, 16, 4, 6), torch.rand(2, 16, 2, 3)]
    got, expected = model.head(features), stock.head(features)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_mixed_precision_returns_float32(device: str) -> None:
    """Where torchvision rounds anchors and scores to half precision."""
    stock, model = tiny_torchvision().to(device), patched().to(device)
    images, targets = tiny_batch(device)
    with torch.autocast(device, torch.bfloat16):
        losses = model(images, copy.deepcopy(targets))
        with torch.no_grad():
            found, theirs = model.eval()(images), stock.eval()(images)
    exact = stock.train()(images, targets)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.02, atol=0)
    assert {value.dtype for image in found for value in image.values()} == {torch.float32, torch.int64}
    assert theirs[0]["scores"].dtype == torch.bfloat16


GOOD = {"boxes": torch.tensor([[1.0, 2, 30, 40]]), "labels": torch.tensor([0])}
IMAGE = torch.rand(3, 64, 64)


@pytest.mark.parametrize(
    ("images", "targets"),
    [
        ([IMAGE], None),
        ([IMAGE], [{**GOOD, "boxes": [[1, 2, 3, 4]]}]),
        ([IMAGE], [{**GOOD, "boxes": GOOD["boxes"][0]}]),
        ([IMAGE, IMAGE], [GOOD, {**GOOD, "boxes": torch.tensor([[5.0, 5, 5, 9]])}]),
        ([IMAGE[0, 0]], [GOOD]),
    ],
    ids=["no targets", "a list of boxes", "a single box", "a box without area", "a row as image"],
)
def test_errors_are_torchvisions(images: list[Tensor], targets: Any) -> None:
    """Bad targets and images raise what torchvision raises, word for word."""
    messages = []
    for model in (tiny_torchvision(), patched()):
        with pytest.raises(AssertionError) as raised:
            model(images, targets)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("label", [3, 70])
def test_a_label_out_of_range_is_an_index_error(label: int) -> None:
    """As torchvision's, and it names the target."""
    targets = [GOOD, {**GOOD, "labels": torch.tensor([label])}]
    with pytest.raises(IndexError, match=rf"labels of target 1 must be in \[0, 3\), got {label}"):
        patched()([IMAGE, IMAGE], targets)
    with pytest.raises(IndexError):
        tiny_torchvision()([IMAGE, IMAGE], targets)


@pytest.mark.parametrize("labels", [torch.rand(1), torch.tensor([], dtype=torch.int64)], ids=["float", "none"])
def test_labels_that_do_not_fit_are_an_index_error(labels: Tensor) -> None:
    targets = [GOOD, {**GOOD, "labels": labels}]
    with pytest.raises(IndexError, match=r"labels of target 1 must be integers \[1\], got torch"):
        patched()([IMAGE, IMAGE], targets)
    with pytest.raises(IndexError):
        tiny_torchvision()([IMAGE, IMAGE], targets)


@pytest.mark.parametrize("key", ["boxes", "labels"])
def test_a_missing_key_is_torchvisions_error(key: str) -> None:
    for model in (patched(), tiny_torchvision()):
        with pytest.raises(KeyError, match=key):
            model([IMAGE], [{name: value for name, value in GOOD.items() if name != key}])


def test_needs_torchvision_only_where_it_is_used() -> None:
    script = f"""
import sys; sys.path[:0] = {sys.path!r}
import retina_ops
assert not [name for name in sys.modules if name.startswith(("torchvision", "safetensors"))]
sys.modules["torchvision"] = None  # as if it were not installed
try:
    retina_ops.patch_torchvision(None)
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "torchvision" in run.stdout, run.stderr[-2000:]
