"""(f) The prior of the first scores."""

from __future__ import annotations

from ..experiment import Budget, Experiment, Finished, Run, StudyData
from ..settings import base_config, changed, with_loss


def runs(data: StudyData, budget: Budget, finished: Finished) -> list[Run]:
    base = base_config(data, budget)
    losses = {"cross entropy": {"classification": "cross_entropy", "alpha": -1.0}, "focal": {}}
    return [
        Run(
            f"{name.replace(' ', '-')}-prior-{prior:g}",
            {"loss": name, "prior": prior},
            changed(with_loss(base, **options), model__prior=prior),
        )
        for name, options in losses.items()
        for prior in (0.5, 0.01)
    ]


PRIOR = Experiment(
    letter="f",
    name="prior",
    question="What does training do without the prior, when every first score is 0.5?",
    paper="Section 4.1: training RetinaNet with plain cross entropy diverges without the prior pi = 0.01; results are "
    "insensitive to the exact value of pi.",
    runs=runs,
    x="prior",
    line="loss",
)
