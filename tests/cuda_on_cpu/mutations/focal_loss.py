"""Bugs in the kernels of focal_loss/."""

from __future__ import annotations

import torch

from retina_ops import reference

from .. import operators as emulated
from ..device import Device
from .plan import BOTH, Mutation


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


def rows_of_a_few_classes(device: Device) -> None:
    """Rows of fewer classes than a pack, and packs that end in another row than they begin in."""
    for rows, classes in ((301, 3), (1301, 13)):
        logits, labels = torch.randn(rows, classes), torch.randint(-1, classes + 1, (rows,))
        labels[-1] = 0
        got, grad = emulated.focal_loss_reduced(device, logits, labels)
        loss = reference.sigmoid_focal_loss(logits.double(), labels, reduction="sum")
        assert torch.allclose(got.double(), loss, rtol=1e-5) and grad is not None
        one = emulated.focal_loss(device, logits, labels, order=1)
        assert torch.allclose(one, grad, rtol=1e-5, atol=1e-8)


def misaligned(device: Device) -> None:
    logits, labels = torch.randn(40, 9), torch.randint(0, 9, (40,))
    emulated.focal_loss(device, logits, labels, offset=4)


_FOCAL = "focal_loss/focal_loss_kernels.cuh"
_PACK = "focal_loss/focal_loss_pack.cuh"
_VECTOR = "common/vector.cuh"
_BLOCK = "common/block.cuh"
MUTATIONS = {
    "focal elements: past the end": Mutation(
        "focal_loss", _FOCAL, "  if (at >= a.n) return;\n  A x", "  A x", focal, BOTH
    ),
    "focal: label past the last row": Mutation(
        "focal_loss",
        _FOCAL,
        "if (at + i < a.n) label = a.targets[row];",
        "label = a.targets[row];",
        rows_of_a_few_classes,
        BOTH,
    ),
    "focal rows: label past the last row": Mutation(
        "focal_loss",
        _FOCAL,
        "kPack && cursor.row + 1 < rows ?",
        "kPack && cursor.row < rows ?",
        rows_of_a_few_classes,
        BOTH,
    ),
    "focal rows: the last pack's next label": Mutation(
        "focal_loss", _FOCAL, "if (here + left < a.n) targets.add", "targets.add", rows_of_a_few_classes, BOTH
    ),
    "focal rows: past the end": Mutation(
        "focal_loss",
        _FOCAL,
        "if (a.n - here < kPack) targets.ignore_from",
        "if (false) targets.ignore_from",
        rows_of_a_few_classes,
        BOTH,
    ),
    "focal rows: the next row's column": Mutation(
        "focal_loss", _PACK, "      column -= classes;\n", "", rows_of_a_few_classes, BOTH
    ),
    "focal rows: a positive counted twice": Mutation(
        "focal_loss", _PACK, "loss[i] = here ? A(0) : loss[i];", "", rows_of_a_few_classes, BOTH
    ),
    "focal sum: no fence": Mutation(
        "focal_loss",
        _BLOCK,
        "partial[blockIdx.x] = value;\n    __threadfence();",
        "partial[blockIdx.x] = value;",
        focal,
    ),
    "focal sum: no barrier before is_last": Mutation(
        "focal_loss",
        _BLOCK,
        "  __syncthreads();\n  if (!is_last) return false;",
        "  if (!is_last) return false;",
        focal,
    ),
    "focal sum: counter not atomic": Mutation(
        "focal_loss",
        _BLOCK,
        "is_last = atomicAdd(done, 1u) == gridDim.x - 1;",
        "is_last = (*done)++ == gridDim.x - 1;",
        focal,
    ),
    "focal sum: counter not reset": Mutation("focal_loss", _BLOCK, "  *done = 0;\n", "", focal),
    "focal count: reduction reused": Mutation(
        "focal_loss",
        _FOCAL,
        "kept = block_sum<kFocalThreads>(kept);\n  __syncthreads();",
        "kept = block_sum<kFocalThreads>(kept);",
        focal,
    ),
    "focal count: not atomic": Mutation(
        "focal_loss",
        _FOCAL,
        "atomicAdd(counted, kept * static_cast<unsigned long long>(classes));",
        "*counted += kept * static_cast<unsigned long long>(classes);",
        focal,
    ),
    "scale: tail ignored": Mutation(
        "focal_loss",
        _FOCAL,
        "load_pack(grad + at, n - at, aligned, values);",
        "load_pack(grad + at, kPack, aligned, values);",
        focal,
        BOTH,
    ),
    "block sum: no barrier": Mutation(
        "focal_loss",
        _BLOCK,
        "  __syncthreads();\n  if (threadIdx.x < kWarpSize) {",
        "  if (threadIdx.x < kWarpSize) {",
        focal,
    ),
    "block sum: shared memory too small": Mutation(
        "focal_loss", _BLOCK, "T[kThreads / 32], partial", "T[kThreads / 64], partial", focal, BOTH
    ),
    "block sum: a part of the warp": Mutation(
        "focal_loss",
        _BLOCK,
        "    value += __shfl_down_sync",
        "    if (threadIdx.x < 40) value += __shfl_down_sync",
        focal,
        BOTH,
    ),
    "packs: alignment ignored": Mutation(
        "focal_loss",
        _VECTOR,
        "if (Pack<T, kCount>::kFits && aligned && available >= kCount) {\n    const",
        "if (Pack<T, kCount>::kFits && (aligned || 1) && available >= kCount) {\n    const",
        misaligned,
        ("sanitizers",),
    ),
    "packs: tail ignored": Mutation(
        "focal_loss", _VECTOR, "      if (i < available) to[i] = ", "      to[i] = ", focal, BOTH
    ),
}
