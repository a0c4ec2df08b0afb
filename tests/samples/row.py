"""A row of the table of operators: what the contracts must know of one public function. Imports torch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import retina_ops
from retina_ops import reference

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Tolerance:
    """How far a result may be from the reference's.

    |got - expected| is at most ``relative`` times |expected|, plus ``of_largest`` times the largest |expected| of the
    tensor (for sums whose terms cancel), plus ``absolute``. The default is no difference at all. ``of_scalars``
    replaces ``relative`` for results without dimensions: the errors of their many terms cancel.
    """

    relative: float = 0.0
    of_largest: float = 0.0
    absolute: float = 0.0
    of_scalars: float | None = None


EXACT = Tolerance()
Tolerances = Mapping[torch.dtype, "Tolerance | tuple[Tolerance, ...]"]


class Sample:
    """One call: its arguments by name, and why it is worth a test.

    tolerance: of results and gradients of this sample, where it is not the row's.
    """

    def __init__(self, why: str, /, tolerance: Tolerance | None = None, **arguments: Any) -> None:
        self.why = why
        self.tolerance = tolerance
        self.arguments = arguments

    def with_arguments(self, **arguments: Any) -> Sample:
        return Sample(self.why, self.tolerance, **{**self.arguments, **arguments})

    def __repr__(self) -> str:
        return f"Sample({self.why!r})"


@dataclass(frozen=True)
class Refused:
    """A call that must raise.

    Attributes:
        error: the exception's type.
        message: a regular expression that its text holds.
        arguments: of the call, by name.
    """

    error: type[Exception]
    message: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Operator:
    """One public function of retina_ops. The contracts of ``tests/ops`` are tested from it.

    Attributes:
        name: of the function in `retina_ops`.
        room: its folder in csrc/.
        samples: of a dtype: inputs that could break an implementation, each with the reason. One of them is empty.
        small: of a dtype and a size (5 and 6 are asked for): a few values of ordinary size, without kinks nearby, for
            numerical derivatives, opcheck and tracing. Between two sizes only shapes change.
        large: of a dtype: inputs that keep several threads busy; the first one is the benchmark's.
        refused: bad inputs, and the errors that they must give.
        reference_function: the definition in plain PyTorch; default: the function of this name in
            `retina_ops.reference`.
        dtypes: of ``samples``, ``small`` and ``large``.
        tolerances: of results against the reference, by the dtype of the inputs; one for all results, or one each.
        gradient_tolerances: of gradients against those of the reference.
        reference_in_float64: the reference is given float64 copies of the inputs. False where results hold decisions,
            such as which boxes are kept: the reference then decides in the dtype that is tested.
        differentiable: names of the arguments that have derivatives, of first and second order.
        has_second_derivatives: False where the backward is not a derivative: a second one must be refused.
        has_numerical_derivatives: False where the gradient treats a part of the formula as a constant.
        has_batched_gradients: False where torch cannot compute gradients for a batch of upstream gradients.
        always_returns_derivatives: the operator returns its derivatives also where no graph is recorded: they are an
            intermediate of the results, as small as these.
        same_bits_on_every_isa: results do not depend on RETINA_OPS_ISA.
    """

    name: str
    room: str
    samples: Callable[[torch.dtype], Iterator[Sample]]
    small: Callable[[torch.dtype, int], Iterator[Sample]]
    large: Callable[[torch.dtype], Iterator[Sample]]
    refused: Callable[[], Iterator[Refused]]
    reference_function: Callable[..., Any] | None = None
    dtypes: tuple[torch.dtype, ...] = FLOATS
    tolerances: Tolerances = field(default_factory=lambda: dict.fromkeys(FLOATS, EXACT))
    gradient_tolerances: Mapping[torch.dtype, Tolerance] = field(default_factory=dict)
    reference_in_float64: bool = True
    differentiable: tuple[str, ...] = ()
    has_second_derivatives: bool = True
    has_numerical_derivatives: bool = True
    has_batched_gradients: bool = True
    always_returns_derivatives: bool = False
    same_bits_on_every_isa: bool = False

    @property
    def function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(retina_ops, self.name)
        return function

    @property
    def reference(self) -> Callable[..., Any]:
        function: Callable[..., Any] = self.reference_function or getattr(reference, self.name)
        return function

    def tolerance_of(self, sample: Sample, dtype: torch.dtype, result: int) -> Tolerance:
        tolerance = sample.tolerance or self.tolerances[dtype]
        return tolerance[result] if isinstance(tolerance, tuple) else tolerance

    def gradient_tolerance_of(self, sample: Sample, dtype: torch.dtype) -> Tolerance:
        return sample.tolerance or self.gradient_tolerances[dtype]

    def __repr__(self) -> str:
        return self.name
