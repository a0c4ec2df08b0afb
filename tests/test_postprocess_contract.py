"""postprocess as an operator: tracing, compiling, CUDA graphs, gradients, errors."""

from __future__ import annotations

import pytest
import torch
from heads import Maps, channels_last, head_outputs
from torch import Tensor

from retina_ops import postprocess
from retina_ops.ops._head_outputs import as_levels

IMAGES = [(70, 90), (60, 96)]


def test_opcheck(device: str) -> None:
    for dtype, layout in ((torch.float32, list), (torch.bfloat16, channels_last), (torch.float64, list)):
        cls_logits, bbox_regression, anchors = head_outputs(2, 3, dtype=dtype, device=device)
        logits, deltas = as_levels("postprocess", layout(cls_logits), layout(bbox_regression))
        box_dtype = torch.promote_types(dtype, torch.float32)
        sizes = torch.tensor(IMAGES, dtype=box_dtype, device=device)
        options = (0.05, 100, 0.5, 30, 1.0, 1.0, 1.0, 1.0)
        torch.library.opcheck(
            torch.ops.retina_ops.postprocess.default, (logits, deltas, anchors.to(box_dtype), sizes, *options)
        )


def test_compiles_without_recompile(device: str) -> None:
    torch._dynamo.reset()

    def detect(logits: list[Tensor], deltas: list[Tensor], anchors: Tensor, sizes: Tensor) -> Tensor:
        boxes, scores, labels, counts = postprocess(logits, deltas, anchors, sizes, detections_per_img=20)
        return boxes.sum(dim=(1, 2)) + scores.sum(dim=1) + labels.sum(dim=1) + counts

    compiled = torch.compile(detect, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for height in (70, 60, 50):
            maps = head_outputs(2, 3, device=device)
            sizes = torch.tensor([(height, 90), (60, height)], device=device)
            torch.testing.assert_close(compiled(*maps, sizes), detect(*maps, sizes))


def test_compiles_with_sizes_of_a_tracer(device: str) -> None:
    """dynamic=True: heights and widths are symbols."""
    torch._dynamo.reset()
    compiled = torch.compile(postprocess, fullgraph=True, dynamic=True, backend="aot_eager")
    for sizes in ([(12, 9), (6, 5)], [(10, 11), (5, 7)]):
        maps = head_outputs(2, 3, sizes=sizes, device=device)
        for left, right in zip(compiled(*maps, IMAGES), postprocess(*maps, IMAGES), strict=True):
            assert torch.equal(left, right)


def test_compiles_with_sizes_as_numbers(device: str) -> None:
    torch._dynamo.reset()
    maps = head_outputs(2, 3, device=device)
    compiled = torch.compile(postprocess, fullgraph=True, backend="aot_eager")
    for left, right in zip(compiled(*maps, IMAGES), postprocess(*maps, IMAGES), strict=True):
        assert torch.equal(left, right)


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


def test_takes_no_gradient(device: str) -> None:
    logits, deltas, anchors = head_outputs(2, 3, device=device)
    logits, deltas = ([level.requires_grad_() for level in levels] for levels in (logits, deltas))
    outputs = postprocess(logits, deltas, anchors.requires_grad_(), IMAGES)
    assert not any(output.requires_grad for output in outputs)


def test_rejects_bad_options(device: str) -> None:
    maps = head_outputs(2, 3, device=device)
    with pytest.raises(ValueError, match="topk_candidates must be at least 0, got -1"):
        postprocess(*maps, IMAGES, topk_candidates=-1)
    with pytest.raises(ValueError, match="detections_per_img must be at least 0, got -5"):
        postprocess(*maps, IMAGES, detections_per_img=-5)
    with pytest.raises(ValueError, match=r"bbox_reg_weights must be four numbers \(wx, wy, ww, wh\), got 3"):
        postprocess(*maps, IMAGES, bbox_reg_weights=(1, 1, 1))
    with pytest.raises(RuntimeError, match="postprocess: bbox_reg_weights must be finite and not 0, got 0"):
        postprocess(*maps, IMAGES, bbox_reg_weights=(1, 1, 0, 1))


def test_rejects_bad_levels(device: str) -> None:
    logits, deltas, anchors = head_outputs(2, 3, device=device)
    with pytest.raises(RuntimeError, match="postprocess: cls_logits and bbox_regression must be lists"):
        postprocess(logits[0], deltas, anchors, IMAGES)
    with pytest.raises(RuntimeError, match="must have the same levels, at least one, got 4 and 3"):
        postprocess(logits, deltas[:3], anchors, IMAGES)
    with pytest.raises(RuntimeError, match=r"postprocess: level 0 must be cls_logits .* got \[2, 9, 12, 9\]"):
        postprocess(logits, [level[:, :7] for level in deltas], anchors, IMAGES)
    with pytest.raises(RuntimeError, match=r"postprocess: cls_logits must be float16, .* got int64"):
        postprocess([level.long() for level in logits], deltas, anchors, IMAGES)
    with pytest.raises(RuntimeError, match="the levels of cls_logits must have one dtype and device, got float32"):
        postprocess([logits[0], *(level.double() for level in logits[1:])], deltas, anchors, IMAGES)
    with pytest.raises(RuntimeError, match="level 0 has 324 anchors in cls_logits and 297 in bbox_regression"):
        postprocess(logits, [level[:, :, :11] if i == 0 else level for i, level in enumerate(deltas)], anchors, IMAGES)
    many = [torch.zeros(1, 1, 1, device=device)] * 9
    with pytest.raises(RuntimeError, match="postprocess: cls_logits must have 1 to 8 levels, got 9"):
        postprocess(many, [torch.zeros(1, 1, 4, device=device)] * 9, torch.zeros(9, 4, device=device), [(4, 4)])


def test_rejects_bad_anchors_and_sizes(device: str) -> None:
    logits, deltas, anchors = head_outputs(2, 3, device=device)
    with pytest.raises(RuntimeError, match=r"postprocess: anchors must be \[\d+, 4\], got \[7, 4\]"):
        postprocess(logits, deltas, anchors[:7], IMAGES)
    with pytest.raises(RuntimeError, match=r"postprocess: image_sizes must be \[2, 2\], got \[1, 2\]"):
        postprocess(logits, deltas, anchors, IMAGES[:1])
    with pytest.raises(RuntimeError, match=r"postprocess: image_sizes must be \[2, 2\], got \[2, 3\]"):
        postprocess(logits, deltas, anchors, torch.zeros(2, 3, device=device))
    with pytest.raises(ValueError, match=r"image_sizes must be \(height, width\) of each image"):
        postprocess(logits, deltas, anchors, [(1, 2, 3), (4, 5)])  # type: ignore[list-item]
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


def test_rejects_torchscript() -> None:
    with pytest.raises(RuntimeError, match=r"retina_ops\.postprocess: TorchScript is not supported"):
        torch.jit.script(postprocess)(*head_outputs(1, 1), IMAGES[:1])
