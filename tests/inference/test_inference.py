"""The loop of inference: an image is decoded once, and the mode of the model comes back however the loop ends."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from retina_ops import models
from retina_ops.data import DataWarning, read_image
from retina_ops.inference import detect_batches, files, predict_files


class OneBox(nn.Module):
    """A detector that finds one object in every image, and counts the forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.categories = [{"id": 3, "name": "cat"}]
        self.passes: list[int] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        assert not self.training and not torch.is_grad_enabled()
        self.passes.append(len(images))
        boxes = torch.tensor([[-1.0, 2, 300, 9]])
        return [{"boxes": boxes, "scores": torch.tensor([0.9]), "labels": torch.tensor([0])} for _ in images]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in "abcde"]
    for grey, path in enumerate(paths):
        Image.new("L", (30, 20), grey).save(path)
    return paths


def test_an_image_is_decoded_once(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(files, "read_image", lambda path: decoded.append(path) or read_image(path))
    model = OneBox().train()
    found = list(predict_files(model, pictures, batch_size=2, with_images=True))
    assert decoded == pictures and model.passes == [2, 2, 1] and model.training
    for path, result in zip(pictures, found, strict=True):
        assert result["path"] == path and torch.equal(result["image"], read_image(path))
        assert result["boxes"].tolist() == [[0, 2, 30, 9]] and result["names"] == ["cat"]
    assert all("image" not in result for result in predict_files(model, pictures))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_where_the_loop_ends_early(pictures: list[Path], training: bool) -> None:
    model = OneBox().train(training)
    for _ in predict_files(model, pictures, batch_size=1):
        assert not model.training
        break
    assert model.training == training and model.passes == [1]
    with pytest.raises(RuntimeError, match="stop"):
        for _ in detect_batches(model, iter([([torch.zeros(3, 8, 8)], None)])):
            raise RuntimeError("stop")
    assert model.training == training


def test_a_warning_names_the_line_that_iterates(pictures: list[Path]) -> None:
    pictures[1].write_bytes(b"not an image")
    model = OneBox()
    with pytest.warns(DataWarning, match=r"skipped .*b\.png") as caught:
        found = [result["path"].name for result in predict_files(model, pictures[:2], batch_size=2)]
    assert found == ["a.png"] and caught[0].filename == __file__ and model.passes == [1]
    with pytest.warns(DataWarning):
        assert list(predict_files(model, pictures[1])) == [] and model.passes == [1]


def test_old_module_name_warns() -> None:
    sys.modules.pop("retina_ops.models.prediction", None)
    with pytest.warns(FutureWarning, match=r"retina_ops\.models\.prediction is now retina_ops\.inference") as caught:
        old = importlib.import_module("retina_ops.models.prediction")
    assert len(caught) == 1 and old.predict_files is models.predict_files is predict_files
