"""match_anchors against its definition, torchvision's Matcher, and its own contract."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from boxes import boxes_at_iou, odd_boxes, random_boxes
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou as torchvision_box_iou

from retina_ops import box_iou, match_anchors, reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# (fg, bg): the paper's, equal, wide apart, and those where an IoU of 0 is not background (every pair counts).
THRESHOLDS = ((0.5, 0.4), (0.5, 0.5), (0.9, 0.05), (0.5, 0.0), (0.0, 0.0), (0.3, -1.0), (2.0, 0.4))
# Anchors and boxes: none, one, around a warp of 32, a tile of 64 and a block of 256, and more than a group of 4,096.
SIZES = ((0, 3), (5, 0), (1, 1), (31, 2), (33, 40), (64, 7), (65, 8), (257, 9), (5000, 33))


def case(anchors: int, boxes: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    field = {"width": 300.0, "height": 200.0, "high": 90.0}
    return random_boxes(anchors, device, **field).to(dtype), random_boxes(boxes, device, **field).to(dtype)


def grid_anchors(device: str, height: int = 256, width: int = 320) -> Tensor:
    """A RetinaNet's anchors: five levels, nine a cell."""
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    images = ImageList(torch.zeros(1, 3, height, width, device=device), [(height, width)])
    levels = [torch.zeros(1, 1, -(-height // s), -(-width // s), device=device) for s in (8, 16, 32, 64, 128)]
    return generator(images, levels)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_matches_reference(device: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    anchors, boxes = case(*size, device, dtype)
    for low_quality in (True, False):
        got = match_anchors(anchors, boxes, 0.5, 0.4, low_quality)
        assert got.dtype == torch.int64 and got.shape == (size[0],)
        assert torch.equal(got, reference.match_anchors(anchors, boxes, 0.5, 0.4, low_quality))


@pytest.mark.parametrize("thresholds", THRESHOLDS)
@pytest.mark.parametrize("low_quality", [True, False])
def test_every_threshold(device: str, thresholds: tuple[float, float], low_quality: bool) -> None:
    for rounded in (False, True):  # whole pixels make ties of IoU
        anchors, boxes = case(700, 40, device)
        if rounded:
            anchors, boxes = anchors.round(), boxes.round()
        got = match_anchors(anchors, boxes, *thresholds, low_quality)
        assert torch.equal(got, reference.match_anchors(anchors, boxes, *thresholds, low_quality))


@pytest.mark.parametrize("low_quality", [True, False])
def test_matches_torchvision(device: str, low_quality: bool) -> None:
    anchors = grid_anchors(device)
    for count in (1, 20, 200):
        boxes = random_boxes(count, device, high=150, width=320, height=256)
        quality = torchvision_box_iou(boxes, anchors)
        assert (quality.max(dim=1).values > 0).all()
        expected = Matcher(0.5, 0.4, low_quality)(quality)
        assert torch.equal(match_anchors(anchors, boxes, 0.5, 0.4, low_quality), expected)


def test_a_box_that_overlaps_nothing_matches_nothing(device: str) -> None:
    """torchvision makes every anchor foreground, for the highest IoU of that box is everyone's 0."""
    anchors, _ = case(100, 0, device)
    boxes = torch.tensor([[5000.0, 5000, 5050, 5050]], device=device)
    assert (match_anchors(anchors, boxes) == -1).all()
    assert (Matcher(0.5, 0.4, True)(torchvision_box_iou(boxes, anchors)) == 0).all()


def test_low_quality_anchor_gets_its_own_best_box(device: str) -> None:
    """The anchor attains box 1's highest IoU (0.2), but overlaps box 0 more (0.3): it is foreground for box 0."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 4]], device=device)
    boxes = torch.tensor([[0.0, 0, 10, 3], [0.0, 8, 10, 10]], device=device)
    assert match_anchors(anchors, boxes, 0.9, 0.1).tolist() == [0, 0]


def test_lowest_index_among_equals(device: str) -> None:
    boxes = torch.tensor([[0.0, 0, 8, 8]] * 5, device=device)
    assert match_anchors(boxes[:1].repeat(300, 1), boxes).tolist() == [0] * 300


def test_all_ties_are_foreground(device: str) -> None:
    """A small box inside many equal anchors: each attains its highest IoU, in whatever tile or group it lies."""
    anchors = torch.tensor([[0.0, 0, 32, 32]], device=device).repeat(20_000, 1)
    anchors[7777] += 500
    matches = match_anchors(anchors, torch.tensor([[10.0, 10, 14, 14]], device=device))
    assert matches[7777] == -1 and (matches == 0).sum() == 19_999


@pytest.mark.parametrize("iou", [0.4, 0.5, 1 / 3])
def test_iou_around_the_threshold(device: str, iou: float) -> None:
    pairs = boxes_at_iou(500, iou, device)
    boxes, anchors = pairs[0::2], pairs[1::2]
    own = box_iou(boxes, anchors).diagonal()
    assert (own >= torch.tensor(iou)).any() and (own < torch.tensor(iou)).any()
    for fg, bg in ((iou, 0.1), (0.9, iou)):
        got = match_anchors(anchors, boxes, fg, bg, False)
        assert torch.equal(got, reference.match_anchors(anchors, boxes, fg, bg, False))


@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.5, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odd_boxes(device: str, dtype: torch.dtype, thresholds: tuple[float, float]) -> None:
    """Without area, reversed, huge, tiny, infinite and NaN boxes, as anchors and as boxes; NaN IoU is no overlap."""
    odd = odd_boxes(device).to(dtype)
    anchors, boxes = case(300, 20, device, dtype)
    for a, b in ((odd, boxes), (anchors, odd), (torch.cat([anchors, odd]), torch.cat([odd, boxes]))):
        for low_quality in (True, False):
            got = match_anchors(a, b, *thresholds, low_quality)
            assert torch.equal(got, reference.match_anchors(a, b, *thresholds, low_quality))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ignore_regions(device: str, dtype: torch.dtype) -> None:
    anchors, boxes = case(3000, 12, device, dtype)
    regions = torch.cat([case(0, 4, device, dtype)[1], torch.tensor([[5.0, 5, 5, 9]], device=device).to(dtype)])
    for iof in (0.1, 0.5, 1.0):
        got = match_anchors(anchors, boxes, ignore_regions=regions, ignore_iof=iof)
        expected = reference.match_anchors(anchors, boxes, ignore_regions=regions, ignore_iof=iof)
        assert torch.equal(got, expected)
        plain = match_anchors(anchors, boxes)
        assert torch.equal(got[plain >= 0], plain[plain >= 0])
    assert (match_anchors(anchors, boxes[:0], ignore_regions=regions) == -2).any()


def test_batch_equals_images(device: str) -> None:
    """Images with different numbers of boxes, none among them; anchors shared, one a image, or of different sizes."""
    shared, _ = case(900, 0, device)
    images = [case(0, count, device)[1] for count in (3, 0, 17, 1)]
    regions = [case(0, count, device)[1] for count in (0, 2, 1, 9)]
    own = [case(900, 0, device)[0] for _ in images]
    ragged = [case(100 * i, 0, device)[0] for i in range(4)]
    for anchors in (shared, [shared] * 4, own, torch.stack(own), ragged):
        got = match_anchors(anchors, images, ignore_regions=regions)
        assert len(got) == 4
        for i in range(4):
            mine = shared if anchors is shared else anchors[i]
            assert torch.equal(got[i], match_anchors(mine, images[i], ignore_regions=regions[i]))
    assert match_anchors(shared, []) == []


def test_memory_is_linear() -> None:
    """20,000 anchors by 2,000 boxes: the matrix alone would be 160 MB."""
    anchors, boxes = case(20_000, 2_000, "cpu")
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        match_anchors(anchors, boxes)
    allocated = sum(max(event.cpu_memory_usage, 0) for event in profile.events())
    assert allocated < 8 * (20_000 * 8 + 2_048 * 16)


def test_non_contiguous(device: str) -> None:
    anchors, boxes = case(500, 9, device)
    strided = torch.stack([anchors, anchors], dim=1)[:, 1]
    assert not strided.is_contiguous()
    assert torch.equal(match_anchors(strided, boxes.t().contiguous().t()), match_anchors(anchors, boxes))
    unaligned = torch.cat([torch.zeros(1, device=device), anchors.flatten()])[1:].view(-1, 4)
    assert torch.equal(match_anchors(unaligned, boxes), match_anchors(anchors, boxes))


def test_boxes_of_another_dtype_and_with_grad(device: str) -> None:
    anchors, boxes = case(500, 9, device)
    assert torch.equal(match_anchors(anchors, boxes.double().requires_grad_()), match_anchors(anchors, boxes))


def test_threads_do_not_change_results() -> None:
    anchors, boxes = case(30_000, 50, "cpu")
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(match_anchors(anchors, boxes))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import torch; from boxes import random_boxes, odd_boxes; from retina_ops import match_anchors, reference\n"
        "a, b = torch.cat([random_boxes(5000), odd_boxes()]), torch.cat([odd_boxes(), random_boxes(50)])\n"
        "for bg in (.4, 0.): assert torch.equal(match_anchors(a, b, .5, bg), reference.match_anchors(a, b, .5, bg))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "RETINA_OPS_ISA": isa}, capture_output=True, text=True
    )
    assert run.returncode == 0 or "one that this processor has" in run.stderr, run.stderr


def test_opcheck(device: str) -> None:
    anchors, boxes = case(50, 8, device)
    counts = torch.tensor([8, 3], dtype=torch.int32, device=device)
    padded = torch.stack([boxes, boxes])
    for own in (anchors, torch.stack([anchors, anchors])):
        for regions, region_counts in ((None, None), (padded, counts)):
            arguments = (own, padded, counts, regions, region_counts, 0.5, 0.4, True, 0.5)
            torch.library.opcheck(torch.ops.retina_ops.match_anchors.default, arguments)


def test_compiles_without_recompile(device: str) -> None:
    """Up to eight boxes an image are one padded size."""
    torch._dynamo.reset()
    anchors, _ = case(200, 0, device)

    def positives(padded: Tensor, counts: Tensor) -> Tensor:
        arguments = (anchors, padded, counts, None, None, 0.5, 0.4, True, 0.5)
        return (torch.ops.retina_ops.match_anchors(*arguments)[0] >= 0).sum()

    compiled = torch.compile(positives, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in (3, 8, 0):
            boxes = case(0, 8, device)[1][None]
            counts = torch.tensor([count], dtype=torch.int32, device=device)
            assert compiled(boxes, counts) == positives(boxes, counts)


def test_rejects_bad_options(device: str) -> None:
    anchors, boxes = case(5, 2, device)
    with pytest.raises(ValueError, match=r"bg_iou_thresh must be at most fg_iou_thresh, got 0\.6 and 0\.5"):
        match_anchors(anchors, boxes, 0.5, 0.6)
    with pytest.raises(ValueError, match="ignore_iof must be above 0, got 0"):
        match_anchors(anchors, boxes, ignore_regions=boxes, ignore_iof=0)
    with pytest.raises(ValueError, match="one tensor of anchors an image, got 1 for 2 images"):
        match_anchors([anchors], [boxes, boxes])
    with pytest.raises(ValueError, match="one tensor of ignore_regions an image, got 1 for 2 images"):
        match_anchors(anchors, [boxes, boxes], ignore_regions=[boxes])


def test_rejects_bad_tensors(device: str) -> None:
    anchors, boxes = case(5, 2, device)
    with pytest.raises(RuntimeError, match=r"match_anchors: gt_boxes must be \[M, 4\], got \[2, 3\]"):
        match_anchors(anchors, boxes[:, :3])
    with pytest.raises(RuntimeError, match=r"match_anchors: anchors must be \[A, 4\] or \[1, A, 4\], got \[5, 3\]"):
        match_anchors(anchors[:, :3], boxes)
    with pytest.raises(RuntimeError, match="anchors must be float16, bfloat16, float32 or float64, got int64"):
        match_anchors(anchors.long(), boxes)


def test_rejects_bad_counts_on_cpu() -> None:
    anchors, boxes = case(5, 2, "cpu")
    counts = torch.tensor([3], dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"counts of gt_boxes must be in \[0, 2\], got 3 for image 0"):
        torch.ops.retina_ops.match_anchors(anchors, boxes[None], counts, None, None, 0.5, 0.4, True, 0.5)


def test_rejects_torchscript() -> None:
    with pytest.raises(RuntimeError, match=r"retina_ops\.match_anchors: TorchScript is not supported"):
        torch.jit.script(match_anchors)(*case(3, 1, "cpu"))


def test_counts_foreground(device: str) -> None:
    anchors, boxes = case(5000, 8, device)
    counts = torch.tensor([8, 0, 3], dtype=torch.int32, device=device)
    padded = torch.stack([boxes, boxes, boxes])
    for regions in (None, padded[:, :2]):
        region_counts = None if regions is None else torch.full_like(counts, 2)
        arguments = (anchors, padded, counts, regions, region_counts, 0.5, 0.4, True, 0.5)
        matches, foreground = torch.ops.retina_ops.match_anchors(*arguments)
        assert torch.equal(foreground, (matches >= 0).sum(dim=1)) and foreground[0] > 0
