"""Parts of derivatives that differentiable operators share. `register_differentiable` puts them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_scale_gradient_ = torch.ops.retina_ops.scale_gradient_.default


# --- modes of differentiation -----------------------------------------------------------------------------------------


def no_forward_mode(op: str, *tensors: Tensor) -> None:
    """Refuses tensors with tangents. The operators have no forward-mode rule and would drop the tangents silently.

    Raises:
        RuntimeError: a tensor has a tangent (``torch.func.jvp``, ``jacfwd``, ``forward_ad.make_dual``).
    """
    if torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise RuntimeError(f"{op}: forward-mode derivatives are not supported, use reverse mode")


def is_batched(tensor: Tensor) -> bool:
    """Whether the tensor is a batch inside ``torch.func.vmap``, ``is_grads_batched`` or a vectorized Jacobian."""
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(tensor) or functorch.is_legacy_batchedtensor(tensor)


# --- gradients that the forward computes ------------------------------------------------------------------------------


def wanted_in_forward(*tensors: Tensor) -> tuple[bool, ...]:
    """For each tensor, whether a reduced loss computes the gradient in its forward.

    A gradient that is computed in the forward is scaled in the backward. float16 gradients are left to the backward:
    the factor of a loss scaler must be in them before they are rounded, or small ones become 0. Compiled graphs compute
    gradients in the backward as well.
    """
    if (
        not torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or any(tensor.dtype == torch.float16 for tensor in tensors)
    ):
        return (False,) * len(tensors)
    return tuple(tensor.requires_grad for tensor in tensors)


def keep_gradients(ctx: Any, gradients: Sequence[Tensor], computed: Sequence[bool]) -> None:
    """Keeps gradients of the forward for the first backward, outside the graph.

    Args:
        ctx: of the autograd function.
        gradients: one per gradient of the backward.
        computed: which of them the forward has computed. Those of tracers, whose tensors are subclasses, are not kept.
    """
    ctx.kept = [
        gradient if flag and type(gradient) is Tensor else None
        for gradient, flag in zip(gradients, computed, strict=True)
    ]


def take_gradients(ctx: Any, upstream: Sequence[Tensor | None]) -> list[Tensor | None] | None:
    """The kept gradients times the upstream gradients, or None where the backward must compute its gradients.

    The first backward takes the kept tensors and scales them in place. A second backward (``retain_graph``), one that
    records a graph (``create_graph``) and one with batches of upstream gradients (``is_grads_batched``) compute theirs.

    Args:
        ctx: of the autograd function, after `keep_gradients`.
        upstream: a scalar tensor per kept gradient; None for a gradient that is not asked for.
    """
    kept = ctx.kept
    if kept is None or torch.is_grad_enabled():
        return None
    for gradient, scale in zip(kept, upstream, strict=True):
        if scale is not None and (gradient is None or is_batched(scale)):
            return None
    ctx.kept = None
    taken: list[Tensor | None] = []
    for gradient, scale in zip(kept, upstream, strict=True):
        if scale is not None:
            _scale_gradient_(gradient, scale)
        taken.append(None if scale is None else gradient)
    return taken


@torch.library.register_fake("retina_ops::scale_gradient_")
def _(grad, scale):  # type: ignore[no-untyped-def]
    return None


# --- second derivatives -----------------------------------------------------------------------------------------------


def double_backward(
    reference: Callable[..., Tensor | tuple[Tensor, ...]],
    upstream: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grad_grads: Sequence[Tensor | None],
    *,
    prepare: Callable[[list[Tensor]], list[Tensor]] = list,
) -> list[Tensor | None]:
    """The backward of a gradient operator, computed by autograd from the operator's reference.

    The gradient operator returns the gradients of ``reference(*inputs)`` by the inputs, for given upstream gradients.
    The results have a graph of their own, so that derivatives of any order follow.

    Args:
        reference: the operator in plain PyTorch, as a function of the inputs.
        upstream: the gradients by the reference's results that the gradient operator was given.
        inputs: the tensors by which the gradient operator differentiates.
        grad_grads: gradients by the results of the gradient operator, one per input; None for a result that was not
            asked for.
        prepare: converts the inputs to those of the reference; the gradient operator's results then are gradients by
            the converted tensors.

    Returns:
        Gradients by the upstream gradients and by the inputs; None where there is none.
    """
    with torch.enable_grad():
        # Where the upstream gradients depend on the inputs, autograd must not differentiate through them here: views
        # are variables of their own.
        variables = [
            tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
            for tensor in (*upstream, *inputs)
        ]
        prepared = prepare(variables[len(upstream) :])
        results = reference(*prepared)
        results = (results,) if isinstance(results, Tensor) else results
        scales = [
            grad.to(result.dtype).expand_as(result)
            for grad, result in zip(variables[: len(upstream)], results, strict=True)
        ]
        gradients = torch.autograd.grad(results, prepared, scales, create_graph=True, allow_unused=True)
        product = results[0].new_zeros(())
        for gradient, grad_grad in zip(gradients, grad_grads, strict=True):
            if gradient is not None and gradient.requires_grad and grad_grad is not None:
                product = product + (gradient * grad_grad).sum(dtype=product.dtype)
        if not product.requires_grad:
            return [None] * len(variables)
        return list(torch.autograd.grad(product, variables, create_graph=True, allow_unused=True))
