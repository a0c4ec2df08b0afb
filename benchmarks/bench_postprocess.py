"""From head outputs to detections: ours, the plain PyTorch reference, torchvision's RetinaNet.

torchvision's row begins where ours does, at the maps that the convolutions give: its permute and cat are in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from cases import image_anchors
from harness import assert_close, measure
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.retinanet import RetinaNet

from retina_ops import postprocess, reference

IMAGE = (800, 1088)
CLASSES, PER_CELL = 91, 9
KINDS = ("trained", "dense", "ascending")
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Settings:
    """What `RetinaNet.postprocess_detections` reads of its model."""

    score_thresh: float = 0.05
    nms_thresh: float = 0.5
    detections_per_img: int = 300
    topk_candidates: int = 1000
    box_coder: BoxCoder = BoxCoder((1.0, 1.0, 1.0, 1.0))  # noqa: RUF009


def rows_of(level: Tensor, values: int) -> Tensor:
    batch, _, height, width = level.shape
    return level.view(batch, -1, values, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, values)


def torchvision(logits: list[Tensor], deltas: list[Tensor], anchors: Tensor, sizes: list) -> list[dict[str, Tensor]]:
    anchors_of = [level.shape[2] * level.shape[3] * PER_CELL for level in logits]
    all_logits = torch.cat([rows_of(level, CLASSES) for level in logits], dim=1)
    all_deltas = torch.cat([rows_of(level, 4) for level in deltas], dim=1)
    outputs = {
        "cls_logits": list(all_logits.split(anchors_of, dim=1)),
        "bbox_regression": list(all_deltas.split(anchors_of, dim=1)),
    }
    levels = [list(anchors.split(anchors_of))] * len(sizes)
    return RetinaNet.postprocess_detections(Settings(), outputs, levels, sizes)  # type: ignore[arg-type]


FUNCTIONS = {"retina_ops": postprocess, "reference": reference.postprocess, "torchvision": torchvision}


def head_outputs(batch: int, kind: str, layout: str, dtype: torch.dtype, device: str) -> tuple[list, list]:
    """P3 to P7. trained: a prior of 0.01, and one confident score in 16 cells; dense: most scores above the threshold;
    ascending: the same in the order in memory that is worst for keeping the best so far."""
    logits, deltas = [], []
    for stride in (8, 16, 32, 64, 128):
        height, width = -(-IMAGE[0] // stride), -(-IMAGE[1] // stride)
        maps = torch.randn(batch, PER_CELL * CLASSES, height, width, device=device)
        if kind == "trained":
            maps = maps * 0.5 - 4.6
            confident = torch.randint(maps.numel(), (batch * max(8, height * width // 16),), device=device)
            maps.view(-1)[confident] = torch.randn(len(confident), device=device) * 1.5
        elif kind == "dense":
            maps = maps * 2
        else:
            maps = torch.linspace(-3, 6, maps.numel(), device=device).view_as(maps)
        spread = torch.randn(batch, PER_CELL * 4, height, width, device=device) * 0.3
        logits.append(maps.to(dtype).to(memory_format=LAYOUTS[layout]))
        deltas.append(spread.to(dtype).to(memory_format=LAYOUTS[layout]))
    return logits, deltas


@pytest.mark.parametrize("row", FUNCTIONS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", (2, 8))
def bench_postprocess(benchmark, device: str, batch, kind, layout, dtype, row: str, full: bool) -> None:
    usual = kind == "trained" and dtype == torch.float32 and layout == "nchw"
    if batch != (2 if device == "cpu" else 8):
        pytest.skip("2 images on a CPU, 8 on a GPU")
    if row == "torchvision" and dtype != torch.float32:
        pytest.skip("torchvision's nms takes no bfloat16")
    ours_alone = row == "retina_ops" and kind == "dense" and layout == "nchw"
    if not full and (not (usual or ours_alone) or row == "reference"):
        pytest.skip("--full")
    if row == "reference" and kind != "trained":
        pytest.skip("its suppression takes minutes")
    logits, deltas = head_outputs(batch, kind, layout, dtype, device)
    anchors = image_anchors(*IMAGE, device)
    sizes = [(IMAGE[0], IMAGE[1] - 8 * i) for i in range(batch)]

    def verify() -> None:
        """Scores agree; torchvision leaves the order of equal ones open, and moves classes apart or not by size."""
        boxes, scores, labels, counts = postprocess(logits, deltas, anchors, sizes)
        if row == "reference":
            expected = reference.postprocess(logits, deltas, anchors, sizes)
            assert torch.equal(counts, expected[3]) and torch.equal(labels, expected[2])
            assert_close(boxes, expected[0], 1e-4, 1e-2)
        elif row == "torchvision" and kind != "ascending":
            for image, found in enumerate(torchvision(logits, deltas, anchors, sizes)):
                assert int(counts[image]) == len(found["scores"])
                assert_close(scores[image, : len(found["scores"])], found["scores"], 1e-6)

    benchmark.group = f"postprocess, {batch} images, {kind}, {layout}, {str(dtype).removeprefix('torch.')}, {device}"
    logit_bytes = sum(level.numel() * level.element_size() for level in logits)
    measure(
        benchmark,
        device,
        lambda: FUNCTIONS[row](logits, deltas, anchors, sizes),
        operator=f"postprocess, {kind}",
        size=sum(level.numel() for level in logits),
        moved=logit_bytes,
        tensor_bytes=logit_bytes,
        verify=verify,
    )
