"""Plants bugs in copies of the real kernels and requires that the kernel tests report each: `make check-all`.

python -m cuda_on_cpu.mutations [NAME...], from the folder tests.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from boxes import random_boxes

from retina_ops import batched_nms, reference

from . import operators as emulated
from .build import CSRC, build
from .device import Device, Report


@dataclass(frozen=True)
class Mutation:
    """One bug: `old` becomes `new`, once, in a file of csrc; `check` must then fail in one of the variants."""

    file: str
    old: str
    new: str
    check: Callable[[Device], None]
    variants: tuple[str, ...] = ("races",)


def focal(device: Device) -> None:
    logits, labels = torch.randn(701, 9), torch.randint(-1, 10, (701,))  # the last pack is not full
    loss = reference.sigmoid_focal_loss(logits.double(), labels, reduction="sum")
    got, grad = emulated.focal_loss_reduced(device, logits, labels)
    assert torch.allclose(got.double(), loss, rtol=1e-5) and grad is not None
    one = emulated.focal_loss(device, logits, labels, order=1)
    assert torch.allclose(one, grad, rtol=1e-5, atol=1e-8)
    value = emulated.focal_loss(device, logits, labels)
    assert torch.allclose(value.double(), reference.sigmoid_focal_loss(logits.double(), labels), rtol=1e-5, atol=1e-8)
    assert emulated.count_labels(device, labels, 9)[0] == (labels != -1).sum() * 9
    assert torch.equal(emulated.scale_gradient(device, logits, 2.0), logits * 2)


def iou(device: Device) -> None:
    first, second = random_boxes(50)[None], random_boxes(519)[None]
    assert torch.equal(emulated.box_iou(device, first, second)[0], reference.box_iou(first[0], second[0]))


def coding(device: Device) -> None:
    boxes, proposals = random_boxes(300), random_boxes(300)
    got = emulated.box_coding(device, "encode", boxes, proposals)[0]
    assert torch.allclose(got, reference.encode_boxes(boxes, proposals), rtol=1e-4, atol=1e-5)


def match(device: Device) -> None:
    anchors, truth = random_boxes(700), [random_boxes(40), random_boxes(3)]
    got = emulated.match_anchors(device, anchors, truth, regions=[random_boxes(5), random_boxes(0)])
    again = emulated.match_anchors(device, anchors, truth)
    for image, boxes in enumerate(truth):
        assert torch.equal(again[image], reference.match_anchors(anchors, boxes))
    assert got.shape == again.shape


def nms(device: Device) -> None:
    for count, classes in ((700, False), (4300, True)):
        boxes, scores = random_boxes(count), torch.rand(count)
        groups = torch.randint(0, 4, (count,)) if classes else None
        kept, number = emulated.nms(device, boxes, scores, 0.3, groups)
        same = groups if groups is not None else torch.zeros(count, dtype=torch.int64)
        assert torch.equal(kept[:number], reference.batched_nms(boxes, scores, same, 0.3))


def nms_of_many(device: Device) -> None:
    """More words of kept boxes than the compacting block has threads."""
    count = 33_000
    boxes, scores, classes = random_boxes(count), torch.rand(count), torch.arange(count) % 1000
    kept, number = emulated.nms(device, boxes, scores, 0.3, classes)
    assert torch.equal(kept[:number], batched_nms(boxes, scores, classes, 0.3))


def misaligned(device: Device) -> None:
    logits, labels = torch.randn(40, 9), torch.randint(0, 9, (40,))
    emulated.focal_loss(device, logits, labels, offset=4)


_BOTH = ("sanitizers", "races")
_FOCAL, _IOU = "focal_loss/focal_loss_kernels.cuh", "box_iou/box_iou_kernels.cuh"
_MATCH, _NMS = "anchor_matching/anchor_matching_kernels.cuh", "nms/nms_kernels.cuh"
_CODING, _VECTOR, _BLOCK = "box_coding/box_coding_kernels.cuh", "common/vector.cuh", "common/block.cuh"
MUTATIONS = {
    "focal elements: past the end": Mutation(_FOCAL, "  if (at >= a.n) return;\n  A x", "  A x", focal, _BOTH),
    "focal: label past the last row": Mutation(
        _FOCAL, "if (at + i < a.n) label = a.targets[row];", "label = a.targets[row];", focal, _BOTH
    ),
    "focal sum: no fence": Mutation(
        _FOCAL, "partial[blockIdx.x] = sum;\n    __threadfence();", "partial[blockIdx.x] = sum;", focal
    ),
    "focal sum: no barrier before is_last": Mutation(
        _FOCAL, "  __syncthreads();\n  if (!is_last) return;", "  if (!is_last) return;", focal
    ),
    "focal sum: counter not atomic": Mutation(
        _FOCAL, "is_last = atomicAdd(done, 1u) == gridDim.x - 1;", "is_last = (*done)++ == gridDim.x - 1;", focal
    ),
    "focal sum: counter not reset": Mutation(_FOCAL, "    *done = 0;\n", "", focal),
    "focal count: reduction reused": Mutation(
        _FOCAL,
        "kept = block_sum<kFocalThreads>(kept);\n  __syncthreads();",
        "kept = block_sum<kFocalThreads>(kept);",
        focal,
    ),
    "focal count: not atomic": Mutation(
        _FOCAL,
        "atomicAdd(counted, kept * static_cast<unsigned long long>(classes));",
        "*counted += kept * static_cast<unsigned long long>(classes);",
        focal,
    ),
    "scale: tail ignored": Mutation(
        _FOCAL,
        "load_pack(grad + at, n - at, aligned, values);",
        "load_pack(grad + at, kPack, aligned, values);",
        focal,
        _BOTH,
    ),
    "block sum: no barrier": Mutation(
        _BLOCK, "  __syncthreads();\n  if (threadIdx.x < kWarpSize) {", "  if (threadIdx.x < kWarpSize) {", focal
    ),
    "block sum: shared memory too small": Mutation(
        _BLOCK, "T[kThreads / 32], partial", "T[kThreads / 64], partial", focal, _BOTH
    ),
    "block sum: a part of the warp": Mutation(
        _BLOCK, "    value += __shfl_down_sync", "    if (threadIdx.x < 40) value += __shfl_down_sync", focal, _BOTH
    ),
    "packs: alignment ignored": Mutation(
        _VECTOR,
        "if (Pack<T, kCount>::kFits && aligned && available >= kCount) {\n    Pack<T, kCount> pack;\n    const",
        "if (Pack<T, kCount>::kFits && (aligned || 1) && available >= kCount) {\n    Pack<T, kCount> pack;\n    const",
        misaligned,
        ("sanitizers",),
    ),
    "packs: tail ignored": Mutation(_VECTOR, "      if (i < available) to[i] = ", "      to[i] = ", focal, _BOTH),
    "iou: no barrier": Mutation(
        _IOU, "  __syncthreads();\n  if (column >= m) return;", "  if (column >= m) return;", iou
    ),
    "iou: past the rows": Mutation(
        _IOU, "if (threadIdx.x < static_cast<unsigned>(count)) {", "if (threadIdx.x < kIouRows) {", iou, _BOTH
    ),
    "iou: all rows of the last tile": Mutation(
        _IOU, "for (int r = 0; r < count; ++r) {", "for (int r = 0; r < kIouRows; ++r) {", iou, _BOTH
    ),
    "coding: past the end": Mutation(_CODING, "  if (i >= a.n) return;\n", "", coding, _BOTH),
    "match: past the anchors": Mutation(
        _MATCH,
        "  if (warp.index < a.anchor_count) {\n    a.matches",
        "  if (true) {\n    a.matches",
        match,
        _BOTH,
    ),
    "match: maximum not atomic": Mutation(
        _MATCH,
        "atomicMax(&a.best[warp.image * a.gt_capacity + index], iou_bits(highest));",
        "auto& best = a.best[warp.image * a.gt_capacity + index];\n"
        "        best = best > iou_bits(highest) ? best : iou_bits(highest);",
        match,
    ),
    "match: vote of a part of the warp": Mutation(
        _MATCH,
        "__any_sync(kFullWarp, !is_foreground(match))",
        "(here && __any_sync(kFullWarp, !is_foreground(match)))",
        match,
        _BOTH,
    ),
    "nms gather: past the end": Mutation(
        _NMS, "  if (i < sorted.n) {\n    const int64_t input", "  {\n    const int64_t input", nms, _BOTH
    ),
    "nms gather: vote of a part of the warp": Mutation(
        _NMS,
        "  bool is_struck = false;\n  if (i < sorted.n) {",
        "  bool is_struck = false;\n  if (i >= sorted.n) return;\n  {",
        nms,
        _BOTH,
    ),
    "nms mask: no barrier": Mutation(
        _NMS, "  __syncthreads();\n  if (row >= sorted.n) return;", "  if (row >= sorted.n) return;", nms
    ),
    "nms mask: past the columns": Mutation(
        _NMS, "  if (column < sorted.n) {\n    columns", "  {\n    columns", nms, _BOTH
    ),
    "nms sweep: no barrier before the walk": Mutation(
        _NMS, "mask[row * kNmsWords + w] : 0;\n    __syncthreads();", "mask[row * kNmsWords + w] : 0;", nms
    ),
    "nms sweep: no barrier after the walk": Mutation(
        _NMS, "    __syncthreads();\n    // Every later word", "    // Every later word", nms
    ),
    "nms sweep: no barrier before the merge": Mutation(
        _NMS, "partial[thread] = strikes;\n    __syncthreads();", "partial[thread] = strikes;", nms
    ),
    "nms suppress: tile overwritten": Mutation(
        _NMS, "    __syncthreads();\n  }\n  const unsigned word", "  }\n  const unsigned word", nms
    ),
    "nms suppress: no barrier": Mutation(
        _NMS,
        "    __syncthreads();\n    for (int i = 0; i < kNmsThreads && !is_struck; ++i) {",
        "    for (int i = 0; i < kNmsThreads && !is_struck; ++i) {",
        nms,
    ),
    "nms scatter: not atomic": Mutation(
        _NMS,
        "atomicOr(&by_score[rank[i] / 32], 1u << (rank[i] % 32));",
        "by_score[rank[i] / 32] |= 1u << (rank[i] % 32);",
        nms,
    ),
    "nms compact: no barrier": Mutation(
        _NMS, "    __syncthreads();\n    int64_t position", "    int64_t position", nms
    ),
    "nms compact: totals overwritten": Mutation(
        _NMS, "    written += total;\n    __syncthreads();", "    written += total;", nms_of_many
    ),
}


# The kernels that each check runs: a program has no others.
PARTS = {
    focal: ["focal_loss"],
    misaligned: ["focal_loss"],
    iou: ["box_iou"],
    coding: ["box_coding"],
    match: ["anchor_matching"],
    nms: ["nms"],
    nms_of_many: ["nms"],
}


def outcome(check: Callable[[Device], None], variant: str, csrc: Path = CSRC) -> str | None:
    """What the check reports of the kernels in `csrc`; None where it finds nothing."""
    program = build(variant, csrc, PARTS[check])
    torch.manual_seed(0)
    try:
        for order, seed in (("forward", 1), ("random", 1)):
            check(Device(program, order, seed))
    except Report as report:
        return next((line for line in str(report).splitlines() if line.strip("= ")), "no output")
    except AssertionError:
        return "a wrong result"
    return None


def planted(mutation: Mutation, variant: str) -> str | None:
    """What the check reports of a copy of the kernels with the bug."""
    with tempfile.TemporaryDirectory() as folder:
        csrc = Path(folder) / "csrc"
        shutil.copytree(CSRC, csrc)
        file = csrc / mutation.file
        text = file.read_text()
        assert text.count(mutation.old) >= 1, f"{mutation.file} no longer has: {mutation.old}"
        file.write_text(text.replace(mutation.old, mutation.new, 1))
        return outcome(mutation.check, variant, csrc)


def main(names: list[str]) -> int:
    chosen = [MUTATIONS[name] for name in names or MUTATIONS]
    for check, variant in dict.fromkeys((m.check, v) for m in chosen for v in m.variants):
        report = outcome(check, variant)
        assert report is None, f"{check.__name__}, {variant}, without any bug: {report}"
    missed = []
    for name in names or MUTATIONS:
        for variant in MUTATIONS[name].variants:
            report = planted(MUTATIONS[name], variant)
            print(f"{'MISSED' if report is None else 'found'}: {name}, {variant}: {str(report)[:200]}", flush=True)
            missed += [f"{name}, {variant}"] if report is None else []
    print(f"{len(missed)} missed" + "".join(f"\n  {name}" for name in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
