"""Plots of what `measure` found in finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_loss_distribution(figure: Figure, runs: Sequence[Any]) -> None:
    """The cumulative normalised loss over the examples, easiest first: foreground left, background right."""
    measured = runs[0].seeds[0].measured
    for axes, side in zip(figure.subplots(1, 2, sharey=True), ("foreground", "background"), strict=True):
        for gamma, shares in measured[side].items():
            axes.plot([100 * i / (len(shares) - 1) for i in range(len(shares))], shares, label=f"gamma {gamma}")
        axes.set(title=f"{measured[f'{side}_examples']:,} {side} examples", xlabel="easiest examples, percent")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("share of the loss")
    figure.axes[0].legend(frameon=False)


def draw_saturation(figure: Figure, runs: Sequence[Any]) -> None:
    """Through training: the median probability of positives, and the gradient of positives with gamma 2."""
    median, easy = figure.subplots(1, 2)
    for run in runs:
        snapshots = run.seeds[0].measured["snapshots"]
        steps, label = [snapshot["step"] for snapshot in snapshots], run.labels["training"]
        median.plot(steps, [snapshot["p_t"][2] for snapshot in snapshots], marker=".", label=label)
        shares = [snapshot["easy_share_of_positive_gradient"]["2"] for snapshot in snapshots]
        easy.plot(steps, shares, marker=".", label=label)
    median.set(xlabel="update", ylabel="p_t", title="Median probability of positives", ylim=(0, 1))
    easy.set(xlabel="update", ylabel="share", title="Gradient of easy positives (gamma 2)", ylim=(0, 1))
    for axes in (median, easy):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    median.legend(frameon=False, fontsize="small")
