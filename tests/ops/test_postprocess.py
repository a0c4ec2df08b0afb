"""postprocess: every path of the selection, ties, odd values, CUDA graphs, and what the contracts do not ask."""

from __future__ import annotations

import pytest
import torch
from inputs.heads import Maps, channels_last, head_outputs
from torch import Tensor

from retina_ops import batched_nms, postprocess, reference
from retina_ops.ops._head_outputs import as_levels

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
IMAGES = [(70, 90), (60, 96)]
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


def same(got: Outputs, expected: Outputs) -> None:
    """Labels, counts and float32 scores are equal. float64 scores are within 4 ulps of the C library's. Boxes hold an
    exponential of our own: far from the origin a few ulps of it are left."""
    boxes, scores, labels, counts = got
    assert labels.dtype == torch.int64 and counts.dtype == torch.int64
    assert torch.equal(counts, expected[3])
    assert torch.equal(labels, expected[2])
    torch.testing.assert_close(scores, expected[1], rtol=1e-15 if scores.dtype == torch.float64 else 0, atol=1e-300)
    wide = boxes.dtype == torch.float64
    torch.testing.assert_close(boxes, expected[0], rtol=1e-12 if wide else 1e-5, atol=1e-9 if wide else 1e-4)


def check(maps: Maps, sizes: object = IMAGES, **options: object) -> Tensor:
    got = postprocess(*maps, sizes, **options)  # type: ignore[arg-type]
    same(got, reference.postprocess(*maps, sizes, **options))  # type: ignore[arg-type]
    return got[3]


def far_apart(count: int, device: str) -> Tensor:
    """Boxes in a row, none of which touches another."""
    left = torch.arange(count, device=device)[:, None] * 20.0
    return torch.cat([left, 0 * left, left + 10, 0 * left + 10], dim=1)


