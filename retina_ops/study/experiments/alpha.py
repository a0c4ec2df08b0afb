"""(a) Cross entropy over alpha."""

from __future__ import annotations

from ..experiment import Budget, Experiment, Finished, Run, StudyData
from ..settings import base_config, with_loss

ALPHAS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)


def runs(data: StudyData, budget: Budget, finished: Finished) -> list[Run]:
    base = base_config(data, budget)
    return [
        Run(f"alpha-{alpha:g}", {"alpha": alpha}, with_loss(base, classification="cross_entropy", alpha=alpha))
        for alpha in ALPHAS
    ]


ALPHA = Experiment(
    letter="a",
    name="alpha",
    question="How far does balancing cross entropy by a weight alpha of the positives go?",
    paper="Table 1a (COCO, ResNet-50, 600 pixels): AP 0.0 at alpha 0.1, 10.8, 30.2, 31.1 at 0.75, 30.8, 28.7, 25.1.",
    runs=runs,
    x="alpha",
)
