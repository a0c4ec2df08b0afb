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


# All operators of the library, as the dispatcher knows them.
OPERATOR_NAMES = {
    name.removeprefix("retina_ops::")
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("retina_ops::")
}


def structure(value: Any) -> object:
    """What decides how a call is traced: dtypes and dimensions of tensors, options, but not sizes and numbers."""
    if isinstance(value, Tensor):
        return value.dtype, value.dim(), value.requires_grad
    if isinstance(value, (list, tuple)):
        return tuple(structure(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, structure(item)) for name, item in sorted(value.items()))
    return type(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class CallsOfOperators(TorchDispatchMode):
    """Records the calls of operators of retina_ops, one per operator and structure of the arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[tuple[str, object], Call] = {}
        self.differentiable = True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function.namespace == "retina_ops":
            keeps_grad = self.differentiable
            arguments = tree_map_only(
                Tensor, lambda t: t.detach().clone().requires_grad_(t.requires_grad and keeps_grad), args
            )
            name = function._schema.name.removeprefix("retina_ops::")
            self.calls.setdefault((name, structure(arguments)), (function, arguments))
        return function(*args, **(kwargs or {}))


def record(row: Operator, sample: Sample, recorded: CallsOfOperators) -> None:
    """The forward and backward without gradients, with those of each differentiable argument, of all, and twice."""
    row.function(**sample.arguments)
    sample, leaves = with_leaves(row, sample)
    for name in row.differentiable if len(row.differentiable) > 1 else ():
        alone = tensors_of(sample.arguments[name])
        for leaf in leaves:
            leaf.requires_grad_(any(leaf is tensor for tensor in alone))
        _, roots = differentiable_outputs(row.function, sample)
        gradients_of(roots, alone, [torch.ones_like(root) for root in roots])
    if leaves:
        for leaf in leaves:
            leaf.requires_grad_()
        _, roots = differentiable_outputs(row.function, sample)
        recorded.differentiable = row.has_second_derivatives
        gradients_of(roots, leaves, [torch.ones_like(root) for root in roots], retain_graph=True)
        if not row.has_second_derivatives:
            gradients_of(roots, leaves, [torch.ones_like(root) for root in roots])  # computed by the backward operator
            recorded.differentiable = True
            return
        upstream = [torch.ones_like(root, requires_grad=True) for root in roots]
        first = gradients_of(roots, leaves, upstream, create_graph=True)
        recorded.differentiable = False  # third derivatives are not promised
        gradients_of([sum(grad.sum() for grad in first)], [*leaves, *upstream])
        recorded.differentiable = True


@pytest.fixture(scope="module")
def calls() -> dict[str, list[Call]]:
    """Calls of each operator that the small samples of the table make."""
    torch.manual_seed(20171)
    with CallsOfOperators() as recorded:
        for row in OPERATORS:
            for sample in row.small(torch.float32, 5):
                record(row, sample, recorded)
    found: dict[str, list[Call]] = {}
    for (name, _), call in recorded.calls.items():
        found.setdefault(name, []).append(call)
    return found


def test_every_operator_is_called(calls: dict[str, list[Call]]) -> None:
    """test_opcheck leaves out no operator of the library."""
    assert set(calls) == OPERATOR_NAMES


@pytest.mark.parametrize("name", sorted(OPERATOR_NAMES))
def test_opcheck(device: str, calls: dict[str, list[Call]], name: str) -> None:
    for overload, arguments in calls[name]:
        arguments = tree_map_only(Tensor, lambda t: t.to(device).detach().requires_grad_(t.requires_grad), arguments)
        torch.library.opcheck(overload, arguments)


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed sizes", "sizes of a tracer"])
@rows
def test_compiles_without_recompile(device: str, row: Operator, dynamic: bool) -> None:
    """One graph serves another call, with dynamic=True also of another size."""
    traced = set()
    for sample, other in zip(row.small(torch.float32, 5), row.small(torch.float32, 6 if dynamic else 5), strict=True):
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
