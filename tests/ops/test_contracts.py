"""What every operator promises of its results, tested from the table of operators (tests/samples)."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from samples import OPERATORS, Operator, Sample
from samples.calls import (
    Results,
    assert_matches,
    assert_same_bits,
    assert_within,
    changed,
    differentiable_outputs,
    expected_of,
    fixed_samples,
    named,
    on_device,
    results_of,
    tensors_of,
    with_leaves,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import retina_ops

ROOT = Path(__file__).resolve().parents[2]
rows = pytest.mark.parametrize("row", OPERATORS, ids=str)
rows_and_dtypes = pytest.mark.parametrize(
    ("row", "dtype"),
    [(row, dtype) for row in OPERATORS for dtype in row.dtypes],
    ids=lambda value: str(value).removeprefix("torch."),
)


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_public_operator_has_a_row() -> None:
    public = {
        name
        for name in retina_ops.__all__
        if inspect.isfunction(function := getattr(retina_ops, name))
        and function.__module__.startswith("retina_ops.ops.")
    }
    assert sorted(row.name for row in OPERATORS) == sorted(public)


@rows
def test_rows_are_complete(row: Operator) -> None:
    """Each has a room, an empty sample, several small ones of one structure for all sizes, and bad inputs.

    The kernels of its room are run on the emulated device: under random schedules, from a large first index, with
    planted bugs.
    """
    assert (ROOT / "csrc" / row.room).is_dir()
    emulated = import_module(f"cuda_on_cpu.rooms.{row.room}")
    assert emulated.RANDOM and emulated.LARGE and emulated.PLANTED
    assert all(sample.why for sample in row.samples(torch.float32))
    assert any(tensor.numel() == 0 for sample in row.samples(torch.float32) for tensor in tensors_of(sample.arguments))
    assert next(row.refused(), None) is not None
    for five, six in zip(row.small(torch.float32, 5), row.small(torch.float32, 6), strict=True):
        assert five.why == six.why
        shapes = [[tensor.shape for tensor in tensors_of(sample.arguments)] for sample in (five, six)]
        assert len(shapes[0]) == len(shapes[1]) and shapes[0] != shapes[1]


# --- values -----------------------------------------------------------------------------------------------------------


class Expected(NamedTuple):
    """Of one sample: the reference's results, and the dtypes that the outputs of the operator must have."""

    results: Results
    dtypes: list[torch.dtype]


@pytest.fixture(scope="module")
def expected() -> Callable[[Operator, torch.dtype], list[Expected]]:
    """Results of the reference for `fixed_samples` on the CPU, computed once for all devices and instruction sets."""

    @cache
    def of(name: str, dtype: torch.dtype) -> list[Expected]:
        row = next(row for row in OPERATORS if row.name == name)
        found = []
        for sample in fixed_samples(row, dtype):
            with named(row, sample, dtype):
                outputs = tensors_of(row.reference(**sample.arguments))
                # Reductions of half inputs return float32.
                halves = (torch.float16, torch.bfloat16)
                dtypes = [torch.float32 if t.dim() == 0 and t.dtype in halves else t.dtype for t in outputs]
                found.append(Expected(expected_of(row, sample), dtypes))
        return found

    return lambda row, dtype: of(row.name, dtype)


@rows_and_dtypes
def test_matches_reference(device: str, row: Operator, dtype: torch.dtype, expected) -> None:  # type: ignore[no-untyped-def]
    """Values and gradients, empty inputs among them; results are where the inputs are, in the reference's dtype."""
    for sample, (results, dtypes) in zip(fixed_samples(row, dtype), expected(row, dtype), strict=True):
        with named(row, sample, dtype):
            got = results_of(row, row.function, on_device(sample, device))
            assert {tensor.device.type for tensor in got.outputs} <= {device}
            assert [tensor.dtype for tensor in got.outputs] == dtypes
            assert_matches(row, sample, dtype, got.on_cpu(), results)


def strided(tensor: Tensor) -> Tensor:
    """Every second element of its memory."""
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


def transposed(tensor: Tensor) -> Tensor:
    return tensor.mT.contiguous().mT if tensor.dim() >= 2 else tensor


def unaligned(tensor: Tensor) -> Tensor:
    """Contiguous, one element past an aligned address."""
    return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)


@pytest.mark.parametrize("layout", [strided, transposed, unaligned])
@rows_and_dtypes
def test_non_contiguous(device: str, row: Operator, dtype: torch.dtype, layout: Callable[[Tensor], Tensor]) -> None:
    """The same bits as of contiguous inputs, and of a contiguous gradient from above."""
    every = row.samples(dtype) if dtype == torch.float32 else row.small(dtype, 6)
    for sample in every:
        sample = changed(on_device(sample, device), Tensor.contiguous)
        with named(row, sample, dtype):
            expected = results_of(row, row.function, sample)
            got = results_of(row, row.function, changed(sample, layout), layout)
            assert_same_bits(got.tensors, expected.tensors)


