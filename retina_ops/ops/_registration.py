"""Registration of an operator's fakes (shapes for tracing) and derivatives.

`register_differentiable` needs one call per operator that follows these conventions:

- ``op(*tensors, *options) -> Tensor``: tensors come before options, the differentiable ones first.
- ``op_backward(grad, *tensors, *options, *flags)`` returns one gradient per differentiable tensor. Its schema may end
  in one flag ``bool for_<tensor>`` per differentiable tensor: a gradient that is not asked for is an empty tensor.
- ``op_reduced(*tensors, *options, mean, *flags) -> (loss, *gradients)``, for losses: the sum or mean, in one pass with
  the gradients that the flags ask for. There is one flag per differentiable tensor.

An operator with other conventions registers its own functions, made from the parts in `_autograd.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._autograd import double_backward, keep_gradients, take_gradients
from retina_ops.ops._checks import accumulate_dtype


def register_differentiable(
    op: str,
    fake: Callable[..., Tensor],
    *,
    differentiable: int,
    reference: Callable[..., Tensor] | None = None,
    broadcasts: bool = False,
    mean_over: Callable[..., Tensor | int] | None = None,
    backward_options: tuple[Any, ...] = (),
) -> None:
    """Registers the fakes and derivatives of an operator, of its ``_backward`` and, for a loss, of its ``_reduced``.

    Args:
        op: the operator's qualified name, such as ``retina_ops::nms``.
        fake: takes the operator's arguments, checks their shapes and returns an empty result.
        differentiable: how many of the tensors have gradients.
        reference: the operator in plain PyTorch, with the operator's arguments: second derivatives come from it. None
            if the caller registers the derivatives of ``op_backward``.
        broadcasts: the operator broadcasts leading dimensions, and its backward returns gradients of the result's shape
            and dtype, computed in float32 or float64. They are summed to the shapes of the tensors.
        mean_over: takes the operator's arguments and returns what the mean divides the sum by, if the operator is a
            loss with ``op_reduced``.
        backward_options: what ``op_backward`` takes after the options instead of flags.
    """
    operator = _Differentiable(op, fake, differentiable, reference, broadcasts, mean_over, backward_options)
    torch.library.register_fake(op, fake)
    torch.library.register_fake(f"{op}_backward", operator.fake_backward)
    torch.library.register_autograd(op, operator.backward, setup_context=operator.setup)
    if reference is not None:
        torch.library.register_autograd(
            f"{op}_backward", operator.second_backward, setup_context=operator.setup_backward
        )
    if mean_over is not None:
        torch.library.register_fake(f"{op}_reduced", operator.fake_reduced)
        torch.library.register_autograd(
            f"{op}_reduced", operator.reduced_backward, setup_context=operator.setup_reduced
        )


class _Differentiable:
    """The functions that `register_differentiable` registers, with its arguments."""

    def __init__(
        self,
        op: str,
        fake: Callable[..., Tensor],
        differentiable: int,
        reference: Callable[..., Tensor] | None,
        broadcasts: bool,
        mean_over: Callable[..., Tensor | int] | None,
        backward_options: tuple[Any, ...],
    ) -> None:
        self.fake, self.reference, self.mean_over = fake, reference, mean_over
        self.count, self.broadcasts, self.backward_options = differentiable, broadcasts, backward_options
        schema = _overload(op)._schema
        self.gradient_operator = _overload(f"{op}_backward")
        self.arguments = len(schema.arguments)
        self.tensors = sum("Tensor" in str(argument.type) for argument in schema.arguments)
        self.has_flags = any(argument.name.startswith("for_") for argument in self.gradient_operator._schema.arguments)
        self.no_gradients = (None,) * (self.arguments - differentiable)  # for targets and options

    def setup(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: self.tensors])
        ctx.options = inputs[self.tensors : self.arguments]

    def backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *self._gradients(ctx, grad), *self.no_gradients

    def _gradients(self, ctx: Any, grad: Tensor) -> list[Tensor | None]:
        saved, wanted = ctx.saved_tensors, ctx.needs_input_grad[: self.count]
        found = self.gradient_operator(
            grad, *saved, *ctx.options, *(wanted if self.has_flags else self.backward_options)
        )
        gradients: Sequence[Tensor] = (found,) if self.count == 1 else found
        if self.broadcasts:
            gradients = [_sum_to(gradient, tensor) for gradient, tensor in zip(gradients, saved, strict=False)]
        return [gradient if flag else None for gradient, flag in zip(gradients, wanted, strict=True)]

    def fake_backward(self, grad: Tensor, *inputs: Any) -> Any:
        result = self.fake(*inputs[: self.arguments])
        if self.broadcasts:
            gradients = tuple(torch.empty_like(result) for _ in range(self.count))
        else:
            wanted = inputs[self.arguments :] if self.has_flags else (True,) * self.count
            gradients = _new_gradients(inputs[: self.count], wanted)
        return gradients[0] if self.count == 1 else gradients

    # --- the reduced loss: its arguments are the operator's, `mean` and the flags ---

    def setup_reduced(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        self.setup(ctx, inputs, output)
        ctx.mean, *computed = inputs[self.arguments :]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:])
        keep_gradients(ctx, output[1:], computed)

    def reduced_backward(self, ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        nothing = (None,) * (self.count + 1)  # for the flags and `mean`
        if grad is None:
            return *(None,) * self.count, *self.no_gradients, *nothing
        gradients = take_gradients(ctx, [grad if flag else None for flag in ctx.needs_input_grad[: self.count]])
        if gradients is None:
            if ctx.mean and self.mean_over is not None:
                grad = grad / self.mean_over(*ctx.saved_tensors, *ctx.options)
            gradients = self._gradients(ctx, grad)
        return *gradients, *self.no_gradients, *nothing

    def fake_reduced(self, *inputs: Any) -> tuple[Tensor, ...]:
        self.fake(*inputs[: self.arguments])
        loss = inputs[0].new_empty((), dtype=accumulate_dtype(inputs[0]))
        return loss, *_new_gradients(inputs[: self.count], inputs[self.arguments + 1 :])

    # --- the backward's backward: its arguments are the upstream gradient, the operator's, and the flags if any ---

    def setup_backward(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: 1 + self.tensors])
        ctx.options = inputs[1 + self.tensors : 1 + self.arguments]
        ctx.wanted = inputs[1 + self.arguments :] if self.has_flags else (True,) * self.count

    def second_backward(self, ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, *saved = ctx.saved_tensors
        inputs, constants = saved[: self.count], saved[self.count :]

        def reference(*variables: Tensor) -> Tensor:
            assert self.reference is not None
            return self.reference(*variables, *constants, *ctx.options)

        def prepare(variables: list[Tensor]) -> list[Tensor]:
            if not self.broadcasts:
                return variables
            dtype = torch.promote_types(grad_grads[0].dtype, torch.float32)
            return [variable.to(dtype).expand(grad_grads[0].shape) for variable in variables]

        wanted = [grad_grad if flag else None for grad_grad, flag in zip(grad_grads, ctx.wanted, strict=True)]
        gradients = double_backward(reference, [grad], inputs, wanted, prepare=prepare)
        extra = ctx.wanted if self.has_flags else self.backward_options
        return *gradients, *self.no_gradients, *(None,) * len(extra)


def _overload(op: str) -> torch._ops.OpOverload:
    namespace, name = op.split("::")
    overload: torch._ops.OpOverload = getattr(getattr(torch.ops, namespace), name).default
    return overload


def _new_gradients(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    """Gradients of the fakes: contiguous; empty where they are not asked for."""
    return tuple(tensor.new_empty(tensor.shape if flag else 0) for tensor, flag in zip(tensors, wanted, strict=True))


def _sum_to(gradient: Tensor, tensor: Tensor) -> Tensor:
    """The gradient summed over the leading dimensions that the tensor lacks, in the tensor's dtype."""
    leading = gradient.dim() - tensor.dim()
    return (gradient.sum(tuple(range(leading))) if leading else gradient).to(tensor.dtype)
