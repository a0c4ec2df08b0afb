"""match_anchors: torchvision's results, and what the contracts do not ask."""

from __future__ import annotations

import pytest
import torch
from inputs.boxes import odd_boxes, random_boxes
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou as torchvision_box_iou

from retina_ops import match_anchors, reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def case(anchors: int, boxes: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    field = {"width": 300.0, "height": 200.0, "high": 90.0}
    return random_boxes(anchors, device, **field).to(dtype), random_boxes(boxes, device, **field).to(dtype)


def grid_anchors(device: str, height: int = 256, width: int = 320) -> Tensor:
    """A RetinaNet's anchors: five levels, nine per cell."""
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    images = ImageList(torch.zeros(1, 3, height, width, device=device), [(height, width)])
    levels = [torch.zeros(1, 1, -(-height // s), -(-width // s), device=device) for s in (8, 16, 32, 64, 128)]
    return generator(images, levels)[0]


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
    """torchvision makes every anchor foreground: the highest IoU of that box is 0, and every anchor has it."""
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
    """A small box inside many equal anchors: each has its highest IoU, whatever tile or group it is in."""
    anchors = torch.tensor([[0.0, 0, 32, 32]], device=device).repeat(20_000, 1)
    anchors[7777] += 500
    matches = match_anchors(anchors, torch.tensor([[10.0, 10, 14, 14]], device=device))
    assert matches[7777] == -1 and (matches == 0).sum() == 19_999


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
def test_ignore_regions_leave_foreground_alone(device: str, dtype: torch.dtype) -> None:
    anchors, boxes = case(3000, 12, device, dtype)
    regions = torch.cat([case(0, 4, device, dtype)[1], torch.tensor([[5.0, 5, 5, 9]], device=device).to(dtype)])
    for iof in (0.1, 0.5, 1.0):
        got = match_anchors(anchors, boxes, ignore_regions=regions, ignore_iof=iof)
        plain = match_anchors(anchors, boxes)
        assert torch.equal(got[plain >= 0], plain[plain >= 0])
    assert (match_anchors(anchors, boxes[:0], ignore_regions=regions) == -2).any()


def test_batch_equals_images(device: str) -> None:
    """Images with different numbers of boxes, 0 too; anchors shared, of each image, or of images of different sizes."""
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


def test_boxes_of_another_dtype_that_require_grad(device: str) -> None:
    anchors, boxes = case(500, 9, device)
    assert torch.equal(match_anchors(anchors, boxes.double().requires_grad_()), match_anchors(anchors, boxes))


def test_compiles_once_for_up_to_eight_boxes(device: str) -> None:
    """Up to eight boxes per image are padded to one size."""
    torch._dynamo.reset()
    anchors, _ = case(200, 0, device)

    def positives(padded: Tensor, counts: Tensor) -> Tensor:
        arguments = (anchors, padded, counts, None, None, 0.5, 0.4, True, 0.5, 0.0)
        return (torch.ops.retina_ops.match_anchors(*arguments)[0] >= 0).sum()

    compiled = torch.compile(positives, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in (3, 8, 0):
            boxes = case(0, 8, device)[1][None]
            counts = torch.tensor([count], dtype=torch.int32, device=device)
            assert compiled(boxes, counts) == positives(boxes, counts)


def test_rejects_bad_counts_on_cpu() -> None:
    anchors, boxes = case(5, 2, "cpu")
    counts = torch.tensor([3], dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"counts of gt_boxes must be in \[0, 2\], got 3 for image 0"):
        torch.ops.retina_ops.match_anchors(anchors, boxes[None], counts, None, None, 0.5, 0.4, True, 0.5, 0.0)


def test_counts_foreground(device: str) -> None:
    anchors, boxes = case(5000, 8, device)
    counts = torch.tensor([8, 0, 3], dtype=torch.int32, device=device)
    padded = torch.stack([boxes, boxes, boxes])
    for regions in (None, padded[:, :2]):
        region_counts = None if regions is None else torch.full_like(counts, 2)
        arguments = (anchors, padded, counts, regions, region_counts, 0.5, 0.4, True, 0.5, 0.0)
        matches, foreground = torch.ops.retina_ops.match_anchors(*arguments)
        assert torch.equal(foreground, (matches >= 0).sum(dim=1)) and foreground[0] > 0


def test_integer_boxes_are_not_rounded_to_half(device: str) -> None:
    anchors = torch.tensor([[2048.0, 0, 2050, 2]], device=device).half()
    boxes = torch.tensor([[2047, 0, 2049, 2]], device=device)
    assert match_anchors(anchors, boxes, 0.3, 0.3, False).tolist() == [0]


# --- a matrix of IoUs, and mmdet's options ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low_quality", [True, False])
def test_a_matrix_of_ious(device: str, dtype: torch.dtype, low_quality: bool) -> None:
    """The matches are those of the boxes; torchvision's Matcher takes the same matrix."""
    anchors, boxes = case(500, 30, device, dtype)
    matrix = torchvision_box_iou(boxes, anchors)
    got = match_anchors(iou=matrix, allow_low_quality_matches=low_quality)
    assert torch.equal(got, match_anchors(anchors, boxes, allow_low_quality_matches=low_quality))
    if (matrix.max(dim=1).values > 0).all():
        assert torch.equal(got, Matcher(0.5, 0.4, low_quality)(matrix))


def test_matrices_of_a_batch_and_empty_ones(device: str) -> None:
    matrices = [torch.rand(3, 7, device=device), torch.rand(0, 4, device=device), torch.rand(2, 0, device=device)]
    found = match_anchors(iou=matrices)
    assert [each.tolist() for each in found[1:]] == [[-1] * 4, []]
    assert torch.equal(found[0], match_anchors(iou=matrices[0])) and found[1].dtype == torch.int64
    giou = torch.tensor([[-0.5, 0.6, 0.45]], device=device)  # any measure will do
    assert match_anchors(None, None, 0.5, 0.4, iou=giou).tolist() == [-1, 0, -2]


def assigned_as_by_mmdet(iou: Tensor, pos: float, neg: float, min_pos: float) -> Tensor:
    """MaxIoUAssigner written out, with torchvision's choice of the box of a low-quality match: the anchor's best."""
    best, index = iou.max(dim=0)
    assigned = torch.full((iou.shape[1],), -2)
    assigned[best < neg] = -1
    assigned[best >= pos] = index[best >= pos]
    for row in iou:
        if row.max() >= min_pos and row.max() > 0:
            attains = row == row.max()
            assigned[attains] = index[attains]
    return assigned


@pytest.mark.parametrize("min_pos_iou", [0.0, 0.2, 0.45, 0.6])
def test_min_pos_iou_is_mmdets(min_pos_iou: float) -> None:
    anchors, boxes = case(400, 60, "cpu")
    expected = assigned_as_by_mmdet(torchvision_box_iou(boxes, anchors), 0.7, 0.3, min_pos_iou)
    assert torch.equal(match_anchors(anchors, boxes, 0.7, 0.3, min_pos_iou=min_pos_iou), expected)
    assert torch.equal(
        match_anchors(iou=torchvision_box_iou(boxes, anchors), fg_iou_thresh=0.7, bg_iou_thresh=0.3,
                      min_pos_iou=min_pos_iou),
        expected,
    )  # fmt: skip
    fewer = (expected >= 0).sum() < (match_anchors(anchors, boxes, 0.7, 0.3) >= 0).sum()
    assert bool(fewer) == (min_pos_iou > 0.2) or min_pos_iou == 0.2
