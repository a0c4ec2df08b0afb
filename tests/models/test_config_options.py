"""Settings of a model that change its anchors and its first scores."""

from __future__ import annotations

import pytest
import torch

from retina_ops.models import ModelConfig, build_model

CATEGORIES = [{"id": 1, "name": "cell"}, {"id": 2, "name": "platelet"}]


def tiny(**options: object) -> ModelConfig:
    return ModelConfig(architecture="retinanet_small_fpn", fpn_channels=16, head_depth=1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("scales", "ratios"), [((1.0,), (1.0,)), ((1.0, 1.5), (0.5, 1.0, 2.0))])
def test_anchors_per_cell(scales: tuple[float, ...], ratios: tuple[float, ...]) -> None:
    model = build_model(tiny(anchor_scales=scales, aspect_ratios=ratios), CATEGORIES)
    count = len(scales) * len(ratios)
    assert model.anchor_generator.num_anchors_per_location() == [count] * 5
    assert model.head.classification_head.predictor.out_channels == count * 2


@pytest.mark.parametrize("prior", [0.01, 0.5])
def test_prior_is_the_first_score(prior: float) -> None:
    model = build_model(tiny(prior=prior), CATEGORIES)
    bias = model.head.classification_head.predictor.bias
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, prior))


def test_old_configurations_have_the_defaults() -> None:
    """A `config.json` that was written before these settings existed."""
    plain = tiny().to_dict()
    del plain["anchor_scales"], plain["prior"]
    assert ModelConfig.from_dict(plain) == tiny()
