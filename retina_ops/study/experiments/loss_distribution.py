"""(g) How the loss is distributed over easy and hard examples."""

from __future__ import annotations

from .. import measure, measure_plots
from ..experiment import Budget, Experiment, Finished, Run, StudyData
from ..settings import base_config


def runs(data: StudyData, budget: Budget, finished: Finished) -> list[Run]:
    return [Run("focal", {"loss": "focal, gamma 2"}, base_config(data, budget))]


LOSS_DISTRIBUTION = Experiment(
    letter="g",
    name="loss-distribution",
    question="Which examples make up the loss of a trained model, over gamma?",
    paper="Figure 4: the hardest 20% of the positives carry about half of the loss, whatever gamma is; of the "
    "negatives nearly all of the loss moves to the hardest few as gamma grows.",
    runs=runs,
    measure=measure.loss_distribution,
    plot=measure_plots.draw_loss_distribution,
)
