"""One file per experiment."""

from ..experiment import Experiment
from .accuracy_speed import ACCURACY_SPEED
from .alpha import ALPHA
from .anchors import ANCHORS
from .gamma import GAMMA
from .hard_examples import HARD_EXAMPLES
from .loss_distribution import LOSS_DISTRIBUTION
from .prior import PRIOR
from .saturation import SATURATION
from .stages import STAGES

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        ALPHA,
        GAMMA,
        ANCHORS,
        HARD_EXAMPLES,
        ACCURACY_SPEED,
        PRIOR,
        LOSS_DISTRIBUTION,
        STAGES,
        SATURATION,
    )
}
