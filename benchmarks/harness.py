"""Times one row: verified first, then warmed up, in rounds; with the bytes it must move and their share of a copy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@cache
def copy_bandwidth(device: str, size: int) -> float:
    """Bytes a second of ``dst.copy_(src)``, read and written, of `size` bytes with a warm destination."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    times = []
    for _ in range(15):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * size / statistics.median(times)


def measure(
    benchmark,
    device: str,
    function: Callable[[], object],
    *,
    moved: int,
    tensor_bytes: int,
    verify: Callable[[], None] | None = None,
) -> None:
    """Runs `function` under pytest-benchmark.

    Args:
        benchmark: the fixture.
        device: where the tensors are.
        function: one call of what is measured.
        moved: bytes that any implementation must read and write.
        tensor_bytes: size of the copy that the bandwidth is compared with.
        verify: raises where the result is wrong; runs before any timing.
    """
    if verify is not None:
        verify()

    def run() -> None:
        function()
        synchronize(device)

    run()  # warm-up: allocations, compilation
    benchmark(run)
    if benchmark.stats is not None:  # None where timing is off
        seconds = benchmark.stats.stats.median
        copy = copy_bandwidth(device, tensor_bytes)
        benchmark.extra_info.update(
            device=torch.cuda.get_device_name() if device == "cuda" else f"cpu x {torch.get_num_threads()}",
            moved_bytes=moved,
            gigabytes_per_second=moved / seconds / 1e9,
            share_of_copy=moved / seconds / copy,
        )


def assert_close(got: Tensor, expected: Tensor, relative: float, absolute: float = 1e-7) -> None:
    torch.testing.assert_close(got.double(), expected.double(), rtol=relative, atol=absolute)
