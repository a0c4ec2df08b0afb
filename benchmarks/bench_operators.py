"""Every row of the table of operators (tests/samples) on its first large sample: ours beside its reference.

A new operator is timed here as soon as it has a row; the other files compare with torchvision, at published sizes.
"""

from __future__ import annotations

import pytest
import torch
from harness import measure
from samples import OPERATORS, Operator
from samples.calls import assert_matches, expected_of, named, on_device, results_of, tensors_of


@pytest.mark.parametrize("row", ("retina_ops", "reference"))
@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def bench_operator(benchmark, device: str, operator: Operator, row: str) -> None:
    """Forward, and backward where the operator has one."""
    sample = on_device(next(iter(operator.large(torch.float32))), device)
    function = operator.function if row == "retina_ops" else operator.reference

    def verify() -> None:
        if row == "retina_ops":
            with named(operator, sample):
                got = results_of(operator, function, sample)
                assert_matches(operator, sample, torch.float32, got, expected_of(operator, sample))

    inputs = sum(tensor.nbytes for tensor in tensors_of(sample.arguments))
    results = sum(tensor.nbytes for tensor in results_of(operator, function, sample).tensors)
    direction = "forward + backward" if operator.differentiable else "forward"
    benchmark.group = f"{operator.name}, {sample.why}, {direction}, float32, {device}"
    measure(
        benchmark,
        device,
        lambda: results_of(operator, function, sample),
        operator=f"{operator.name}, {direction}, table",
        size=inputs,
        moved=inputs + results,
        tensor_bytes=max(inputs, results),
        verify=verify,
    )
