"""(d) The focal loss against online hard example mining and against AP loss."""

from __future__ import annotations

from typing import Any

from ..experiment import Budget, Experiment, Finished, Run, StudyData
from ..settings import base_config, with_loss


def runs(data: StudyData, budget: Budget, finished: Finished) -> list[Run]:
    base = base_config(data, budget)
    losses: dict[str, dict[str, Any]] = {
        "cross entropy": {"classification": "cross_entropy", "alpha": 0.75},
        "OHEM 128": {"classification": "ohem", "ohem_examples": 128, "alpha": -1.0},
        "OHEM 512": {"classification": "ohem", "ohem_examples": 512, "alpha": -1.0},
        "OHEM 512, 1:3": {"classification": "ohem", "ohem_examples": 512, "ohem_ratio": 3.0, "alpha": -1.0},
        "FL*, gamma 2, beta 1": {"classification": "focal_star", "gamma": 2.0, "focal_star_beta": 1.0},
        "AP loss": {"classification": "ap_loss"},
        "focal": {},
    }
    return [
        Run(_folder(name), {"loss": name}, with_loss(base, **options), budget.seeds) for name, options in losses.items()
    ]


def _folder(name: str) -> str:
    return name.lower().replace("*", "-star").replace(":", "to").replace(",", "").replace(" ", "-")


HARD_EXAMPLES = Experiment(
    letter="d",
    name="hard-examples",
    question="Weigh all examples (focal loss), choose the hardest (OHEM) or rank them (AP loss), at the same steps?",
    paper="Table 1d (COCO, ResNet-101): AP 32.8 with the best OHEM, 31.1 with OHEM 1:3, 36.0 with the focal loss. "
    "Table 3: FL* 33.8 and 33.9 against 34.0. Chen et al. 2019: AP loss 37.4 (ResNet-101).",
    runs=runs,
    data=("digits", "bccd"),
    x="loss",
)
