"""(c) Anchor scales and aspect ratios per cell."""

from __future__ import annotations

from ..experiment import Budget, Experiment, Finished, Run, StudyData
from ..settings import base_config, changed

RATIOS = {1: (1.0,), 3: (0.5, 1.0, 2.0)}
GRID = ((1, 1), (2, 1), (3, 1), (1, 3), (2, 3), (3, 3), (4, 3))  # scales, aspect ratios


def runs(data: StudyData, budget: Budget, finished: Finished) -> list[Run]:
    base = base_config(data, budget)
    return [
        Run(
            f"scales-{scales}-ratios-{ratios}",
            {"scales": scales, "aspect ratios": ratios},
            changed(
                base,
                model__anchor_scales=tuple(2 ** (step / scales) for step in range(scales)),
                model__aspect_ratios=RATIOS[ratios],
            ),
        )
        for scales, ratios in GRID
    ]


ANCHORS = Experiment(
    letter="c",
    name="anchors",
    question="How many anchor scales and aspect ratios does a cell need?",
    paper="Table 1c (COCO, ResNet-50), AP for scales x ratios: 1x1 30.3, 2x1 31.9, 3x1 31.8, 1x3 32.4, 2x3 34.2, "
    "3x3 34.0, 4x3 33.8.",
    runs=runs,
    x="scales",
    line="aspect ratios",
)
