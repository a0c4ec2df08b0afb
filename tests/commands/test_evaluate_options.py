"""`retina-ops evaluate`: the options of the metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retina_ops import cli


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """150 objects of one class in one image, all found."""
    boxes = [[12.0 * (i % 40), 12.0 * (i // 40), 10.0, 10.0] for i in range(150)]
    truth = {
        "images": [{"id": 1, "width": 500, "height": 500, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 100.0, "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 1 - i / 200} for i, box in enumerate(boxes)]
    for name, content in (("truth.json", truth), ("found.json", found)):
        (tmp_path / name).write_text(json.dumps(content))
    return str(tmp_path / "truth.json"), str(tmp_path / "found.json")


def evaluate(files: tuple[str, str], output: Path, *options: str) -> dict:
    truth, found = files
    cli.main(["evaluate", "--data", truth, "--detections", found, "--output", str(output), *options])
    return json.loads((output / "metrics.json").read_text())


def test_maximum_of_detections_and_iou_thresholds(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    default = evaluate(files, tmp_path / "default")
    assert default["AR100"] == pytest.approx(100 / 150)
    shown = capsys.readouterr()
    assert "more than 100 objects of a class (up to 150)" in shown.out + shown.err
    other = evaluate(files, tmp_path / "other", "--max-detections", "200", "--iou-thresholds", "0.5", "0.7")
    assert other["AP"] == other["AR200"] == 1.0 and other["AP75"] is None
    shown = capsys.readouterr()
    assert "AR200" in shown.out and "more than" not in shown.out + shown.err
