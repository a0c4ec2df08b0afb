"""ap_loss/ on an emulated device."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops import reference

from ..arguments import arithmetic, limits, output
from ..device import Array, Device, Field
from ..inputs import DTYPES, close
from ..room import BOTH, Bug


def ap_loss(
    device: Device,
    logits: Tensor,
    targets: Tensor,
    delta: float = 1.0,
    *,
    with_grad: bool = True,
    upstream: float | None = None,
    first: int = 0,
    most_blocks: int = 2**62,
) -> tuple[Tensor, Tensor | None]:
    """The loss and the update, sorted as the operator sorts. first: index of the first row."""
    is_dense = targets.is_floating_point()
    logits = logits.flatten() if is_dense else logits
    targets = targets.flatten()
    slots, dtype = len(logits), arithmetic(logits.dtype)
    values = torch.empty(slots, dtype=dtype)
    state = [torch.zeros((), dtype=torch.int64) for _ in range(2)]
    shared: dict[str, Field] = {
        "logits": Array(logits, first=first),
        "dtype": logits.dtype,
        "rows": first + slots,
        "classes": 1 if is_dense else logits.shape[1],
        "labels": None if is_dense else Array(targets, first=first),
        "dense": Array(targets, first=first) if is_dense else None,
        "dense_dtype": targets.dtype if is_dense else logits.dtype,
        "ignore_index": -1,
        "positives": state[0],
        "has_nan": state[1],
        "limits": limits(first, most_blocks),
    }
    device.launch("launch_ap_loss_gather", shared | {"values": output(values, first=first)})

    def workspace(dtype: torch.dtype, *shape: int) -> Array:
        return output(torch.empty(shape, dtype=dtype))

    grad = torch.empty_like(logits) if with_grad else None
    result = torch.empty((), dtype=dtype)
    fields = shared | {
        "delta": delta,
        "grad": output(grad, first=first) if grad is not None else None,
        "values": Array(values, first=first),
        "order": values.sort(stable=True).indices + first,
        "breakpoints": workspace(dtype, 2 * slots),
        "owners": workspace(torch.int64, 2 * slots),
        "begins": workspace(torch.int64, slots),
        "ends": workspace(torch.int64, slots),
        "of_negatives": workspace(torch.int64, 2 * slots + 1, 2),
        "of_positives": workspace(torch.int64, 2 * slots + 1, 2),
        "units": workspace(torch.int64, 2 * slots),
        "slopes": workspace(torch.float64, 2 * slots),
        "errors": workspace(torch.float64, slots),
        "weights": workspace(torch.float64, slots),
        "lines": workspace(dtype, 2 * slots + 1, 3),
        "upstream_scalar": torch.tensor(upstream, dtype=torch.float64) if upstream is not None else None,
        "result": output(result),
    }
    device.launch("launch_ap_loss", fields)
    return result, grad


def check(
    device: Device, logits: Tensor, targets: Tensor, delta: float = 1.0, *, factor: float = 1.0, **options: int
) -> None:
    """Loss and update are those of the definition in float64."""
    exact = logits.double().clone().requires_grad_()
    wide = targets.double() if targets.is_floating_point() else targets
    expected = reference.ap_loss(exact, wide, delta=delta)
    (update,) = torch.autograd.grad(expected, exact)
    upstream = None if factor == 1.0 else factor
    loss, grad = ap_loss(device, logits, targets, delta, upstream=upstream, **options)
    close(loss, expected.detach(), torch.float32)
    assert grad is not None
    close(grad.view(logits.shape), update * factor, logits.dtype if logits.dtype != torch.float64 else torch.float32)
    if logits.dtype == torch.float64 and not loss.isnan():
        assert (grad.view(logits.shape) - update * factor).abs().max() < 1e-11


def labelled(rows: int, classes: int, share: float) -> tuple[Tensor, Tensor]:
    """Logits with ties, and labels of which a share are positive and some ignored."""
    logits = (torch.randn(rows, classes, dtype=torch.float64) * 16).round() / 8
    labels = torch.where(torch.rand(rows) < share, torch.randint(0, classes, (rows,)), classes)
    labels[torch.rand(rows) < 0.1] = -1
    return logits, labels


def updates(device: Device) -> None:
    for dtype in DTYPES:
        logits, labels = labelled(90, 7, 0.3)
        check(device, logits.to(dtype), labels, 0.6)
        dense = (torch.rand(40, 3) < 0.3).to(dtype) - (torch.rand(40, 3) < 0.1).to(dtype)
        check(device, logits.to(dtype)[:40, :3].contiguous(), dense, factor=3.5)
    check(device, logits.half()[:40, :3].contiguous(), (torch.rand(40, 3) < 0.3).float())
    loss, grad = ap_loss(device, logits.float(), labels, with_grad=False)
    assert grad is None and 0 < loss < 1


def updates_in_several_passes(device: Device) -> None:
    """More positives than shared cells, than threads of the block that scans; few blocks, so that threads loop."""
    check(device, *labelled(2600, 2, 0.6), most_blocks=2)
    logits, labels = labelled(700, 3, 0.2)
    check(device, logits.float(), labels, most_blocks=2)


def special(device: Device) -> None:
    """No positive, positives alone, windows that rounding widens, NaN, infinities, a label out of range."""
    logits = torch.tensor([[1e30, 1e30, 3.0], [1e30, -1e30, 3.5], [torch.inf, 1e8, -torch.inf]])
    for labels in ([3, 3, 3], [0, 1, 2], [1, 2, -1], [-1, -1, -1], [2, 2, 1]):
        for dtype in (torch.float32, torch.float64):
            check(device, logits.to(dtype), torch.tensor(labels))
    check(device, torch.randn(30, 1), torch.zeros(30, dtype=torch.int64))
    next_to = torch.full((6, 1), 1e30)
    next_to[3:].nextafter_(torch.tensor(torch.inf))
    check(device, next_to, torch.tensor([0, 0, 1, 0, 0, 1]))  # one window ends where the other begins
    logits[1, 1] = torch.nan
    for labels in ([3, 3, 3], [0, 1, 2], [1, -1, 3]):
        check(device, logits, torch.tensor(labels))
    loss, grad = ap_loss(device, torch.zeros(3, 2), torch.tensor([0, 5, -1]))
    assert loss.isnan() and grad is not None and grad[:2].isnan().all() and (grad[2] == 0).all()


def few(device: Device) -> None:
    logits, labels = labelled(60, 5, 0.4)
    check(device, logits.float(), labels, most_blocks=2)


def large(device: Device) -> None:
    logits, labels = labelled(50, 5, 0.4)
    check(device, logits.float(), labels, first=2**31 + 7)
    check(device, logits.float(), (torch.rand(50, 5) < 0.3).float(), first=2**31 + 7)


_KERNELS = "ap_loss/ap_loss_kernels.cuh"
_RANK = "ap_loss/ap_loss_rank.cuh"

RANDOM = [few, special]
LARGE = [large]
PLANTED = {
    "ap_loss gather: past the end": Bug(_KERNELS, "if (slot < args.problem.rows) {", "if (true) {", few, BOTH),
    "ap_loss gather: counted without an atomic": Bug(
        _KERNELS,
        "atomicAdd(args.positives, static_cast<unsigned long long>(count));",
        "*args.positives += count;",
        updates_in_several_passes,
    ),
    "ap_loss gather: bad labels unnoticed": Bug(
        _KERNELS, "label < 0 || label > problem.classes ? -2", "false ? -2", special, ("sanitizers",)
    ),
    "ap_loss windows: past the positives": Bug(_KERNELS, "  if (i >= positives) return;\n", "", few, BOTH),
    "ap_loss windows: equal breakpoints share a place": Bug(
        _KERNELS,
        "window_begin(s, args.problem.delta) <= point",
        "window_begin(s, args.problem.delta) < point",
        special,
        BOTH,
    ),
    "ap_loss count: no barrier before": Bug(
        _KERNELS, "shared[k] = ApLossCell{0, 0};\n    __syncthreads();", "shared[k] = ApLossCell{0, 0};", updates
    ),
    "ap_loss count: no barrier after": Bug(
        _KERNELS, "  if (is_shared) {\n    __syncthreads();\n", "  if (is_shared) {\n", updates
    ),
    "ap_loss count: without an atomic": Bug(
        _KERNELS,
        "atomicAdd(reinterpret_cast<unsigned long long*>(&cell->count), static_cast<unsigned long long>(count));",
        "cell->count += count;",
        updates,
    ),
    "ap_loss count: totals without an atomic": Bug(
        _KERNELS,
        "atomicAdd(reinterpret_cast<unsigned long long*>(&cell->total), static_cast<unsigned long long>(total));",
        "cell->total += total;",
        updates,
    ),
    "ap_loss count: shared cells overrun": Bug(
        _KERNELS, "points < kApLossSharedCells", "true", updates_in_several_passes, BOTH
    ),
    "ap_loss count: past the end": Bug(_KERNELS, "i < n; i += stride", "i <= n; i += stride", few, BOTH),
    "ap_loss scan: no barrier before the sums of warps": Bug(
        _RANK, "of_warps[warp] = value;\n    __syncthreads();", "of_warps[warp] = value;", few
    ),
    "ap_loss scan: no barrier after": Bug(_RANK, "    __syncthreads();  // of_warps is written again\n", "", few),
    "ap_loss scan: the carry is lost": Bug(
        _RANK, "write(k, op(carry, value))", "write(k, value)", updates_in_several_passes, ("sanitizers",)
    ),
    "ap_loss rank: no running minimum": Bug(_RANK, "args.errors[i] = least;", "(void)least;", updates, ("sanitizers",)),
    "ap_loss rank: a window ends above 1": Bug(
        _RANK, "(1.0 - (height_of(args, i) + width))", "(0.0 * width)", special, ("sanitizers",)
    ),
    "ap_loss update: past the end": Bug(
        _KERNELS, "  if (i >= args.problem.rows * args.problem.classes) return;\n", "", few, BOTH
    ),
    "ap_loss update: past the positives": Bug(
        _KERNELS, "i >= positives || *args.has_nan != 0", "*args.has_nan != 0", few, BOTH
    ),
}
