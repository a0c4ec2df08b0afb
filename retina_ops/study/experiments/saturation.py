"""(i) Do positives that became easy starve?"""

from __future__ import annotations

from .. import measure, measure_plots
from ..experiment import Budget, Experiment, Finished, Run, StudyData
from ..settings import base_config, changed, with_loss

GAMMAS = (0.0, 1.0, 2.0, 5.0)
LOWERED = (2.0, 1.0, 0.0)


def runs(data: StudyData, budget: Budget, finished: Finished) -> list[Run]:
    """Training with each gamma; then from the weights of gamma 2, half as long again, with gamma 2, 1 and 0."""
    base = base_config(data, budget)
    first = [
        Run(
            f"gamma-{gamma:g}",
            {"training": f"gamma {gamma:g}"},
            changed(with_loss(base, gamma=gamma), snapshots=8),
            budget.seeds,
        )
        for gamma in GAMMAS
    ]
    longer = changed(base, max_steps=max(1, budget.steps // 2), optimizer__lr=base.optimizer.lr / 4, snapshots=4)
    continued = [
        Run(
            f"gamma-2-then-{gamma:g}",
            {"training": f"gamma 2, then {gamma:g}"},
            with_loss(longer, gamma=gamma),
            budget.seeds,
            starts_from="gamma-2",
        )
        for gamma in LOWERED
    ]
    return first + continued


SATURATION = Experiment(
    letter="i",
    name="saturation",
    question="Do positives that became easy get too little gradient, and does it help to lower gamma then?",
    paper="Not in the paper: it lowers the weight of every easy example, positives too. Varifocal loss (Zhang et al. "
    "2021) and quality focal loss (Li et al. 2020) treat positives otherwise.",
    runs=runs,
    measure=measure.saturation,
    plot=measure_plots.draw_saturation,
    x="training",
)
