"""The evaluation report: its numbers, a page without references, and how a browser shows it."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from requirements import require

from retina_ops.cli import main
from retina_ops.data import write_coco
from retina_ops.data.digits import DigitScenes
from retina_ops.data.export import ground_truth_of
from retina_ops.evaluation import evaluate_detections
from retina_ops.evaluation.detections import load_detections, load_ground_truth
from retina_ops.evaluation.report import image_loader, write_evaluation_report

SCENES = DigitScenes("val", 12)


def simulated(seed: int = 0) -> list[dict[str, Any]]:
    """Detections near most objects: some twice, some of another class, and false alarms."""
    draw = random.Random(seed)
    found = []
    for entry in ground_truth_of(SCENES)["annotations"]:
        x, y, w, h = entry["bbox"]
        for _ in range(draw.choice([0, 1, 1, 1, 2])):
            box = [x + draw.gauss(0, w / 12), y + draw.gauss(0, h / 12), w, h]
            category = entry["category_id"] if draw.random() < 0.9 else draw.randrange(10)
            found.append({"image_id": entry["image_id"], "category_id": category, "bbox": box, "score": draw.random()})
        if draw.random() < 0.3:
            box = [draw.random() * 200, draw.random() * 200, 30, 40]
            found.append({"image_id": entry["image_id"], "category_id": 1, "bbox": box, "score": draw.random() / 2})
    return found


def written(path: Path, found: list[dict[str, Any]], truth: Any = None) -> dict[str, Any]:
    truth = load_ground_truth(truth or ground_truth_of(SCENES))
    metrics = evaluate_detections(truth, found)
    numbers = path.with_suffix(".json")
    write_evaluation_report(
        truth,
        load_detections(found, truth),
        metrics,
        path,
        numbers,
        title="Digits & <others>",
        load_image=image_loader(SCENES),
    )
    return json.loads(numbers.read_text())  # type: ignore[no-any-return]


class Reader(HTMLParser):
    """What a page shows and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: dict[str, int] = {}
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not re.match(r"#|data:image/(jpeg|png);base64,", value or ""):
                self.references.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    return reader


def test_numbers(tmp_path: Path) -> None:
    """Every detection from the thresholds on is a hit or one kind of false alarm; every object is found or missed."""
    found = simulated()
    numbers = written(tmp_path / "report.html", found)
    objects = len(ground_truth_of(SCENES)["annotations"])
    assert numbers["hits"] + numbers["missed"] == objects
    thresholds = {row["category_id"]: row["best_threshold"] for row in numbers["classes"]}
    chosen = [d for d in found if d["score"] >= (thresholds[d["category_id"]] or 2)]
    assert numbers["hits"] + sum(numbers["false_alarms"].values()) == len(chosen)
    assert min(numbers["false_alarms"].values()) >= 0 and sum(numbers["false_alarms"].values()) > 0
    counts = torch.tensor(numbers["confusion"]["counts"])
    assert int(counts.diagonal().sum()) == numbers["hits"]
    for row in numbers["classes"]:
        if row["f1"] is not None:
            both = row["precision"] + row["recall"]
            assert row["f1"] == pytest.approx(2 * row["precision"] * row["recall"] / both if both else 0)
    assert numbers["metrics"] == evaluate_detections(ground_truth_of(SCENES), found)


def test_page(tmp_path: Path) -> None:
    written(tmp_path / "report.html", simulated())
    page = read(tmp_path / "report.html")
    assert page.references == [] and page.tags["svg"] == 7 and page.tags["img"] == 12
    assert page.texts.count("Digits & <others>") == 2  # title and heading, escaped
    assert "url(http" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("kind", ["no detections", "no objects", "one class"])
def test_extremes(tmp_path: Path, kind: str) -> None:
    truth = ground_truth_of(SCENES)
    found = simulated()
    if kind == "no detections":
        found = []
    elif kind == "no objects":
        truth = {**truth, "annotations": []}
    else:
        truth["categories"] = truth["categories"][1:2]
        truth["annotations"] = [entry for entry in truth["annotations"] if entry["category_id"] == 1]
        found = [entry for entry in found if entry["category_id"] == 1]
    numbers = written(tmp_path / "report.html", found, truth)
    assert read(tmp_path / "report.html").tags["svg"] == 7
    assert numbers["hits"] == 0 or kind == "one class"


def test_odd_class_names(tmp_path: Path) -> None:
    """Mathematics of matplotlib, markup, control characters, long names and a lone surrogate are shown as text."""
    truth = ground_truth_of(SCENES)
    odd = [r"$\frac{$", "<script>alert(1)</script>", "a\x1b[31mb", "x" * 10_000, "\ud800", "细胞"]
    for category, name in zip(truth["categories"], odd, strict=False):
        category["name"] = name
    written(tmp_path / "report.html", simulated(), truth)
    page = read(tmp_path / "report.html")
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.texts and "a?[31mb" in page.texts and "细胞" in page.texts


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file of detections and a COCO file with its images."""
    write_coco(SCENES, tmp_path / "data", "val")
    (tmp_path / "found.json").write_text(json.dumps(simulated()))
    arguments = ["--data", str(tmp_path / "data" / "annotations" / "val.json"), "--output", str(tmp_path / "out")]
    report = tmp_path / "report.html"
    assert main(["evaluate", *arguments, "--detections", str(tmp_path / "found.json"), "--report", str(report)]) == 0
    assert f"report: {report}" in capsys.readouterr().out
    assert read(report).tags["img"] == 12


@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_it(tmp_path: Path, width: int) -> None:
    """No error on the console, every picture is drawn, and nothing is wider than the window."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    require(browser is not None, "chromium")
    assert browser is not None
    written(tmp_path / "report.html", simulated())
    probe = (
        "<script>addEventListener('load', () => { const d = document; d.title = JSON.stringify({"
        "wide: d.documentElement.scrollWidth <= innerWidth,"
        "drawn: [...d.images].every(i => i.complete && i.naturalWidth > 0),"
        "plots: [...d.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 50),"
        "text: parseFloat(getComputedStyle(d.querySelector('p')).fontSize) >= 14}); });</script></body>"
    )
    page = tmp_path / "probed.html"
    # Headless Chromium has windows of at least 500 pixels, so a frame of the width that is asked for holds the page.
    inner = (tmp_path / "report.html").read_text().replace("</body>", probe)
    page.write_text(inner)
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<!DOCTYPE html><body><iframe src='probed.html' style='width: {width}px; height: 2000px; border: 0'></iframe>"
        "<pre></pre><script>setTimeout(() => { document.querySelector('pre').textContent ="
        "document.querySelector('iframe').contentDocument.title; }, 1500)</script></body>"
    )
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        "--enable-logging=stderr", "--window-size=1500,2000", "--virtual-time-budget=8000",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{frame}",
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in run.stderr, run.stderr[-2000:]
    found = re.search(r"<pre>(\{.*?\})</pre>", run.stdout)
    assert found is not None, run.stdout[-500:]
    assert json.loads(found[1]) == {"wide": True, "drawn": True, "plots": True, "text": True}


def test_pictures_are_jpeg_of_a_readable_size(tmp_path: Path) -> None:
    written(tmp_path / "report.html", simulated())
    encoded = re.findall(r"image/jpeg;base64,([^\"]+)", (tmp_path / "report.html").read_text())
    for data in encoded:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.format == "JPEG" and picture.size == (256, 256)
