"""Runs that end after a number of updates, and the weights that they keep on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training.runs import small_config, write_digits

from retina_ops.models import load_model
from retina_ops.training import train
from retina_ops.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def test_max_steps_and_snapshots(tmp_path: Path, digits: Path) -> None:
    """The run ends within its second epoch, at exactly so many updates, with the learning rate of its end."""
    config = small_config(digits, epochs=100, batch_size=2, max_steps=6, snapshots=3, ema_decay=0.5)
    metrics = train(config, tmp_path)
    assert metrics["steps"] == 6 and metrics["epochs"] == 1.5
    kept = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert kept == ["step-2", "step-4", "step-6"]
    last = load_checkpoint(tmp_path)["ema"]
    for name, value in load_model(tmp_path / "snapshots" / "step-6").state_dict().items():
        assert torch.equal(value, last[f"module.{name}"])


def test_max_steps_of_a_resumed_run(tmp_path: Path, digits: Path) -> None:
    """A run that is over does nothing more."""
    config = small_config(digits, epochs=100, batch_size=2, max_steps=3)
    train(config, tmp_path)
    before = load_checkpoint(tmp_path)["model"]
    assert train(config, tmp_path, resume=True)["steps"] == 3
    after = load_checkpoint(tmp_path)["model"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_more_steps_than_epochs_give(tmp_path: Path, digits: Path) -> None:
    assert train(small_config(digits, epochs=1, batch_size=4, max_steps=1000), tmp_path)["steps"] == 2
