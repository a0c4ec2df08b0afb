"""(h) One stage against two."""

from __future__ import annotations

from ..experiment import Budget, Experiment, Finished, Run, StudyData
from ..settings import base_config


def runs(data: StudyData, budget: Budget, finished: Finished) -> list[Run]:
    """The same data, backbone, input, anchors, optimizer and updates."""
    base = base_config(data, budget)
    return [
        Run("retinanet", {"detector": "RetinaNet"}, base, budget.seeds),
        Run("faster-rcnn", {"detector": "Faster R-CNN (torchvision)"}, base, budget.seeds, detector="faster_rcnn"),
    ]


STAGES = Experiment(
    letter="h",
    name="stages",
    question="Does one stage with the focal loss reach two stages, and at what speed?",
    paper="Table 2 (COCO test-dev): RetinaNet AP 39.1 with ResNet-101 and 40.8 with ResNeXt-101, against 36.2 for "
    "Faster R-CNN with FPN; Figure 2: faster at equal accuracy.",
    runs=runs,
    data=("digits", "bccd"),
    x="detector",
)