@rows
def test_runs_give_the_same_bits(device: str, row: Operator) -> None:
    for sample in row.large(torch.float32):
        sample = on_device(sample, device)
        first, *others = (results_of(row, row.function, sample) for _ in range(3))
        for other in others:
            assert_same_bits(other.tensors, first.tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@rows
def test_threads_do_not_change_results(row: Operator, dtype: torch.dtype) -> None:
    before = torch.get_num_threads()
    try:
        for sample in row.large(dtype):
            results = []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                results.append(results_of(row, row.function, sample))
            for other in results[1:]:
                assert_same_bits(other.tensors, results[0].tensors)
    finally:
        torch.set_num_threads(before)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@rows_and_dtypes
def test_cpu_and_cuda_agree(row: Operator, dtype: torch.dtype) -> None:
    """Bit for bit where the operator equals its reference bit for bit."""
    for sample in [*row.samples(dtype), *row.large(dtype)]:
        with named(row, sample, dtype):
            cpu, cuda = (results_of(row, row.function, on_device(sample, device)) for device in ("cpu", "cuda"))
            assert_matches(row, sample, dtype, cuda.on_cpu(), cpu)


def lower_instruction_sets() -> list[str]:
    """Those below the best that this processor has, which all other tests run."""
    flags = set(Path("/proc/cpuinfo").read_text().split()) if sys.platform == "linux" else set()
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return ["baseline", "avx2"]
    return ["baseline"] if {"avx2", "fma"} <= flags else []


@pytest.fixture(scope="module")
def results_by_isa(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every operator gives with each lower instruction set."""
    folder = tmp_path_factory.mktemp("isa")
    results = {}
    for isa in lower_instruction_sets():
        command = [sys.executable, str(ROOT / "build_tools" / "check_operators.py"), "--save", str(folder / isa)]
        environment = {**os.environ, "RETINA_OPS_ISA": isa, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{isa}: {run.stderr[-3000:]}"
        results[isa] = torch.load(folder / isa)
    return results


@pytest.mark.slow
@rows_and_dtypes
def test_every_instruction_set(results_by_isa, row: Operator, dtype: torch.dtype, expected) -> None:  # type: ignore[no-untyped-def]
    """Each gives the reference's values, and some operators the same bits."""
    samples = fixed_samples(row, dtype)
    for isa, results in results_by_isa.items():
        for sample, got, (right, _) in zip(samples, results[row.name][dtype], expected(row, dtype), strict=True):
            with named(row, sample, dtype, isa):
                assert_matches(row, sample, dtype, Results(*got), right)
                if row.same_bits_on_every_isa:
                    assert_same_bits(Results(*got).tensors, results_of(row, row.function, sample).tensors)


def test_unknown_instruction_set() -> None:
    """Every operator says so."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import torch\n"
        "from samples import OPERATORS\n"
        "for row in OPERATORS:\n"
        "    try:\n"
        "        row.function(**next(row.small(torch.float32, 5)).arguments)\n"
        "    except RuntimeError as error:\n"
        "        assert 'RETINA_OPS_ISA must be baseline, avx2 or avx512' in str(error) and 'nonsense' in str(error)\n"
        "    else:\n"
        "        raise AssertionError(row.name)\n"
    )
    environment = {**os.environ, "RETINA_OPS_ISA": "nonsense", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# --- refusals ---------------------------------------------------------------------------------------------------------


@rows
def test_bad_input(device: str, row: Operator) -> None:
    for refused in row.refused():
        sample = on_device(Sample(refused.message, **refused.arguments), device)
        with pytest.raises(refused.error, match=refused.message):
            row.function(**sample.arguments)


@rows
def test_rejects_torchscript(row: Operator) -> None:
    with pytest.raises(RuntimeError, match=rf"retina_ops\.{row.name}: TorchScript is not supported"):
        torch.jit.script(row.function)


# --- work that is not asked for ---------------------------------------------------------------------------------------


class OperatorOutputs(TorchDispatchMode):
    """Collects what the operators of retina_ops return."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if function.namespace == "retina_ops":
            self.tensors += tensors_of(result)
        return result


@pytest.mark.parametrize("row", [row for row in OPERATORS if row.differentiable], ids=str)
def test_no_gradient_under_no_grad(device: str, row: Operator) -> None:
    """The same values; and no operator returns, beside results, floats as many as a gradient would have."""
    for sample in row.small(torch.float32, 6):
        sample, leaves = with_leaves(row, on_device(sample, device))
        with named(row, sample):
            recorded, _ = differentiable_outputs(row.function, sample)
            with torch.no_grad(), OperatorOutputs() as returned:
                results = tensors_of(row.function(**sample.arguments))
            for number, (mine, theirs) in enumerate(zip(results, recorded, strict=True)):
                assert not mine.requires_grad
                assert_within(mine, theirs.detach(), row.tolerance_of(sample, torch.float32, number))
            if row.always_returns_derivatives:
                continue
            memory = {result.untyped_storage().data_ptr() for result in results}
            smallest = min(leaf.numel() for leaf in leaves)
            for tensor in returned.tensors:
                if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() not in memory:
                    assert tensor.numel() < smallest


@pytest.mark.parametrize("row", [row for row in OPERATORS if not row.differentiable], ids=str)
def test_takes_no_gradient(device: str, row: Operator) -> None:
    """Inputs may require gradients; results, which have no derivatives, do not."""
    for sample in row.small(torch.float32, 6):
        sample = changed(on_device(sample, device), lambda t: t.clone().requires_grad_(t.is_floating_point()))
        assert not any(result.requires_grad for result in tensors_of(row.function(**sample.arguments)))
