"""AP loss, forward and backward: ours beside the loop over positives of the paper's authors and mmdetection.

The loop takes about a minute per call at the largest size: it is run with --full, once. Growth: compare the sizes.
"""

from __future__ import annotations

import pytest
import torch
from harness import assert_close, measure
from torch import Tensor

from retina_ops import ap_loss, reference

CLASSES = 80
ROWS = {"125x80": 125, "1250x80": 1_250, "12500x80": 12_500, "120000x80": 120_000}
FULL = ("120000x80",)  # of the loop
POSITIVES = 200


@pytest.mark.parametrize("row", ("retina_ops", "reference"))
@pytest.mark.parametrize("size", ROWS)
def bench_forward_backward(benchmark, device: str, size: str, row: str, full: bool) -> None:
    if row == "reference" and size in FULL and not full:
        pytest.skip("--full")
    rows = ROWS[size]
    logits = torch.randn(rows, CLASSES, device=device).requires_grad_()
    labels = torch.full((rows,), CLASSES, device=device)
    positive = torch.randperm(rows, device=device)[:POSITIVES]
    labels[positive] = torch.randint(0, CLASSES, (len(positive),), device=device)
    function = ap_loss if row == "retina_ops" else reference.ap_loss

    def forward_backward() -> Tensor:
        logits.grad = None
        loss = function(logits, labels)
        loss.backward()
        return loss

    def verify() -> None:
        if row == "reference" or size in FULL:
            return
        exact = logits.detach().double().requires_grad_()
        expected = reference.ap_loss(exact, labels)
        expected.backward()
        assert_close(forward_backward(), expected, 1e-6)
        assert_close(logits.grad, exact.grad, 1e-5, 1e-9)

    benchmark.group = f"AP loss forward + backward, {size}, {POSITIVES} positives, {device}"
    bytes_of_logits = logits.numel() * logits.element_size()
    measure(
        benchmark,
        device,
        forward_backward,
        operator="AP loss",
        size=logits.numel(),
        moved=2 * bytes_of_logits + labels.numel() * 8,
        tensor_bytes=bytes_of_logits,
        verify=verify,
    )
