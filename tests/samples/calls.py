"""Calls a function with a sample, with derivatives, on a device; compares results. Imports torch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from .row import EXACT, Operator, Sample, Tolerance

Function = Callable[..., Any]


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of arguments or results, in order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def changed(sample: Sample, change: Callable[[Tensor], Tensor]) -> Sample:
    """The sample with each of its tensors changed."""
    return sample.with_arguments(**tree_map_only(Tensor, change, sample.arguments))


def on_device(sample: Sample, device: str) -> Sample:
    return changed(sample, lambda tensor: tensor.to(device))


def widened(sample: Sample) -> Sample:
    """The sample in float64 and int64."""
    return changed(sample, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor.long())


def with_leaves(row: Operator, sample: Sample) -> tuple[Sample, list[Tensor]]:
    """The sample with fresh leaves that require gradients in its differentiable arguments, and these leaves."""

    def leaf(tensor: Tensor) -> Tensor:
        # An alias, because a clone would be contiguous and aligned again.
        return tensor.detach().requires_grad_(tensor.is_floating_point())

    fresh = {
        name: tree_map_only(Tensor, leaf, sample.arguments[name])
        for name in row.differentiable
        if name in sample.arguments
    }
    return sample.with_arguments(**fresh), [tensor for tensor in tensors_of(fresh) if tensor.requires_grad]


def upstream_of(output: Tensor) -> Tensor:
    """A gradient from above: numbers from 0.5 to 2 that every dtype holds."""
    count = torch.arange(output.numel(), device=output.device)
    return ((count * 5 % 13 + 4) / 8).to(output.dtype).view(output.shape)


@dataclass(frozen=True)
class Results:
    """Outputs of a call, and gradients with respect to the leaves (zeros where an output does not depend on one)."""

    outputs: list[Tensor]
    gradients: list[Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.outputs, *self.gradients]

    def on_cpu(self) -> Results:
        return Results([tensor.cpu() for tensor in self.outputs], [tensor.cpu() for tensor in self.gradients])


def differentiable_outputs(function: Function, sample: Sample) -> tuple[list[Tensor], list[Tensor]]:
    """All outputs, and those that have a graph."""
    outputs = tensors_of(function(**sample.arguments))
    return outputs, [output for output in outputs if output.requires_grad]


def results_of(
    row: Operator, function: Function, sample: Sample, upstream_layout: Callable[[Tensor], Tensor] = Tensor.contiguous
) -> Results:
    """Outputs and first derivatives.

    upstream_layout: changes the layout in memory of the gradients from above, and no value.
    """
    sample, leaves = with_leaves(row, sample)
    outputs, roots = differentiable_outputs(function, sample)
    gradients = gradients_of(roots, leaves, [upstream_layout(upstream_of(root)) for root in roots])
    return Results([output.detach() for output in outputs], gradients)


def gradients_of(
    roots: list[Tensor], leaves: list[Tensor], upstream: list[Tensor] | None = None, **options: bool
) -> list[Tensor]:
    if not leaves:
        return []
    if not roots:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(roots, leaves, upstream, allow_unused=True, **options)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]


def second_derivatives_of(row: Operator, function: Function, sample: Sample) -> list[Tensor]:
    """Of a function of the gradients, whose upstream gradients depend on the leaves too."""
    sample, leaves = with_leaves(row, sample)
    _, roots = differentiable_outputs(function, sample)
    total = sum((root.square() * upstream_of(root)).sum() for root in roots)
    first = gradients_of([total], leaves, create_graph=True)
    return gradients_of([sum(grad.sin().sum() for grad in first)], leaves)


@contextmanager
def named(row: Operator, sample: Sample, *others: object) -> Iterator[None]:
    """Says in an error which sample it was."""
    try:
        yield
    except Exception as error:
        case = ", ".join(map(str, (row.name, *others, sample.why)))
        raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error


def assert_within(got: Tensor, expected: Tensor, tolerance: Tolerance, what: str = "result") -> None:
    """Raises AssertionError with the worst element. NaN is equal to NaN; integers must be equal."""
    if got.shape != expected.shape:
        raise AssertionError(f"{what}: shape {list(got.shape)}, expected {list(expected.shape)}")
    if not got.is_floating_point():
        if not torch.equal(got, expected):
            raise AssertionError(f"{what}: {int((got != expected).sum())} of {got.numel()} integers differ")
        return
    got, expected = got.detach().double(), expected.detach().double()
    finite = expected.abs()[expected.isfinite()]
    largest = float(finite.max()) if finite.numel() else 0.0
    is_scalar = got.dim() == 0 and tolerance.of_scalars is not None
    relative = tolerance.of_scalars if is_scalar else tolerance.relative
    allowed = relative * expected.abs().nan_to_num(0, 0, 0) + tolerance.of_largest * largest + tolerance.absolute
    error = (got - expected).abs()
    right = (error <= allowed) | (got == expected) | (got.isnan() & expected.isnan())
    if not right.all():
        worst = int(torch.where(right, -1.0, (error - allowed).nan_to_num(torch.inf, torch.inf)).argmax())
        raise AssertionError(
            f"{what}: {int((~right).sum())} of {right.numel()} are out of tolerance; element {worst} is "
            f"{got.flatten()[worst]:.9g}, expected {expected.flatten()[worst]:.9g}, "
            f"allowed difference {allowed.flatten()[worst]:.3g}, largest {largest:.3g}"
        )


def assert_same_bits(got: list[Tensor], expected: list[Tensor], what: str = "result") -> None:
    for number, (left, right) in enumerate(zip(got, expected, strict=True)):
        if left.dtype != right.dtype:
            raise AssertionError(f"{what} {number}: dtype {left.dtype}, expected {right.dtype}")
        assert_within(left, right, EXACT, f"{what} {number}")


def expected_of(row: Operator, sample: Sample) -> Results:
    """What the reference gives."""
    return results_of(row, row.reference, widened(sample) if row.reference_in_float64 else sample)


def assert_matches(row: Operator, sample: Sample, dtype: torch.dtype, got: Results, expected: Results) -> None:
    """Outputs and gradients are within the row's tolerances of those expected."""
    for number, (mine, theirs) in enumerate(zip(got.outputs, expected.outputs, strict=True)):
        assert_within(mine, theirs, row.tolerance_of(sample, dtype, number), f"output {number}")
    for number, (mine, theirs) in enumerate(zip(got.gradients, expected.gradients, strict=True)):
        assert_within(mine, theirs, row.gradient_tolerance_of(sample, dtype), f"gradient {number}")


def fixed_samples(row: Operator, dtype: torch.dtype) -> list[Sample]:
    """Every sample, with the same values in every process."""
    torch.manual_seed(20171)
    return [*row.samples(dtype), *row.small(dtype, 5)]
