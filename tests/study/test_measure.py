"""What studies measure on a model: against the definitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training.runs import small_config, write_digits

from retina_ops.data import open_dataset
from retina_ops.models import build_model, load_model
from retina_ops.study import measure
from retina_ops.study.measure import cumulative_loss, focal_terms, loss_distribution, saturation, score_examples
from retina_ops.training import TrainConfig, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainConfig]:
    config = small_config(write_digits(tmp_path_factory.mktemp("digits"), 4), epochs=100, max_steps=4, snapshots=2)
    folder = tmp_path_factory.mktemp("run")
    train(config, folder)
    return folder, config


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("is_positive", [True, False])
def test_focal_terms(gamma: float, is_positive: bool) -> None:
    logits = torch.randn(50, dtype=torch.float64) * 4
    p_t = (logits if is_positive else -logits).sigmoid()
    loss, gradient = focal_terms(logits.float(), is_positive, gamma)
    torch.testing.assert_close(loss, -((1 - p_t) ** gamma) * p_t.log(), rtol=1e-5, atol=1e-6)
    by_p = (1 - p_t) ** gamma * (gamma * p_t * p_t.log() + p_t - 1)  # d/dx_t; Lin et al. 2017, appendix B
    torch.testing.assert_close(gradient, by_p.abs(), rtol=1e-5, atol=1e-6)


def test_cumulative_loss() -> None:
    """The easiest half of 0, 1, 2, 3, ... carries a fourth of the loss; all carry all."""
    shares = cumulative_loss(torch.arange(10_000, dtype=torch.float64).flip(0))
    assert len(shares) == 101 and shares[0] == 0 and shares[100] == 1
    assert shares[50] == pytest.approx(0.25, abs=1e-3) and shares == sorted(shares)


def test_examples_of_a_fresh_model(run: tuple[Path, TrainConfig]) -> None:
    """Every pair of an anchor and a class is foreground, background or of an ignored anchor; scores are the prior."""
    config = run[1]
    dataset = open_dataset(config.data.train, split="val")
    model = build_model(config.model, dataset.categories)
    examples = score_examples(model, dataset)
    cells = sum((128 // stride) ** 2 for stride in (8, 16, 32, 64, 128))
    pairs = len(dataset) * cells * 9 * 10
    assert 0 < len(examples.foreground) < len(examples.background) <= pairs
    assert (pairs - len(examples.background) - len(examples.foreground)) % 10 == 0  # whole anchors are ignored
    assert examples.background.sigmoid().mean().item() == pytest.approx(0.01, rel=0.5)


def test_loss_distribution(run: tuple[Path, TrainConfig]) -> None:
    found = json.loads(json.dumps(loss_distribution(*run)))
    for side in ("foreground", "background"):
        assert list(found[side]) == ["0", "0.5", "1", "2"]
        for shares in found[side].values():
            assert len(shares) == 101 and shares[0] == 0 and shares[-1] == 1
    # A larger gamma moves the loss to the hard examples: the easiest half has less.
    halves = [found["background"][gamma][50] for gamma in ("0", "0.5", "1", "2")]
    assert halves == sorted(halves, reverse=True) and halves[0] > halves[-1]


def test_saturation(run: tuple[Path, TrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the median on, half of the positives are easy. Shares of the gradient follow from the loss's derivative."""
    folder, config = run
    dataset = open_dataset(config.data.train, split="val")
    p_t = score_examples(load_model(folder / "snapshots" / "step-4"), dataset).foreground.sigmoid()
    monkeypatch.setattr(measure, "EASY", p_t.median().item())
    first, last = json.loads(json.dumps(saturation(folder, config)))["snapshots"]
    assert (first["step"], last["step"]) == (2, 4)
    assert last["p_t"][2] == pytest.approx(p_t.quantile(0.5).item(), abs=1e-4)
    assert last["easy"] == pytest.approx(0.5, abs=0.05)
    assert list(last["easy_share_of_positive_gradient"]) == ["0", "1", "2", "5"]
    p_t = p_t.double()
    for gamma, share in last["easy_share_of_positive_gradient"].items():
        gradient = ((1 - p_t) ** float(gamma) * (float(gamma) * p_t * p_t.log() + p_t - 1)).abs()
        expected = gradient[p_t >= measure.EASY].sum() / gradient.sum()
        assert share == pytest.approx(expected.item(), abs=1e-3)
    assert all(0 < share <= 1 for share in last["positive_share_of_gradient"].values())
