"""Draws the figures of docs/focal-loss.md that need no training: python docs/figures/draw.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure

from retina_ops import sigmoid_focal_loss

FOLDER = Path(__file__).parent
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)


def loss_of(p_t: torch.Tensor, gamma: float) -> torch.Tensor:
    """The focal loss of a positive whose probability is p_t, without alpha."""
    logits = torch.logit(p_t)
    return sigmoid_focal_loss(logits, torch.ones_like(logits), -1, gamma)


def derivative_of(p_t: torch.Tensor, gamma: float) -> torch.Tensor:
    """The size of the loss's derivative by the logit."""
    logits = torch.logit(p_t).requires_grad_()
    loss = sigmoid_focal_loss(logits, torch.ones_like(logits), -1, gamma)
    return torch.autograd.grad(loss.sum(), logits)[0].abs()


def loss_over_probability() -> Figure:
    """Figure 1 of the paper."""
    p_t = torch.linspace(0.005, 0.999, 400, dtype=torch.float64)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for gamma in GAMMAS:
        axes.plot(p_t, loss_of(p_t, gamma), label=f"gamma {gamma:g}" + (" (cross entropy)" if gamma == 0 else ""))
    axes.set(xlabel="probability of the right answer, p_t", ylabel="loss", ylim=(0, 5), xlim=(0, 1))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def gradient_over_probability() -> Figure:
    """The size of the derivative by the logit: what an example does to the weights."""
    p_t = torch.linspace(0.005, 0.995, 400, dtype=torch.float64)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for gamma in GAMMAS:
        axes.plot(p_t, derivative_of(p_t, gamma), label=f"gamma {gamma:g}")
    axes.set(
        xlabel="probability of the right answer, p_t", ylabel="derivative by the logit", ylim=(0, 1.5), xlim=(0, 1)
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "retina_ops"  # the same file from every run
    for name, figure in (("loss", loss_over_probability()), ("gradient", gradient_over_probability())):
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None})
    for probability in (0.9, 0.968):
        p_t = torch.tensor([probability], dtype=torch.float64)
        ratio = (loss_of(p_t, 0.0) / loss_of(p_t, 2.0)).item()
        by_logit = (derivative_of(p_t, 0.0) / derivative_of(p_t, 2.0)).item()
        print(
            f"p_t {probability}: cross entropy / focal loss (gamma 2) = {ratio:.0f}, of the derivatives {by_logit:.0f}"
        )


if __name__ == "__main__":
    main()