def test_dtypes_of_boxes(device: str) -> None:
    """float32, unless the anchors or the deltas are float64."""
    for dtype, delta_dtype, anchor_dtype in (
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float32, torch.float16, torch.float16),
        (torch.float16, torch.float64, torch.float32),
        (torch.float64, torch.bfloat16, torch.float32),
        (torch.float32, torch.float32, torch.float64),
    ):
        logits, deltas, anchors = head_outputs(2, 3, dtype=dtype, delta_dtype=delta_dtype, device=device)
        check((logits, deltas, anchors.to(anchor_dtype)))
        boxes, scores, _, _ = postprocess(logits, deltas, anchors.to(anchor_dtype), IMAGES)
        assert boxes.dtype == (torch.float64 if torch.float64 in (delta_dtype, anchor_dtype) else torch.float32)
        assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("kind", ["dense", "ties", "constant", "ascending", "descending"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_selection_of_large_levels(device: str, dtype: torch.dtype, kind: str) -> None:
    """Several strips and chunks; far more candidates than a buffer holds; the best come first, last or anywhere."""
    made = "dense" if "scending" in kind else kind
    logits, deltas, anchors = head_outputs(1, 21, sizes=((70, 71), (2, 3)), kind=made, dtype=dtype, device=device)
    if made != kind:
        count = logits[0].numel()
        rising = torch.linspace(-3, 9, count, dtype=torch.float64, device=device).to(dtype)
        logits[0] = (rising if kind == "ascending" else rising.flip(0)).reshape(logits[0].shape)
    for topk in (300, 1500):
        for layout in (list, channels_last):
            check((layout(logits), deltas, anchors), IMAGES[:1], topk_candidates=topk)


def test_ties_go_by_level_row_column_anchor_and_class(device: str) -> None:
    """Far boxes and equal scores: all are kept, in the order of their places."""
    logits, deltas, _ = head_outputs(1, 3, per_cell=2, sizes=((4, 5), (2, 2)), kind="constant", device=device)
    count = 48
    anchors = far_apart(count, device)
    flat = [level * 0 for level in deltas]
    for layout in (list, channels_last):
        boxes, scores, labels, counts = postprocess(
            layout(logits), layout(flat), anchors, [(1000, 1000)], detections_per_img=144
        )
        assert int(counts[0]) == 144 and scores.unique().numel() == 1
        assert torch.equal(labels[0], torch.arange(144, device=device) % 3)
        assert torch.equal(boxes[0, :, 0], anchors[torch.arange(144, device=device) // 3, 0].clamp(max=1000))


def test_threshold_is_strict(device: str) -> None:
    """A score of exactly the threshold, as float32 rounds it, is dropped; the next float above it is not."""
    logits = torch.linspace(-5, 5, 1201, device=device).reshape(1, -1, 1)
    deltas = torch.zeros(1, 1201, 4, device=device)
    anchors = far_apart(1201, device)
    scores = torch.sigmoid(logits.double()).float().flatten()
    for at in range(0, 1201, 100):
        threshold = float(scores[at])
        below = float(torch.nextafter(scores[at], scores.new_tensor(0.0)))
        for value, number in ((threshold, 1200 - at), (below, 1201 - at)):
            found = postprocess([logits], [deltas], anchors, [(9e9, 9e9)], score_thresh=value, topk_candidates=2000,
                                detections_per_img=2000)  # fmt: skip
            assert int(found[3][0]) == number


def test_thresholds_of_any_value(device: str) -> None:
    """Under 0 everything passes but NaN, infinities too; from 1 on, and for NaN, nothing does."""
    maps = head_outputs(2, 3, kind="ties", device=device)
    maps[0][0][0, 0, 0, 0] = -float("inf")
    for threshold in (-1.0, 0.0, 1e-30, 0.999999, 1.0, float("nan"), float("inf"), -float("inf")):
        counts = check(maps, score_thresh=threshold, topk_candidates=500, detections_per_img=2000, nms_thresh=1.0)
        assert (counts.sum() == 0) == (not threshold < 1.0)
    for threshold in (-0.5, 0.0, 1.0, float("nan")):
        check(maps, nms_thresh=threshold)


def test_nan_is_no_detection(device: str) -> None:
    logits, deltas, anchors = head_outputs(2, 3, device=device)
    for level in logits:
        level[0] = float("nan")
    assert check((logits, deltas, anchors)).tolist()[0] == 0
    for level in deltas:  # boxes without overlap: NaN coordinates suppress nothing
        level[1, 2] = float("nan")
    got = postprocess(logits, deltas, anchors, IMAGES)
    expected = reference.postprocess(logits, deltas, anchors, IMAGES)
    assert torch.equal(got[2], expected[2]) and got[0].isnan().any()


def test_boxes_are_clipped_to_their_image(device: str) -> None:
    logits, deltas, anchors = head_outputs(2, 3, device=device)
    wild = [level * 20 for level in deltas]  # sizes past the limit too
    boxes, _, _, counts = postprocess(logits, wild, anchors, [(30, 40), (50, 20)])
    assert counts.min() > 0 and boxes.min() >= 0
    for image, (height, width) in enumerate([(30, 40), (50, 20)]):
        assert boxes[image, :, 0::2].max() == width and boxes[image, :, 1::2].max() == height
    check((logits, wild, anchors), [(30, 40), (50, 20)], nms_thresh=0.9)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float64])
def test_image_sizes_as_a_tensor(device: str, dtype: torch.dtype) -> None:
    maps = head_outputs(2, 3, device=device)
    sizes = torch.tensor(IMAGES, device=device).to(dtype)
    for left, right in zip(postprocess(*maps, sizes), postprocess(*maps, IMAGES), strict=True):
        assert torch.equal(left, right)
    check(maps, sizes)


def test_greedy_property(device: str) -> None:
    """NMS over the outputs of an NMS keeps them all; scores descend; padding is as documented."""
    maps = head_outputs(2, 4, kind="dense", device=device)
    boxes, scores, labels, counts = postprocess(*maps, IMAGES, detections_per_img=200)
    for image, count in enumerate(counts.tolist()):
        assert 20 < count <= 200
        kept = batched_nms(boxes[image, :count], scores[image, :count], labels[image, :count], 0.5)
        assert torch.equal(kept, torch.arange(count, device=device))
        assert (scores[image, :count].diff() <= 0).all() and (scores[image, :count] > 0.05).all()
        assert (boxes[image, count:] == 0).all() and (scores[image, count:] == 0).all()
        assert (labels[image, count:] == -1).all()


def test_batch_equals_images(device: str) -> None:
    logits, deltas, anchors = head_outputs(3, 5, device=device)
    sizes = [*IMAGES, (33, 44)]
    whole = postprocess(logits, deltas, anchors, sizes)
    for i in range(3):
        alone = postprocess([t[i : i + 1] for t in logits], [t[i : i + 1] for t in deltas], anchors, sizes[i : i + 1])
        for left, right in zip(alone, whole, strict=True):
            assert torch.equal(left[0], right[i])


@pytest.mark.parametrize("kind", ["trained", "ties"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_give_the_same_bits(device: str, dtype: torch.dtype, kind: str) -> None:
    """Planar, channels-last, one of each, and levels by anchor."""
    logits, deltas, anchors = head_outputs(2, 7, kind=kind, dtype=dtype, device=device)
    expected = postprocess(logits, deltas, anchors, IMAGES)
    assert expected[3].min() > 20
    for levels in (
        (channels_last(logits), channels_last(deltas)),
        (channels_last(logits), deltas),
        reference.head_outputs.by_anchor(logits, deltas),
    ):
        for left, right in zip(postprocess(*levels, anchors, IMAGES), expected, strict=True):
            assert torch.equal(left, right)


# --- CUDA graphs, errors ----------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_replays_in_a_cuda_graph(dtype: torch.dtype) -> None:
    """A capture fails on any host synchronisation; replays read new logits, deltas and image sizes."""
    logits, deltas, anchors = head_outputs(2, 5, dtype=dtype, device="cuda")
    sizes = torch.tensor(IMAGES, device="cuda")
    postprocess(logits, deltas, anchors, sizes)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = postprocess(logits, deltas, anchors, sizes)
    for kind in ("trained", "dense", "constant"):
        new: Maps = head_outputs(2, 5, kind=kind, dtype=dtype, device="cuda")
        for captured, fresh in zip([*logits, *deltas], [*new[0], *new[1]], strict=True):
            captured.copy_(fresh)
        sizes.copy_(torch.randint(20, 90, (2, 2)))
        graph.replay()
        for left, right in zip(outputs, postprocess(logits, deltas, anchors, sizes), strict=True):
            assert torch.equal(left, right)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_does_not_synchronise() -> None:
    """Neither with sizes on the device nor with a list, which is copied from pinned memory."""
    maps = head_outputs(2, 5, device="cuda")
    sizes = torch.tensor(IMAGES, device="cuda")
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for image_sizes in (sizes, IMAGES):
            postprocess(*maps, image_sizes)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_operator_rejects_dtypes(device: str) -> None:
    logits, deltas, anchors = head_outputs(2, 3, device=device)
    sizes = torch.tensor(IMAGES, device=device)
    operator = torch.ops.retina_ops.postprocess
    for bad, message in (
        ((anchors.half(), sizes.half()), "anchors must be float32, or float64 as bbox_regression, got float16"),
        ((anchors, sizes), "image_sizes must be on the device of anchors, float32, got int64"),
    ):
        with pytest.raises(RuntimeError, match=message):
            operator(*as_levels("postprocess", logits, deltas), *bad, 0.05, 10, 0.5, 10, 1.0, 1.0, 1.0, 1.0)


def test_rejects_too_large_topk(device: str) -> None:
    """On CUDA one block sorts a level's candidates."""
    if device != "cuda":
        pytest.skip("of CUDA alone")
    maps = head_outputs(1, 91, per_cell=9, sizes=((20, 20),), device=device)
    with pytest.raises(RuntimeError, match="postprocess: topk_candidates must be at most 65536 on CUDA, got 65537"):
        postprocess(*maps, IMAGES[:1], topk_candidates=65537)
    assert int(postprocess(*maps, IMAGES[:1], topk_candidates=65536)[3][0]) > 0
