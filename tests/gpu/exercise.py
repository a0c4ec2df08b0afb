"""Every row of the table of operators on a GPU: for compute-sanitizer, determinism, equality with the CPU, CUDA graphs.

PYTHONPATH=.:tests python tests/gpu/exercise.py kernels [dtype ...] | determinism [runs] | equality [samples] | graph
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

import torch
from inputs.heads import head_outputs
from samples import OPERATORS, Operator, Sample
from samples.calls import assert_matches, assert_same_bits, named, on_device, results_of, second_derivatives_of
from samples.row import FLOATS
from torch import Tensor

from retina_ops import postprocess

HALVES = (torch.float16, torch.bfloat16)  # have no second derivatives


def kernels(device: str, dtypes: Sequence[torch.dtype] = FLOATS, rows: Sequence[Operator] = OPERATORS) -> list[Tensor]:
    """Outputs, first and second derivatives of every sample."""
    results: list[Tensor] = []
    for row in rows:
        for dtype in row.dtypes:
            if dtype not in dtypes:
                continue
            torch.manual_seed(0)
            small = [on_device(sample, device) for sample in row.small(dtype, 6)]
            others = [on_device(sample, device) for sample in [*row.samples(dtype), *row.large(dtype)]]
            for sample in [*small, *others]:
                with named(row, sample, dtype):
                    results += results_of(row, row.function, sample).tensors
            if row.differentiable and row.has_second_derivatives and dtype not in HALVES:
                for sample in small:
                    with named(row, sample, dtype):
                        results += second_derivatives_of(row, row.function, sample)
    return results


def check_kernels(*names: str) -> dict[str, object]:
    """Of the dtypes with these names, or of all."""
    dtypes = [dtype for dtype in FLOATS if not names or str(dtype) in names]
    return {"tensors": len(kernels("cuda", dtypes))}


def check_determinism(times: str = "100") -> dict[str, object]:
    """Repeated runs on the same input give the same bits."""
    runs, cases = int(times), 0
    for row in OPERATORS:
        for dtype in row.dtypes:
            torch.manual_seed(5)
            for sample in row.large(dtype):
                sample = on_device(sample, "cuda")
                with named(row, sample, dtype):
                    first = results_of(row, row.function, sample)
                    for _ in range(runs - 1):
                        assert_same_bits(results_of(row, row.function, sample).tensors, first.tensors)
                cases += 1
    return {"runs": runs, "cases": cases}


def random_samples(count: int) -> Iterator[tuple[Operator, torch.dtype, Sample]]:
    """The table's samples with values of one seed after another, until there are ``count`` of them."""
    done, seed = 0, 0
    while True:
        for row in OPERATORS:
            dtype = row.dtypes[seed % len(row.dtypes)]
            torch.manual_seed(seed)
            for sample in [*row.samples(dtype), *row.large(dtype)]:
                if done == count:
                    return
                yield row, dtype, sample
                done += 1
        seed += 1


def check_equality(times: str = "1000") -> dict[str, object]:
    """CPU and CUDA agree: bit for bit where the row promises to equal its reference, else within its tolerance."""
    exact = 0
    for row, dtype, sample in random_samples(int(times)):
        with named(row, sample, dtype):
            cpu, cuda = (results_of(row, row.function, on_device(sample, device)) for device in ("cpu", "cuda"))
            cuda = cuda.on_cpu()
            assert_matches(row, sample, dtype, cuda, cpu)
            exact += all(torch.equal(mine, theirs) for mine, theirs in zip(cuda.outputs, cpu.outputs, strict=True))
    return {"cases": int(times), "equal_to_the_last_bit": exact}


def check_graph() -> dict[str, object]:
    """`postprocess` captured in a CUDA graph, which refuses any host synchronisation, and replayed on new outputs."""
    replays = 0
    for dtype in FLOATS:
        logits, deltas, anchors = head_outputs(4, 11, sizes=((33, 29), (3, 2)), dtype=dtype, device="cuda")
        sizes = torch.full((4, 2), 90.0, device="cuda")
        postprocess(logits, deltas, anchors, sizes)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = postprocess(logits, deltas, anchors, sizes)
        for kind in ("trained", "dense", "constant"):
            fresh = head_outputs(4, 11, sizes=((33, 29), (3, 2)), kind=kind, dtype=dtype, device="cuda")
            for old, new in zip([*logits, *deltas], [*fresh[0], *fresh[1]], strict=True):
                old.copy_(new)
            sizes.copy_(torch.randint(20, 90, (4, 2)))
            graph.replay()
            expected = postprocess(logits, deltas, anchors, sizes)
            assert_same_bits(list(captured), list(expected), f"replay of {kind}, {dtype}, result")
            replays += 1
    return {"replays": replays}


CHECKS = {
    "kernels": check_kernels,
    "determinism": check_determinism,
    "equality": check_equality,
    "graph": check_graph,
}

if __name__ == "__main__":
    # A backward on the calling thread: autograd's own threads may outlive the interpreter under a sanitizer.
    torch.autograd.set_multithreading_enabled(False)
    torch.manual_seed(0)
    figures = CHECKS[sys.argv[1]](*sys.argv[2:])
    torch.cuda.synchronize()
    print(json.dumps(figures))
