"""(e) Accuracy against speed over depth and input size."""

from __future__ import annotations

from ..experiment import Budget, Experiment, Finished, Run, StudyData
from ..settings import base_config, changed

ARCHITECTURES = {"small": "retinanet_small_fpn", "ResNet-18": "retinanet_resnet18_fpn"}
SIZES = (128, 160, 192, 256)


def runs(data: StudyData, budget: Budget, finished: Finished) -> list[Run]:
    base = base_config(data, budget)
    return [
        Run(
            f"{name.lower()}-{size}",
            {"backbone": name, "input size": size},
            changed(
                base,
                model__architecture=architecture,
                model__norm="group",
                model__min_size=size,
                model__max_size=size,
                # Anchors keep their size relative to the digits.
                model__base_sizes=tuple(side * size / base.model.min_size for side in base.model.base_sizes),
            ),
        )
        for name, architecture in ARCHITECTURES.items()
        for size in SIZES
    ]


ACCURACY_SPEED = Experiment(
    letter="e",
    name="accuracy-speed",
    question="What do a deeper backbone and larger images cost, and what do they give?",
    paper="Table 1e and Figure 2 (COCO): ResNet-50 AP 30.5 at 400 pixels to 35.7 at 800, ResNet-101 31.9 to 37.8; "
    "larger images and deeper backbones are better and slower.",
    runs=runs,
    x="input size",
    line="backbone",
)
