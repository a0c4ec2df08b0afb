"""What every operator with derivatives promises of them, tested from the table of operators (tests/samples)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from samples import OPERATORS, Operator, Sample
from samples.calls import (
    assert_within,
    differentiable_outputs,
    gradients_of,
    named,
    on_device,
    second_derivatives_of,
    tensors_of,
    with_leaves,
)
from torch import Tensor
from torch.autograd import forward_ad

DIFFERENTIABLE = [row for row in OPERATORS if row.differentiable]
rows = pytest.mark.parametrize("row", DIFFERENTIABLE, ids=str)


def function_of_leaves(row: Operator, sample: Sample) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """The outputs with derivatives as a function of the leaves, and the leaves."""
    template, leaves = with_leaves(row, sample)
    places = {id(leaf): number for number, leaf in enumerate(leaves)}

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        def replaced(argument: object) -> object:
            if isinstance(argument, list):
                return [replaced(item) for item in argument]
            return values[places[id(argument)]] if id(argument) in places else argument

        arguments = {name: replaced(argument) for name, argument in template.arguments.items()}
        return tuple(output for output in tensors_of(row.function(**arguments)) if output.is_floating_point())

    return function, leaves


@pytest.mark.parametrize("row", [row for row in DIFFERENTIABLE if row.has_numerical_derivatives], ids=str)
def test_gradcheck_and_gradgradcheck(device: str, row: Operator) -> None:
    for sample in row.small(torch.float64, 5):
        function, leaves = function_of_leaves(row, on_device(sample, device))
        with named(row, sample):
            assert torch.autograd.gradcheck(function, leaves)
            many = sum(leaf.numel() for leaf in leaves) > 64
            assert torch.autograd.gradgradcheck(function, leaves, fast_mode=many)  # fast: in one random direction


@pytest.mark.parametrize("row", [row for row in DIFFERENTIABLE if row.has_second_derivatives], ids=str)
def test_second_derivatives_match_reference(device: str, row: Operator) -> None:
    """The gradient from above depends on the inputs, too."""
    for sample in row.small(torch.float64, 6):
        sample = on_device(sample, device)
        with named(row, sample):
            got, expected = (second_derivatives_of(row, function, sample) for function in (row.function, row.reference))
            assert got
            for mine, theirs in zip(got, expected, strict=True):
                largest = max(1.0, float(theirs.abs().max())) if theirs.numel() else 1.0
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10 * largest)


@pytest.mark.parametrize("row", [row for row in DIFFERENTIABLE if not row.has_second_derivatives], ids=str)
def test_second_derivatives_are_refused(device: str, row: Operator) -> None:
    for sample in row.small(torch.float64, 6):
        with named(row, sample):
            sample, leaves = with_leaves(row, on_device(sample, device))
            _, roots = differentiable_outputs(row.function, sample)
            first = gradients_of(roots, leaves, [torch.ones_like(root) for root in roots], create_graph=True)
            with pytest.raises(RuntimeError, match=f"{row.name}: second derivatives are not supported"):
                gradients_of([sum(grad.sum() for grad in first)], leaves)


@pytest.mark.parametrize(
    ("row", "dtype"),
    [(row, dtype) for row in DIFFERENTIABLE for dtype in row.dtypes],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_backward_twice(device: str, row: Operator, dtype: torch.dtype) -> None:
    """The first backward may take a gradient that the forward wrote, the second computes it; upstream scales both."""
    for sample in row.small(dtype, 6):
        sample, leaves = with_leaves(row, on_device(sample, device))
        with named(row, sample, dtype):
            _, roots = differentiable_outputs(row.function, sample)
            upstream = [torch.full_like(root, 3.5) for root in roots]
            first, second = (gradients_of(roots, leaves, upstream, retain_graph=True) for _ in range(2))
            _, again = differentiable_outputs(row.function, sample)
            one = gradients_of(again, leaves, [torch.ones_like(root) for root in again])
            tolerance = row.gradient_tolerance_of(sample, dtype)
            if dtype in (torch.float16, torch.bfloat16):  # a gradient times 3.5 is rounded once more
                tolerance = replace(tolerance, relative=max(tolerance.relative, torch.finfo(dtype).eps))
            for a, b, single in zip(first, second, one, strict=True):
                assert a.data_ptr() != b.data_ptr()
                assert_within(a, b, tolerance, "second backward")
                assert_within(a, (single.double() * 3.5).to(a.dtype), tolerance, "upstream")


@rows
def test_gradients_accumulate(device: str, row: Operator) -> None:
    """Adding to .grad twice must not add into a tensor that was handed out before."""
    for sample in row.small(torch.float32, 5):
        sample, leaves = with_leaves(row, on_device(sample, device))
        with named(row, sample):
            _, roots = differentiable_outputs(row.function, sample)
            total = sum(root.sum() for root in roots)
            total.backward(retain_graph=True)
            once = [leaf.grad.clone() for leaf in leaves]
            total.backward()
            for leaf, grad in zip(leaves, once, strict=True):
                assert_within(leaf.grad, 2 * grad, row.gradient_tolerance_of(sample, torch.float32))


@rows
def test_one_differentiable_argument_alone(device: str, row: Operator) -> None:
    """An argument that needs no gradient gets none, and changes none."""
    for sample in row.small(torch.float32, 5):
        sample, leaves = with_leaves(row, on_device(sample, device))
        _, roots = differentiable_outputs(row.function, sample)
        expected = gradients_of(roots, leaves, [torch.ones_like(root) for root in roots])
        for name in row.differentiable if len(row.differentiable) > 1 else ():
            with named(row, sample, name):
                for leaf in leaves:
                    leaf.requires_grad_(any(leaf is tensor for tensor in tensors_of(sample.arguments[name])))
                _, roots = differentiable_outputs(row.function, sample)
                wanted = [leaf for leaf in leaves if leaf.requires_grad]
                got = gradients_of(roots, wanted, [torch.ones_like(root) for root in roots])
                both = [grad for leaf, grad in zip(leaves, expected, strict=True) if leaf.requires_grad]
                for mine, theirs in zip(got, both, strict=True):
                    assert_within(mine, theirs, row.gradient_tolerance_of(sample, torch.float32))


@rows
def test_forward_mode_is_refused(device: str, row: Operator) -> None:
    """Below the operators, which have no rule for them, tangents would be lost."""
    message = f"{row.name}: forward-mode derivatives are not supported"
    for sample in row.small(torch.float32, 5):
        function, leaves = function_of_leaves(row, on_device(sample, device))
        values = tuple(leaf.detach() for leaf in leaves)
        tangents = tuple(torch.ones_like(value) for value in values)
        with pytest.raises(RuntimeError, match=message):
            torch.func.jvp(function, values, tangents)
        with pytest.raises(RuntimeError, match=message), forward_ad.dual_level():
            function(*(forward_ad.make_dual(*pair) for pair in zip(values, tangents, strict=True)))
        with forward_ad.dual_level():
            function(*values)  # without a tangent nothing is lost


@pytest.mark.parametrize("row", [row for row in DIFFERENTIABLE if row.has_batched_gradients], ids=str)
def test_batched_gradients(device: str, row: Operator) -> None:
    """A batch of gradients from above gives what they give one by one, at the first backward and at the second."""
    for sample in row.small(torch.float32, 5):
        function, leaves = function_of_leaves(row, on_device(sample, device))
        with named(row, sample):
            (output,) = function(*leaves)
            upstream = torch.randn(3, *output.shape, device=device)
            first, second = (
                torch.autograd.grad(output, leaves, upstream, is_grads_batched=True, retain_graph=True)
                for _ in range(2)
            )
            single = [torch.autograd.grad(output, leaves, each, retain_graph=True) for each in upstream]
            for mine, again, *theirs in zip(first, second, *single, strict=True):
                torch.testing.assert_close(mine, torch.stack(theirs))
                torch.testing.assert_close(again, torch.stack(theirs))
