"""focal_loss/ on an emulated device, and bugs in the sums and packs that it uses."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops import reference

from ..arguments import arithmetic, limits, output
from ..device import Array, Device, Field
from ..inputs import close, focal_expected, focal_inputs
from ..room import BOTH, Bug

MAX_BLOCKS = 3  # so few that a thread computes several packs of a few thousand logits


def focal_loss(
    device: Device,
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float = 2.0,
    *,
    order: int = 0,
    upstream: Tensor | float = 1.0,
    ignore_index: int = -1,
    first: int = 0,
    offset: int = 0,
) -> Tensor:
    """The loss of each element (order 0), or its derivative times `upstream`. first: index of the first row."""
    out = torch.empty_like(logits)
    per_element = isinstance(upstream, Tensor)
    fields = _fields(logits, targets, alpha, gamma, ignore_index, first, offset) | {
        "order": order,
        "loss_out": output(out, offset=offset, first=first) if order == 0 else None,
        "grad_out": output(out, offset=offset, first=first) if order else None,
        "upstream": Array(upstream, offset=offset, first=first) if per_element and order else None,
        "upstream_factor": torch.tensor(upstream, dtype=torch.float64) if order and not per_element else None,
    }
    device.launch("launch_focal_loss", fields)
    return out


def focal_loss_reduced(
    device: Device,
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float = 2.0,
    *,
    mean: bool = False,
    with_grad: bool = True,
    ignore_index: int = -1,
    first: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """The sum or mean, and its gradient."""
    grad = torch.empty_like(logits) if with_grad else None
    result = torch.empty((), dtype=arithmetic(logits.dtype))
    done = torch.zeros(1, dtype=torch.int32)
    counted = None
    if mean and targets.is_floating_point():
        counted = torch.tensor([logits.numel()])
    elif mean:
        counted = count_labels(device, targets, logits.shape[-1], ignore_index)[:1].clone()
    fields = _fields(logits, targets, alpha, gamma, ignore_index, first, 0) | {
        "order": 1,
        "grad_out": output(grad, first=first) if grad is not None else None,
        "partial": output(torch.empty(MAX_BLOCKS, dtype=torch.float64)),
        "done": done,
        "result": output(result),
        "counted": counted,
    }
    device.launch("launch_focal_loss", fields)
    assert done.item() == 0
    return result, grad


def _fields(
    logits: Tensor, targets: Tensor, alpha: float | Tensor, gamma: float, ignore_index: int, first: int, offset: int
) -> dict[str, Field]:
    classes, is_soft = max(1, logits.shape[-1]), targets.is_floating_point()
    return {
        "logits": Array(logits, offset=offset, first=first),
        "dtype": logits.dtype,
        "classes": classes,
        "labels": None if is_soft else Array(targets, first=first),
        "soft_targets": Array(targets, offset=offset, first=first) if is_soft else None,
        "soft_dtype": targets.dtype if is_soft else logits.dtype,
        "ignore_index": ignore_index,
        "alpha_per_class": alpha.to(arithmetic(logits.dtype)) if isinstance(alpha, Tensor) else None,
        "alpha": -1.0 if isinstance(alpha, Tensor) else alpha,
        "gamma": gamma,
        "n": first * classes + logits.numel(),
        "limits": limits(first * classes, MAX_BLOCKS),
    }


def count_labels(device: Device, labels: Tensor, classes: int, ignore_index: int = -1, *, first: int = 0) -> Tensor:
    """[2]: elements of rows that are not ignored, and rows with a label out of range. first: index of the first row."""
    counts = torch.zeros(2, dtype=torch.int64)
    fields = {
        "labels": Array(labels, first=first),
        "rows": first + len(labels),
        "classes": classes,
        "ignore_index": ignore_index,
        "counts": counts,
        "limits": limits(first),
    }
    device.launch("launch_focal_count", fields)
    return counts


def scale_gradient(device: Device, grad: Tensor, scale: float, *, offset: int = 0, first: int = 0) -> Tensor:
    """first: index of the first element."""
    scaled = grad.flatten().clone()
    fields = {
        "grad": Array(scaled, offset=offset, first=first),
        "dtype": grad.dtype,
        "scale": torch.tensor(scale, dtype=torch.float64),
        "n": first + grad.numel(),
        "limits": limits(first, MAX_BLOCKS),
    }
    device.launch("launch_scale_gradient", fields)
    return scaled.view_as(grad)


def everything(device: Device) -> None:
    logits, labels = torch.randn(701, 9), torch.randint(-1, 10, (701,))  # the last pack is not full
    loss = reference.sigmoid_focal_loss(logits.double(), labels, reduction="sum")
    got, grad = focal_loss_reduced(device, logits, labels)
    assert torch.allclose(got.double(), loss, rtol=1e-5) and grad is not None
    one = focal_loss(device, logits, labels, order=1)
    assert torch.allclose(one, grad, rtol=1e-5, atol=1e-8)
    value = focal_loss(device, logits, labels)
    assert torch.allclose(value.double(), reference.sigmoid_focal_loss(logits.double(), labels), rtol=1e-5, atol=1e-8)
    assert count_labels(device, labels, 9)[0] == (labels != -1).sum() * 9
    assert torch.equal(scale_gradient(device, logits, 2.0), logits * 2)


def rows_of_a_few_classes(device: Device) -> None:
    """Rows of fewer classes than a pack, and packs that end in another row than they begin in."""
    for rows, classes in ((301, 3), (1301, 13)):
        logits, labels = torch.randn(rows, classes), torch.randint(-1, classes + 1, (rows,))
        labels[-1] = 0
        got, grad = focal_loss_reduced(device, logits, labels)
        loss = reference.sigmoid_focal_loss(logits.double(), labels, reduction="sum")
        assert torch.allclose(got.double(), loss, rtol=1e-5) and grad is not None
        one = focal_loss(device, logits, labels, order=1)
        assert torch.allclose(one, grad, rtol=1e-5, atol=1e-8)


def misaligned(device: Device) -> None:
    logits, labels = torch.randn(40, 9), torch.randint(0, 9, (40,))
    focal_loss(device, logits, labels, offset=1)


def few(device: Device) -> None:
    """Sums do not depend on the schedule; elements are right."""
    logits, labels = focal_inputs(60, 9, torch.float32, "labels")
    for mean in (False, True):
        got = focal_loss_reduced(device, logits, labels, mean=mean)
        assert torch.equal(got[0], focal_loss_reduced(device.forward(), logits, labels, mean=mean)[0])
    derivative = focal_loss(device, logits, labels, order=1)
    close(derivative, focal_expected(logits, labels, 0.25, 2.0, 1), torch.float32)
    assert torch.equal(scale_gradient(device, logits, 2.0), logits * 2)
    assert count_labels(device, labels, 9)[0] == (labels != -1).sum() * 9


def large(device: Device) -> None:
    classes = 16
    first = 2**31 // classes + 1
    logits, labels = focal_inputs(20, classes, torch.float32, "labels")
    assert torch.equal(focal_loss(device, logits, labels, first=first), focal_loss(device, logits, labels))
    loss, grad = focal_loss_reduced(device, logits, labels, first=first)
    near_loss, near_grad = focal_loss_reduced(device, logits, labels)
    assert grad is not None and near_grad is not None
    assert torch.equal(loss, near_loss) and torch.equal(grad, near_grad)
    first = 2**31 + 16
    assert torch.equal(count_labels(device, labels, classes, first=first), count_labels(device, labels, classes))
    assert torch.equal(scale_gradient(device, logits, 2.0, first=first), logits * 2)


_FOCAL = "focal_loss/focal_loss_kernels.cuh"
_PACK = "focal_loss/focal_loss_pack.cuh"
_VECTOR = "common/vector.cuh"
_BLOCK = "common/block.cuh"

RANDOM = [few]
LARGE = [large]
PLANTED = {
    "focal elements: past the end": Bug(_FOCAL, "  if (at >= args.n) return;\n  A x", "  A x", everything, BOTH),
    "focal: label past the last row": Bug(
        _FOCAL,
        "if (at + i < args.n) label = args.targets[row];",
        "label = args.targets[row];",
        rows_of_a_few_classes,
        BOTH,
    ),
    "focal rows: label past the last row": Bug(
        _FOCAL, "kPack && cursor.row + 1 < rows ?", "kPack && cursor.row < rows ?", rows_of_a_few_classes, BOTH
    ),
    "focal rows: the last pack's next label": Bug(
        _FOCAL, "if (current + left < args.n) targets.add", "targets.add", rows_of_a_few_classes, BOTH
    ),
    "focal rows: past the end": Bug(
        _FOCAL,
        "if (args.n - current < kPack) targets.ignore_from",
        "if (false) targets.ignore_from",
        rows_of_a_few_classes,
        BOTH,
    ),
    "focal rows: the next row's column": Bug(_PACK, "      column -= classes;\n", "", rows_of_a_few_classes, BOTH),
    "focal rows: a positive counted twice": Bug(
        _PACK, "loss[i] = is_positive ? A(0) : loss[i];", "", rows_of_a_few_classes, BOTH
    ),
    "focal sum: no fence": Bug(
        _BLOCK, "partial[blockIdx.x] = value;\n    __threadfence();", "partial[blockIdx.x] = value;", everything
    ),
    "focal sum: no barrier before is_last": Bug(
        _BLOCK, "  __syncthreads();\n  if (!is_last) return false;", "  if (!is_last) return false;", everything
    ),
    "focal sum: counter not atomic": Bug(
        _BLOCK,
        "is_last = atomicAdd(done, 1u) == gridDim.x - 1;",
        "is_last = (*done)++ == gridDim.x - 1;",
        everything,
    ),
    "focal sum: counter not reset": Bug(_BLOCK, "  *done = 0;\n", "", everything),
    "focal count: reduction reused": Bug(
        _FOCAL,
        "kept = block_sum<kFocalThreads>(kept);\n  __syncthreads();",
        "kept = block_sum<kFocalThreads>(kept);",
        everything,
    ),
    "focal count: not atomic": Bug(
        _FOCAL,
        "atomicAdd(counted, kept * static_cast<unsigned long long>(classes));",
        "*counted += kept * static_cast<unsigned long long>(classes);",
        everything,
    ),
    "scale: tail ignored": Bug(
        _FOCAL,
        "load_pack(grad + at, n - at, aligned, values);",
        "load_pack(grad + at, kPack, aligned, values);",
        everything,
        BOTH,
    ),
    "block sum: no barrier": Bug(
        _BLOCK,
        "  __syncthreads();\n  if (threadIdx.x < kWarpSize) {",
        "  if (threadIdx.x < kWarpSize) {",
        everything,
    ),
    "block sum: shared memory too small": Bug(
        _BLOCK, "T[kThreads / 32], partial", "T[kThreads / 64], partial", everything, BOTH
    ),
    "block sum: a part of the warp": Bug(
        _BLOCK,
        "    value += __shfl_down_sync",
        "    if (threadIdx.x < 40) value += __shfl_down_sync",
        everything,
        BOTH,
    ),
    "packs: alignment ignored": Bug(
        _VECTOR,
        "if (Pack<T, kCount>::kFits && aligned && available >= kCount) {\n    const",
        "if (Pack<T, kCount>::kFits && (aligned || 1) && available >= kCount) {\n    const",
        misaligned,
        ("sanitizers",),
    ),
    "packs: tail ignored": Bug(_VECTOR, "      if (i < available) to[i] = ", "      to[i] = ", everything, BOTH),
}
