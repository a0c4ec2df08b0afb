"""What every operator promises to torch.compile and other tracers, tested from the table of operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from samples import OPERATORS, Operator, Sample
from samples.calls import (
    differentiable_outputs,
    gradients_of,
    named,
    on_device,
    tensors_of,
    with_leaves,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

rows = pytest.mark.parametrize("row", OPERATORS, ids=str)
Call = tuple[Any, tuple[Any, ...]]

pytestmark = pytest.mark.slow


def operator_names() -> set[str]:
    """All operators of the library, as the dispatcher knows them."""
    names = torch._C._dispatch_get_all_op_names()
    return {name.removeprefix("retina_ops::") for name in names if name.startswith("retina_ops::")}


def structure(value: Any) -> object:
    """What decides how a call is traced: dtypes and dimensions of tensors, options, but not sizes and real numbers."""
    if isinstance(value, Tensor):
        return value.dtype, value.dim(), value.is_contiguous(), value.requires_grad
    if isinstance(value, (list, tuple)):
        return tuple(structure(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, structure(item)) for name, item in sorted(value.items()))
    return type(value) if isinstance(value, float) else value


class CallsOfOperators(TorchDispatchMode):
    """Records the calls of operators of retina_ops, one per structure of the arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[object, Call] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function.namespace == "retina_ops":
            arguments = tree_map_only(Tensor, lambda t: t.detach().clone().requires_grad_(t.requires_grad), args)
            self.calls.setdefault((function, structure(args)), (function, arguments))
        return function(*args, **(kwargs or {}))


def calls_of(row: Operator) -> list[Call]:
    """Calls that the forward, two backwards and second derivatives make, with inputs that need gradients or not."""
    with CallsOfOperators() as recorded:
        for sample in row.small(torch.float32, 5):
            row.function(**sample.arguments)
            sample, leaves = with_leaves(row, sample)
            for name in row.differentiable:
                alone = tensors_of(sample.arguments[name])
                for leaf in leaves:
                    leaf.requires_grad_(any(leaf is tensor for tensor in alone))
                _, roots = differentiable_outputs(row.function, sample)
                gradients_of(roots, alone, [torch.ones_like(root) for root in roots])
            if leaves:
                for leaf in leaves:
                    leaf.requires_grad_()
                _, roots = differentiable_outputs(row.function, sample)
                gradients_of(roots, leaves, [torch.ones_like(root) for root in roots], retain_graph=True)
                upstream = [torch.ones_like(root, requires_grad=True) for root in roots]
                first = gradients_of(roots, leaves, upstream, create_graph=True)
                gradients_of([sum(grad.sum() for grad in first)], [*leaves, *upstream])
    return list(recorded.calls.values())


def test_every_operator_is_reached() -> None:
    """No operator of the library is left out of test_opcheck."""
    reached = {overload._schema.name.removeprefix("retina_ops::") for row in OPERATORS for overload, _ in calls_of(row)}
    assert reached == operator_names()


@rows
def test_opcheck(device: str, row: Operator) -> None:
    calls = calls_of(row)
    assert calls
    for overload, arguments in calls:
        arguments = tree_map_only(Tensor, lambda t: t.to(device).detach().requires_grad_(t.requires_grad), arguments)
        torch.library.opcheck(overload, arguments)


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed sizes", "sizes of a tracer"])
@rows
def test_compiles_without_recompile(device: str, row: Operator, dynamic: bool) -> None:
    """One graph serves another call, with dynamic=True also of another size."""
    traced = set()
    for sample, other in zip(row.small(torch.float32, 5), row.small(torch.float32, 7 if dynamic else 5), strict=True):
        if structure(sample.arguments) in traced:
            continue
        traced.add(structure(sample.arguments))
        torch._dynamo.reset()
        compiled = torch.compile(row.function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        with named(row, sample), torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
            compare_with_eager(row, compiled, on_device(sample, device))
            with torch._dynamo.config.patch(error_on_recompile=True):
                compare_with_eager(row, compiled, on_device(other, device))


def compare_with_eager(row: Operator, compiled: Any, sample: Sample) -> None:
    results = []
    for function in (compiled, row.function):
        fresh, leaves = with_leaves(row, sample)
        outputs, roots = differentiable_outputs(function, fresh)
        results.append([*outputs, *gradients_of(roots, leaves, [torch.ones_like(root) for root in roots])])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
