"""What `register_differentiable` gives an operator: fakes, derivatives, and gradients kept from the forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from retina_ops.ops._autograd import double_backward, no_forward_mode, take_gradients, wanted_in_forward
from retina_ops.ops._checks import broadcast_shape, expect
from retina_ops.ops._registration import register_differentiable

LIBRARY = torch.library.Library("retina_ops_test", "DEF")
CALLS: Counter[str] = Counter()  # of kernels


def define(schema: str) -> Callable[[Callable[..., object]], None]:
    """Registers a kernel, of which each call is counted."""
    name = schema.partition("(")[0]

    def add(kernel: Callable[..., object]) -> None:
        def counted(*arguments: object) -> object:
            CALLS[name] += 1
            return kernel(*arguments)

        LIBRARY.define(schema)
        for key in ("CPU", "CUDA"):
            LIBRARY.impl(name, counted, key)

    return add


# A loss with two differentiable tensors, one that is not, an option, flags and reductions: scale * mask * weight * x^3.


def cube(x: Tensor, weight: Tensor, mask: Tensor, scale: float) -> Tensor:
    return scale * mask * weight * x**3


@define("cube(Tensor x, Tensor weight, Tensor? mask, float scale) -> Tensor")
def _(x: Tensor, weight: Tensor, mask: Tensor, scale: float) -> Tensor:
    return cube(x, weight, mask, scale)


@define(
    "cube_backward(Tensor grad, Tensor x, Tensor weight, Tensor? mask, float scale, bool for_x, bool for_weight)"
    " -> (Tensor, Tensor)"
)
def cube_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mask: Tensor, scale: float, for_x: bool, for_weight: bool
) -> tuple[Tensor, Tensor]:
    return gradients(grad, x, weight, mask, scale, for_x, for_weight)


def gradients(
    grad: Tensor, x: Tensor, weight: Tensor, mask: Tensor, scale: float, for_x: bool, for_weight: bool
) -> tuple[Tensor, Tensor]:
    by_x = grad * scale * mask * weight * 3 * x**2 if for_x else x.new_empty(0)
    return by_x, grad * scale * mask * x**3 if for_weight else x.new_empty(0)


@define(
    "cube_reduced(Tensor x, Tensor weight, Tensor? mask, float scale, bool mean, bool for_x, bool for_weight)"
    " -> (Tensor, Tensor, Tensor)"
)
def cube_reduced(
    x: Tensor, weight: Tensor, mask: Tensor, scale: float, mean: bool, for_x: bool, for_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grad = 1 / mask.sum() if mean else torch.ones_like(mask.sum())
    return (cube(x, weight, mask, scale) * grad).sum(), *gradients(grad, x, weight, mask, scale, for_x, for_weight)


def fake_cube(x: Tensor, weight: Tensor, mask: Tensor, scale: float) -> Tensor:
    expect(x.shape == weight.shape, "cube: x and weight must have one shape", x.shape, weight.shape)
    return torch.empty_like(x)


register_differentiable(
    "retina_ops_test::cube",
    fake_cube,
    differentiable=2,
    reference=cube,
    mean_over=lambda x, weight, mask, scale: mask.sum(),
)


# An operator that broadcasts leading dimensions and has no flags: x * y^2. Its gradients have the result's shape.


@define("product(Tensor x, Tensor y) -> Tensor")
def _(x: Tensor, y: Tensor) -> Tensor:
    return x * y**2


@define("product_backward(Tensor grad, Tensor x, Tensor y) -> (Tensor, Tensor)")
def _(grad: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return grad * y**2, grad * 2 * x * y


def product(x: Tensor, y: Tensor) -> Tensor:
    return x * y**2


register_differentiable(
    "retina_ops_test::product",
    lambda x, y: x.new_empty(x.shape),
    differentiable=2,
    reference=product,
    broadcasts=True,
)


# An operator of one tensor.


@define("square(Tensor x) -> Tensor")
def _(x: Tensor) -> Tensor:
    return x**2


@define("square_backward(Tensor grad, Tensor x) -> Tensor")
def _(grad: Tensor, x: Tensor) -> Tensor:
    return grad * 2 * x


register_differentiable(
    "retina_ops_test::square", lambda x: torch.empty_like(x), differentiable=1, reference=lambda x: x**2
)

OPS = torch.ops.retina_ops_test
SCALE = 1.5


@pytest.fixture
def tensors(device: str) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = (torch.randn(5, 4, dtype=torch.float64, device=device).requires_grad_() for _ in range(2))
    return x, weight, (torch.arange(20, device=device).view(5, 4) % 3 != 0).double()


def reduced(x: Tensor, weight: Tensor, mask: Tensor, mean: bool) -> Tensor:
    return OPS.cube_reduced(x, weight, mask, SCALE, mean, *wanted_in_forward(x, weight))[0]


def expected(x: Tensor, weight: Tensor, mask: Tensor, mean: bool) -> Tensor:
    total = cube(x, weight, mask, SCALE).sum()
    return total / mask.sum() if mean else total


# --- gradients kept from the forward ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [False, True])
def test_first_backward_takes_the_gradients_of_the_forward(tensors: tuple[Tensor, ...], mean: bool) -> None:
    """The second recomputes them. Both are scaled by the upstream gradient."""
    x, weight, _ = tensors
    wanted = torch.autograd.grad(expected(*tensors, mean) * 3.7, (x, weight))
    CALLS.clear()
    loss = reduced(*tensors, mean) * 3.7
    first = torch.autograd.grad(loss, (x, weight), retain_graph=True)
    assert CALLS == {"cube_reduced": 1}
    second = torch.autograd.grad(loss, (x, weight))
    assert CALLS == {"cube_reduced": 1, "cube_backward": 1}
    torch.testing.assert_close(first, wanted)
    torch.testing.assert_close(second, wanted)
    assert first[0].data_ptr() != second[0].data_ptr()


@pytest.mark.parametrize("mean", [False, True])
def test_a_graph_of_the_backward_recomputes(tensors: tuple[Tensor, ...], mean: bool) -> None:
    """The kept gradients stay for a later backward without a graph."""
    x, weight, _ = tensors
    CALLS.clear()
    loss = reduced(*tensors, mean)
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    assert CALLS == {"cube_reduced": 1, "cube_backward": 1} and first.requires_grad
    torch.autograd.grad(loss, (x, weight))
    assert CALLS == {"cube_reduced": 1, "cube_backward": 1}


@pytest.mark.parametrize("requires", [(True, False), (False, True)])
def test_only_the_gradients_asked_for(tensors: tuple[Tensor, ...], requires: tuple[bool, bool]) -> None:
    x, weight, mask = tensors
    x, weight = x.detach().requires_grad_(requires[0]), weight.detach().requires_grad_(requires[1])
    inputs = [tensor for tensor in (x, weight) if tensor.requires_grad]
    assert wanted_in_forward(x, weight) == requires
    (wanted,) = torch.autograd.grad(expected(x, weight, mask, True), inputs)
    loss = reduced(x, weight, mask, True)
    for _ in range(2):
        torch.testing.assert_close(torch.autograd.grad(loss, inputs, retain_graph=True)[0], wanted)


def test_a_gradient_that_the_forward_did_not_compute(tensors: tuple[Tensor, ...]) -> None:
    x, weight, mask = tensors
    for flags in ((True, False), (False, False)):
        CALLS.clear()
        loss = OPS.cube_reduced(x, weight, mask, SCALE, True, *flags)[0]
        got = torch.autograd.grad(loss, (x, weight))
        assert CALLS["cube_backward"] == 1
        torch.testing.assert_close(got, torch.autograd.grad(expected(*tensors, True), (x, weight)))


def test_batches_of_upstream_gradients(tensors: tuple[Tensor, ...]) -> None:
    x = tensors[0]
    upstream = torch.randn(3, dtype=torch.float64, device=x.device)
    loss = reduced(*tensors, False)
    (got,) = torch.autograd.grad(loss, x, upstream, is_grads_batched=True, retain_graph=True)
    (one,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(got, upstream[:, None, None] * one)


def test_which_gradients_the_forward_computes(device: str) -> None:
    single, constant = torch.ones(1, device=device, requires_grad=True), torch.ones(1, device=device)
    half = torch.ones(1, device=device, dtype=torch.float16, requires_grad=True)
    assert wanted_in_forward(single, constant) == (True, False)
    assert wanted_in_forward(single.bfloat16(), single.double()) == (True, True)
    assert wanted_in_forward(half, single) == (False, False)  # a loss scaler's factor must come before the rounding
    with torch.no_grad():
        assert wanted_in_forward(single, constant) == (False, False)


def test_nothing_is_kept_of_a_compiled_graph(tensors: tuple[Tensor, ...]) -> None:
    torch._dynamo.reset()
    x, weight, _ = tensors
    compiled = torch.compile(reduced, fullgraph=True, backend="aot_eager")
    CALLS.clear()
    got = torch.autograd.grad(compiled(*tensors, True) * 3.7, (x, weight))
    assert CALLS == {"cube_reduced": 1, "cube_backward": 1}
    torch.testing.assert_close(got, torch.autograd.grad(expected(*tensors, True) * 3.7, (x, weight)))


def test_one_of_several_losses_without_upstream_gradient() -> None:
    class Context:
        kept: list[Tensor | None] | None

    ctx = Context()
    ctx.kept = [torch.ones(3), torch.ones(2)]
    with torch.no_grad():
        gradients = take_gradients(ctx, [torch.tensor(2.0), None])
        assert gradients is not None and torch.equal(gradients[0], torch.full((3,), 2.0)) and gradients[1] is None
        assert take_gradients(ctx, [torch.tensor(2.0), None]) is None  # they are taken once


# --- registered derivatives -------------------------------------------------------------------------------------------


def test_derivatives(tensors: tuple[Tensor, ...]) -> None:
    x, weight, mask = tensors
    functions = (
        (lambda a, b: OPS.cube(a, b, mask, SCALE), (x, weight)),
        (lambda a, b: reduced(a, b, mask, True), (x, weight)),
        (lambda a: OPS.cube(a, weight.detach(), mask, SCALE), (x,)),
        (OPS.product, (x, weight.detach()[0].requires_grad_())),  # broadcast
        (OPS.product, (x, weight)),
        (OPS.square, (x,)),
    )
    for function, inputs in functions:
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_derivatives_of_third_order(device: str) -> None:
    x = torch.randn(6, dtype=torch.float64, device=device, requires_grad=True)
    (first,) = torch.autograd.grad(OPS.square(x).pow(2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x)
    torch.testing.assert_close(third, 24 * x.detach())


def test_opcheck(tensors: tuple[Tensor, ...]) -> None:
    # opcheck's upstream gradient is the sign of the loss: a positive one leaves the kept gradients, which it compares,
    # as they are.
    x, weight = (tensor.detach().abs().requires_grad_() for tensor in tensors[:2])
    mask, grad = tensors[2], torch.randn_like(x)
    for flags in ((True, True), (True, False)):
        torch.library.opcheck(OPS.cube_backward.default, (grad, x, weight, mask, SCALE, *flags))
        torch.library.opcheck(OPS.cube_reduced.default, (x, weight, mask, SCALE, True, *flags))
    torch.library.opcheck(OPS.cube.default, (x, weight, mask, SCALE))
    torch.library.opcheck(OPS.product.default, (x, weight[0]))
    torch.library.opcheck(OPS.product_backward.default, (grad, x, weight[0]))
    torch.library.opcheck(OPS.square.default, (x,))
    torch.library.opcheck(OPS.square_backward.default, (grad, x))


def test_fake_refuses_shapes(tensors: tuple[Tensor, ...]) -> None:
    x, weight, mask = (tensor.detach().to("meta") for tensor in tensors)
    message = r"cube: x and weight must have one shape, got \[5, 4\] and \[4\]"
    for function, arguments in (
        (OPS.cube, (x, weight[0], mask, SCALE)),
        (OPS.cube_backward, (x, x, weight[0], mask, SCALE, True, True)),
        (OPS.cube_reduced, (x, weight[0], mask, SCALE, True, True, True)),
    ):
        with pytest.raises(RuntimeError, match=message):
            function(*arguments)


# --- double_backward alone --------------------------------------------------------------------------------------------


def test_upstream_that_depends_on_the_inputs(device: str) -> None:
    """The derivative through the upstream gradient is autograd's: double_backward treats it as a constant."""
    x = torch.randn(4, dtype=torch.float64, device=device, requires_grad=True)
    upstream, grad_grad = x * 2, torch.randn(4, dtype=torch.float64, device=device)
    by_upstream, by_x = double_backward(torch.sin, [upstream], [x], [grad_grad])
    torch.testing.assert_close(by_upstream, grad_grad * x.cos())
    torch.testing.assert_close(by_x, -grad_grad * upstream * x.sin())


def test_without_a_gradient_from_above(device: str) -> None:
    x = torch.randn(4, device=device)
    assert double_backward(torch.sin, [x], [x], [None]) == [None, None]


# --- checks -----------------------------------------------------------------------------------------------------------


def test_forward_mode_is_refused(device: str) -> None:
    x = torch.ones(2, device=device)
    with forward_ad.dual_level():
        no_forward_mode("op", x)
        with pytest.raises(RuntimeError, match="op: forward-mode derivatives are not supported, use reverse mode"):
            no_forward_mode("op", x, forward_ad.make_dual(x, x))


def test_broadcast_shape() -> None:
    a, b = torch.empty(2, 1, 5, 4), torch.empty(3, 6, 4)
    assert broadcast_shape("op", "leading dimensions", a, b, kept=2) == (2, 3)
    with pytest.raises(RuntimeError, match=r"op: shapes must broadcast, got \[2, 1, 5, 4\] and \[3, 6, 4\]"):
        broadcast_shape("op", "shapes", a, b)
