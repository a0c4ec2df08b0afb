"""(b) The focal loss over gamma, with the best alpha of each."""

from __future__ import annotations

from ..experiment import Budget, Experiment, Finished, Run, StudyData
from ..settings import base_config, with_loss

# The paper's best alpha for each gamma, and the neighbours that are tried as well.
PAPER = {0.0: 0.75, 0.1: 0.75, 0.2: 0.75, 0.5: 0.5, 1.0: 0.25, 2.0: 0.25, 5.0: 0.25}
ALPHAS = (0.25, 0.5, 0.75)


def runs(data: StudyData, budget: Budget, finished: Finished) -> list[Run]:
    """First every gamma with every alpha, with one seed; then the best alpha of each gamma with all seeds."""
    grid = {(gamma, alpha): _run(data, budget, gamma, alpha, 1) for gamma in PAPER for alpha in ALPHAS}
    result = list(grid.values())
    if all(run.name in finished for run in result) and budget.seeds > 1:
        for gamma in PAPER:
            best = max(ALPHAS, key=lambda alpha: finished[grid[gamma, alpha].name])
            result.append(_run(data, budget, gamma, best, budget.seeds))
    return result


def _run(data: StudyData, budget: Budget, gamma: float, alpha: float, seeds: int) -> Run:
    config = with_loss(base_config(data, budget), gamma=gamma, alpha=alpha)
    return Run(f"gamma-{gamma:g}-alpha-{alpha:g}", {"gamma": gamma, "alpha": alpha}, config, seeds)


GAMMA = Experiment(
    letter="b",
    name="gamma",
    question="Does the focal loss beat balanced cross entropy (gamma 0), and which gamma is best?",
    paper="Table 1b (COCO, ResNet-50): AP 31.1 at gamma 0 (alpha 0.75), 31.4 at 0.1, 31.9 at 0.2, 32.9 at 0.5, "
    "33.7 at 1, 34.0 at 2 (alpha 0.25), 32.2 at 5.",
    runs=runs,
    data=("digits", "bccd"),
    x="gamma",
    line="alpha",
)
