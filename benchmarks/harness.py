"""Times one row: verified first, then warmed up, in rounds; with the bytes it must move, their share of a copy, and the
memory it takes.
"""

from __future__ import annotations

import ctypes
import re
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

CUDA_SECONDS = 1.0  # of a case, in 10 to 100 rounds


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class CudaInstant:
    """A point in the device's work; a difference, in seconds, waits for the later one alone."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: CudaInstant) -> float:
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1e3


def cuda_clock() -> CudaInstant:
    """A timer for pytest-benchmark: what is timed is the device's work, not the host's launches of it."""
    return CudaInstant()


@cache
def _flush_buffer() -> Tensor:
    return torch.empty(256 << 20, dtype=torch.uint8, device="cuda")


def flush_cache() -> None:
    """Leaves nothing of the inputs in the device's L2 cache, and work of some 0.3 ms, in which the host gets ahead."""
    for _ in range(4):
        _flush_buffer().zero_()


@cache
def copy_bandwidth(device: str, size: int) -> float:
    """Bytes a second of ``dst.copy_(src)``, read and written, of `size` bytes with a warm destination."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    times = []
    clock = cuda_clock if device == "cuda" else time.perf_counter
    for _ in range(15):
        if device == "cuda":
            flush_cache()
        start = clock()
        target.copy_(source)
        times.append(clock() - start)
    return 2 * size / statistics.median(times)


def peak_memory(device: str, function: Callable[[], object]) -> int | None:
    """Most bytes that one call holds beyond what was held before it; None where the system does not tell.

    On the CPU it is the process's peak of resident memory, reset before the call (Linux), in pages.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed before goes back, and counts when it is taken again
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
        function()
        return max(0, _resident("VmHWM") - before)
    except OSError:
        return None


def _resident(which: str) -> int:
    found = re.search(rf"{which}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"no {which}")
    return int(found[1]) * 1024


def measure(
    benchmark,
    device: str,
    function: Callable[[], object],
    *,
    operator: str,
    size: int,
    moved: int,
    tensor_bytes: int,
    operations: int = 0,
    verify: Callable[[], None] | None = None,
) -> None:
    """Runs `function` under pytest-benchmark.

    Args:
        benchmark: the fixture.
        device: where the tensors are.
        function: one call of what is measured.
        operator, size: what the plots call this row, and its place on their size axis.
        moved: bytes that any implementation must read and write.
        tensor_bytes: size of the copy that the bandwidth is compared with.
        operations: that our kernel computes, for the roofline; 0: the row is not in it.
        verify: raises where the result is wrong; runs before any timing.
    """
    if verify is not None:
        verify()

    def run() -> None:
        function()
        synchronize(device)

    run()  # warm-up: allocations, compilation
    if device == "cuda":
        start = time.perf_counter()
        run()
        rounds = int(CUDA_SECONDS / (time.perf_counter() - start))
        benchmark.pedantic(function, setup=flush_cache, rounds=min(100, max(10, rounds)), warmup_rounds=3)
    else:
        benchmark(run)
    if benchmark.stats is not None:  # None where timing is off
        seconds = benchmark.stats.stats.median
        copy = copy_bandwidth(device, tensor_bytes)
        benchmark.extra_info.update(
            device=torch.cuda.get_device_name() if device == "cuda" else f"cpu x {torch.get_num_threads()}",
            operator=operator,
            size=size,
            operations=operations,
            moved_bytes=moved,
            gigabytes_per_second=moved / seconds / 1e9,
            share_of_copy=moved / seconds / copy,
            copy_gigabytes_per_second=copy / 1e9,
            copies=seconds / (2 * tensor_bytes / copy),
        )
        if (peak := peak_memory(device, run)) is not None:
            benchmark.extra_info["peak_bytes"] = peak


def assert_close(got: Tensor, expected: Tensor, relative: float, absolute: float = 1e-7) -> None:
    torch.testing.assert_close(got.double(), expected.double(), rtol=relative, atol=absolute)
