"""What a trained model does with easy and hard examples: distributions of losses, scores and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import match_anchors, sigmoid_focal_loss
from ..data.dataset import DetectionDataset
from ..errors import needs_extra
from ..models import RetinaNet, load_model
from ..reference.head_outputs import by_anchor
from ..training import TrainConfig
from ..training.datasets import open_run_datasets
from ..training.resuming import BEST
from ..training.trainer import SNAPSHOTS

with needs_extra("train"):
    import torch
    from torch import Tensor

IMAGES = 100  # of the validation set
GAMMAS = (0.0, 0.5, 1.0, 2.0)
SATURATION_GAMMAS = (0.0, 1.0, 2.0, 5.0)
POINTS = 101  # of a cumulative distribution
EASY = 0.9  # probability of the right answer from which an example is easy


@dataclass(frozen=True)
class ScoredExamples:
    """The logits of a model's anchors and classes.

    Attributes:
        foreground: of each foreground anchor and its class, ``[F]``.
        background: of all other pairs of an anchor that is not ignored and a class, ``[N]``.
    """

    foreground: Tensor
    background: Tensor


@torch.no_grad()
def score_examples(model: RetinaNet, dataset: DetectionDataset, images: int = IMAGES) -> ScoredExamples:
    """The logits of the first images of a data set, with the model's own matching of anchors."""
    model = model.eval()
    foreground, background = [], []
    for index in range(min(images, len(dataset))):
        image, target = dataset[index]
        batch, targets = model.transform([image.float() / 255], [target])
        features = list(model.backbone(batch.tensors).values())
        outputs = model.head(features, raw_maps=True)
        anchors = model._anchor_cache.get(model.anchor_generator, tuple(batch.tensors.shape[-2:]), features)
        logits = torch.cat(by_anchor(outputs["cls_logits"], outputs["bbox_regression"])[0], dim=1)[0]
        options = model.loss_options
        boxes, labels = targets[0]["boxes"], targets[0]["labels"]
        matches = match_anchors(anchors, boxes, options.fg_iou_thresh, options.bg_iou_thresh)
        is_positive = torch.zeros_like(logits, dtype=torch.bool)
        objects = matches >= 0
        is_positive[objects, labels[matches[objects]]] = True
        foreground.append(logits[is_positive])
        background.append(logits[(matches != -2)[:, None] & ~is_positive])
    return ScoredExamples(torch.cat(foreground), torch.cat(background))


def focal_terms(logits: Tensor, is_positive: bool, gamma: float) -> tuple[Tensor, Tensor]:
    """The focal loss of each logit without alpha, and the size of its derivative, in float64."""
    logits = logits.double().requires_grad_()
    loss = sigmoid_focal_loss(logits, torch.full_like(logits, float(is_positive)), -1, gamma)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient.abs()


def cumulative_loss(losses: Tensor) -> list[float]:
    """The share of the total loss in the easiest 0%, 1%, ... 100% of the examples."""
    ascending = losses.sort().values.cumsum(0)
    places = torch.linspace(0, len(ascending), POINTS).long()
    shares = torch.cat([ascending.new_zeros(1), ascending / ascending[-1]])[places]
    return [round(share, 6) for share in shares.tolist()]


def loss_distribution(folder: Path, config: TrainConfig) -> dict[str, Any]:
    """The cumulative distribution of the normalised loss over foreground and background, as in Figure 4 of the paper.

    Args:
        folder: of a finished run.
        config: of the run.

    Returns:
        ``images``, ``foreground_examples``, ``background_examples``; ``foreground`` and ``background``: for each gamma
        the share of the loss in the easiest 0% to 100% of the examples.
    """
    examples = score_examples(load_model(folder / BEST), _validation_set(config))
    return {
        "images": IMAGES,
        "foreground_examples": len(examples.foreground),
        "background_examples": len(examples.background),
        "foreground": {f"{g:g}": cumulative_loss(focal_terms(examples.foreground, True, g)[0]) for g in GAMMAS},
        "background": {f"{g:g}": cumulative_loss(focal_terms(examples.background, False, g)[0]) for g in GAMMAS},
    }


def saturation(folder: Path, config: TrainConfig) -> dict[str, Any]:
    """How easy the positives are through training, and what gradient they get.

    Returns:
        ``snapshots``: for each one ``step``, ``p_t``: the 5%, 25%, 50%, 75% and 95% quantiles of the probability of
        foreground anchors for their class, ``easy``: the share of them from `EASY`, and by gamma
        ``easy_share_of_positive_gradient`` and ``positive_share_of_gradient`` (with equal weights of both sides).
    """
    dataset = _validation_set(config)
    return {"snapshots": [_saturation_of(path, dataset) for path in _snapshots(folder)]}


def _saturation_of(path: Path, dataset: DetectionDataset) -> dict[str, Any]:
    examples = score_examples(load_model(path), dataset)
    p_t = examples.foreground.sigmoid().double()
    result: dict[str, Any] = {
        "step": int(path.name.removeprefix("step-")),
        "p_t": [round(q, 4) for q in p_t.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).double()).tolist()],
        "easy": round((p_t >= EASY).double().mean().item(), 4),
        "easy_share_of_positive_gradient": {},
        "positive_share_of_gradient": {},
    }
    for gamma in SATURATION_GAMMAS:
        positives = focal_terms(examples.foreground, True, gamma)[1]
        negatives = focal_terms(examples.background, False, gamma)[1].sum()
        easy = positives[p_t >= EASY].sum() / positives.sum()
        share = positives.sum() / (positives.sum() + negatives)
        result["easy_share_of_positive_gradient"][f"{gamma:g}"] = round(easy.item(), 6)
        result["positive_share_of_gradient"][f"{gamma:g}"] = round(share.item(), 6)
    return result


def _snapshots(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / SNAPSHOTS).glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def _validation_set(config: TrainConfig) -> DetectionDataset:
    dataset = open_run_datasets(config.data).val
    assert dataset is not None, "studies have a validation set"
    return dataset
