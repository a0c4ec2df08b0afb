"""Running in one process or in several (`torchrun`): the device of each process, and communication between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import needs_extra

with needs_extra("train"):
    import torch
    import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """This process, and how many there are.

    Attributes:
        rank: number of this process. Process 0 writes files and messages.
        size: number of processes.
        device: device of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, value: float) -> float:
        """Returns the value of process 0 on every process."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared)

    def largest(self, *values: float) -> list[float]:
        """Returns the largest of each value over all processes."""
        if self.size == 1:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return [float(value) for value in largest]

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Returns the mean of each value over all processes. The names are the same on every process."""
        if self.size == 1:
            return values
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(values, (total / self.size).tolist(), strict=True))

    def barrier(self) -> None:
        """Waits until every process has called this."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world(device: str) -> Iterator[World]:
    """Connects the processes that `torchrun` started. Without `torchrun`, there is one process.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. Under `torchrun`, each process uses the GPU of its
            local rank.

    Raises:
        ValueError: the device does not exist.
    """
    size, rank, local = (int(os.environ.get(name, default)) for name, default in _ENVIRONMENT.items())
    chosen = resolve_device(device)
    if size == 1:
        yield World(0, 1, chosen)
        return
    if chosen.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(f"process {local} of this machine has no GPU: torch finds {torch.cuda.device_count()}")
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()


_ENVIRONMENT = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}


def is_main_process() -> bool:
    """Whether this is the only process, or process 0 of those that `torchrun` started."""
    return int(os.environ.get("RANK", "0")) == 0


def resolve_device(name: str) -> torch.device:
    """The device of a name. Raises ValueError if this machine does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"torch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices"
        raise ValueError(f"device {name!r} does not exist: {found}")
    return device
