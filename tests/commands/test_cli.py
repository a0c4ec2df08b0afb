"""The command line: the files that it writes, and its answers to wrong input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from requirements import SHARED_DATA, require
from training.runs import small_config, write_digits

from retina_ops import __version__
from retina_ops.cli import COMMANDS, main
from retina_ops.data.digits import DEFAULT_LENGTHS
from retina_ops.models import ModelConfig, build_model, save_model
from retina_ops.settings import read_toml, to_toml
from retina_ops.training import TrainConfig

DIGITS = [{"id": digit, "name": str(digit)} for digit in range(10)]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"), 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model whose scores are high enough to be drawn."""
    config = ModelConfig(architecture="retinanet_small_fpn", min_size=128, max_size=128, fpn_channels=32, head_depth=1)
    config.detections_per_img = 5
    model = build_model(config, DIGITS)
    model.head.classification_head.cls_logits.bias.data.fill_(1.0)
    return save_model(model, tmp_path_factory.mktemp("weights"))


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)
    assert run() == 2
    capsys.readouterr()
    assert run("fly") == 2 and "unknown command 'fly'; known are train" in one_line(capsys)
    assert run("--version") == 0 and capsys.readouterr().out == f"retina-ops {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(name, "--help")
    assert ended.value.code == 0
    text = re.sub(r"[│╭╮╰╯─|+]|-{3,}", " ", capsys.readouterr().out)
    assert "--output" in text
    text = re.sub(r",\s*\n\s+--", ", --", text)  # a long pair --x, --no-x has two lines
    options = re.split(r"\n\s+(?=--|-h)", text.split("options", 1)[1])[1:]
    for option in options:
        words = re.sub(r"\((default|required)[^)]*\)|--\S+|\{[^}]*\}|\[?[A-Z]{3,}\S*", "", option).split()
        assert words, option


def test_wrong_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("train", "--epochs", "many")
    assert ended.value.code == 2


def test_env(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("env", "--output", tmp_path) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "env.json").read_text())
    assert printed["retina_ops"] == __version__ and printed["build"]["cpu"] is True


def test_env_and_errors_on_the_base_installation() -> None:
    """Without any extra, `env` works, and each other command names the extra that it needs."""
    # One process for all commands, because it takes seconds to import torch.
    hidden = ["torchvision", "tyro", "rich", "safetensors", "tomli_w", "numpy", "matplotlib", "faster_coco_eval", "PIL"]
    others = ["train", "evaluate", "predict", "inspect", "demo"]
    code = f"""
import sys
for name in {hidden}:
    sys.modules[name] = None
from retina_ops.cli import main
statuses = [main(["env"])]
for name in {others}:
    print("command", name, file=sys.stderr)
    statuses.append(main([name, "--help"]))
sys.exit(statuses != [0, 1, 1, 1, 1, 1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["retina_ops"] == __version__, done.stderr
    assert "Traceback" not in done.stderr
    answers = [part.splitlines() for part in done.stderr.split("command ")[1:]]
    assert [lines[0] for lines in answers] == others
    for lines in answers:
        assert lines[-1].startswith(f"retina-ops {lines[0]}: ") and "pip install 'retina_ops[" in lines[-1], lines


def test_print_config_and_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(Path("here"))
    (tmp_path / "c.toml").write_text(to_toml(config))
    options = ["--optimizer.lr", 0.5, "--model.base-sizes", 1, 2, 3, 4, 5, "--no-channels-last"]
    assert run("train", "--config", tmp_path / "c.toml", *options, "--print-config") == 0
    (tmp_path / "printed.toml").write_text(capsys.readouterr().out)
    config.optimizer.lr, config.model.base_sizes, config.channels_last = 0.5, (1.0, 2.0, 3.0, 4.0, 5.0), False
    assert read_toml(tmp_path / "printed.toml", TrainConfig) == config


def test_old_options_are_read_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = ["--model.loss.fg-iou", 0.6, "--model.loss.bg_iou=0.3", "--model.loss.box-weight", 2]
    assert run("train", *old, "--print-config") == 0
    printed, errors = capsys.readouterr()
    (tmp_path / "printed.toml").write_text(printed)
    loss = read_toml(tmp_path / "printed.toml", TrainConfig).model.loss
    assert (loss.fg_iou_thresh, loss.bg_iou_thresh, loss.box_loss_weight) == (0.6, 0.3, 2.0)
    assert errors.splitlines() == [
        "warning: --model.loss.fg-iou is now --model.loss.fg-iou-thresh; the old name will be removed",
        "warning: --model.loss.bg_iou is now --model.loss.bg-iou-thresh; the old name will be removed",
        "warning: --model.loss.box-weight is now --model.loss.box-loss-weight; the old name will be removed",
    ]


@pytest.mark.parametrize("file", sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.toml")))
def test_published_configurations(file: Path) -> None:
    config = read_toml(file, TrainConfig)
    config.data.train = "digits"
    config.check()
    build_model(config.model, DIGITS)


def test_train_then_resume_evaluate_predict(tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text(to_toml(small_config(digits, epochs=1)))
    output = tmp_path / "run"
    assert run("train", "--config", tmp_path / "c.toml", "--output", output) == 0
    assert f"weights: {output}/best/model.safetensors" in capsys.readouterr().out
    assert run("train", "--config", tmp_path / "c.toml", "--output", output) == 1
    assert "already holds a run" in one_line(capsys)
    assert run("train", "--resume", "--output", output, "--epochs", 2) == 0
    assert json.loads((output / "metrics.json").read_text())["epochs"] == 2
    capsys.readouterr()
    assert run("evaluate", "--weights", output / "best", "--data", digits, "--split", "val", "--output", tmp_path) == 0
    trained, evaluated = (json.loads((f / "metrics.json").read_text()) for f in (output, tmp_path))
    for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "per_class"):
        assert trained[key] == evaluated[key], key
    assert (tmp_path / "precision_recall.png").is_file() and "all classes" in capsys.readouterr().out
    assert run("evaluate", "--detections", tmp_path / "detections.json", "--data", digits, "--split", "val",
               "--output", tmp_path / "again") == 0  # fmt: skip
    assert json.loads((tmp_path / "again/metrics.json").read_text()) == evaluated


@pytest.mark.parametrize("name", ["coco_val2014_100", "padilla_sampled"])
def test_evaluate_published_values(tmp_path: Path, name: str) -> None:
    folder = SHARED_DATA / "evaluator_fixtures" / name
    require(folder.is_dir(), "../shared/data/evaluator_fixtures")
    assert run("evaluate", "--data", folder / "gt.json", "--detections", folder / "dt.json", "--output", tmp_path) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for key, value in json.loads((folder / "expected.json").read_text())["expected"].items():
        assert metrics[key] == pytest.approx(value, abs=1e-6), key


def test_predict(tmp_path: Path, digits: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = digits / "images" / "train"
    assert run("predict", images, "--weights", weights, "--output", tmp_path, "--threshold", 0.1) == 0
    found = json.loads((tmp_path / "detections.json").read_text())
    assert len(found) == 20 and {entry["image_id"] for entry in found} == {1, 2, 3, 4}
    first = found[0]
    assert first["category_name"] == str(first["category_id"]) and 0.1 <= first["score"] <= 1
    assert first["bbox"][2] > 0 and Path(first["file_name"]).parent == images
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert drawn == sorted(path.name for path in images.iterdir())
    original = Image.open(images / drawn[0]).convert("RGB")
    with Image.open(tmp_path / drawn[0]) as picture:
        assert picture.size == original.size and picture.tobytes() != original.tobytes()
    wanted = ["--classes", "3", "--threshold", 0, "--no-draw"]
    assert run("predict", images, "--weights", weights, "--output", tmp_path / "b", *wanted) == 0
    assert {e["category_id"] for e in json.loads((tmp_path / "b/detections.json").read_text())} <= {3}
    assert not list((tmp_path / "b").glob("*.png"))


def test_predict_tells_same_names_apart_and_skips_what_is_no_image(
    tmp_path: Path, digits: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((digits / "images" / "train").iterdir())
    other = tmp_path / "other" / image.name
    other.parent.mkdir()
    other.write_bytes(image.read_bytes())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(image.read_bytes()[:200])
    assert run("predict", image, other, broken, "--weights", weights, "--output", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {image.name, f"{image.stem}-2.png"}
    assert str(broken) in one_line(capsys)
    assert run("predict", broken, "--weights", weights, "--output", tmp_path / "none") == 1
    assert "none of the 1 images can be read" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_predict_replaces_no_input_and_no_file_of_others(
    tmp_path: Path, digits: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((digits / "images" / "train").iterdir())
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.png").write_bytes(image.read_bytes())
    assert run("predict", own, "--weights", weights, "--output", own) == 1
    assert "a.png is an input" in one_line(capsys).replace(": ", " ")
    assert [path.name for path in own.iterdir()] == ["a.png"] and (own / "a.png").read_bytes() == image.read_bytes()
    out = tmp_path / "out"
    for _ in range(2):  # the second time it replaces its own files
        assert run("predict", own, "--weights", weights, "--output", out) == 0
    capsys.readouterr()
    for name in ("detections.json", "a.png"):
        (out / name).write_text("mine")
        assert run("predict", own, "--weights", weights, "--output", out) == 1
        assert f"{name}: was changed since predict wrote it" in one_line(capsys)
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    (out / "metrics.json").write_text("mine")
    truth = digits / "annotations/train.json"
    (out / "d.json").write_text("[]")
    assert run("evaluate", "--data", truth, "--detections", out / "d.json", "--output", out) == 1
    assert "metrics.json: exists and was not written by evaluate" in one_line(capsys)
    assert (out / "metrics.json").read_text() == "mine"


def test_predict_goes_on_after_odd_images_and_keeps_results_of_an_interruption(
    tmp_path: Path, digits: Path, weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = next((digits / "images" / "train").iterdir())
    folder, out = tmp_path / "images", tmp_path / "out"
    (folder / "dir.png").mkdir(parents=True)
    for name, size in (("wide", (1400, 1)), ("high", (1, 1500)), ("x" * 251, (40, 30))):
        Image.new("RGB", size).save(folder / f"{name}.png")
    (folder / "digits.png").write_bytes(image.read_bytes())
    assert run("predict", folder, "--weights", weights, "--output", out, "--threshold", 0) == 0
    assert "in 4 images" in capsys.readouterr().out and len(list(out.glob("*.png"))) == 4
    found = json.loads((out / "detections.json").read_text())
    assert {Path(entry["file_name"]).stem for entry in found} >= {"digits"}

    import retina_ops.commands.predict as command

    drawn = command.draw_detections
    calls = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return drawn(*arguments)

    monkeypatch.setattr(command, "draw_detections", interrupted)
    assert run("predict", folder, "--weights", weights, "--output", out, "--threshold", 0, "--batch-size", 1) == 130
    kept = json.loads((out / "detections.json").read_text())
    assert kept and {entry["image_id"] for entry in kept} <= {1, 2}
    assert not list(out.glob(".*.partial"))


def test_predict_skips_an_image_that_the_model_cannot_take(
    tmp_path: Path, digits: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retina_ops.models import RetinaNet

    names = [path.name for path in sorted((digits / "images" / "train").iterdir())]
    Image.new("RGB", (300, 200)).save(tmp_path / "odd.png")
    forward = RetinaNet.forward

    def limited(self: RetinaNet, images: list[Any], *rest: Any) -> Any:
        if any(image.shape[-1] == 300 for image in images):
            raise RuntimeError("not enough memory:\n300 pixels")
        return forward(self, images, *rest)

    monkeypatch.setattr(RetinaNet, "forward", limited)
    command = ["--weights", weights, "--output", tmp_path / "out"]
    assert run("predict", digits / "images" / "train", tmp_path / "odd.png", *command) == 0
    assert one_line(capsys) == (
        f"warning: skipped {tmp_path / 'odd.png'}: the model cannot take it (not enough memory: 300 pixels)"
    )
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == names
    with pytest.raises(RuntimeError, match="not enough memory"):
        run("predict", tmp_path / "odd.png", "--weights", weights, "--output", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_inspect(tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text(to_toml(small_config(digits)))
    options = ["--config", tmp_path / "c.toml", "--pictures", 2, "--output", tmp_path / "out"]
    assert run("inspect", "--data", digits, *options) == 0
    assert "anchors per image:" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["images"] == 4 and len(list((tmp_path / "out/ground_truth").iterdir())) == 2
    # Images of 128 x 128 pixels have 16^2 + 8^2 + 4^2 + 2^2 + 1 cells with 9 anchors each.
    counts = summary["anchors_per_image"]
    assert counts["positive"] + counts["ignored"] + counts["negative"] == pytest.approx(341 * 9)
    assert summary["best_anchor_iou"]["mean"] > 0.45
    assert run("inspect", "--data", digits, *options, "--model.base-sizes", *[400] * 5) == 0
    assert json.loads((tmp_path / "out/summary.json").read_text())["best_anchor_iou"]["mean"] < 0.3


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for split, length in (("train", 32), ("val", 4), ("test", 8)):
        monkeypatch.setitem(DEFAULT_LENGTHS, split, length)
    output = tmp_path / "demo"
    assert run("demo", "--minutes", 0.15, "--output", output, "--device", "cpu") == 0
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["split"] == "test" and metrics["images"] == 8 and {"AP", "AP50", "per_class"} <= metrics.keys()
    for name in ("detections.png", "loss.png", "precision_recall.png"):
        with Image.open(output / name) as picture:
            picture.verify()
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[:2] == ["retina-ops", "predict"]
    assert run(*last[1:]) == 0
    assert json.loads((output / "predictions/detections.json").read_text()) is not None


def bad_inputs(folder: Path, digits: Path, weights: Path) -> dict[str, tuple[list[object], list[str]]]:
    """Name -> (command line, parts of the one-line error)."""
    content = json.loads((digits / "annotations/train.json").read_text())
    train_images = digits / "images/train"
    image = train_images / content["images"][0]["file_name"]

    def data(name: str, **changes: object) -> Path:
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**content, **changes}))
        return path

    malformed, torn, lonely = folder / "malformed.json", folder / "torn", folder / "lonely.safetensors"
    malformed.write_text('{"images": [')
    torn.mkdir()
    (torn / image.name).write_bytes(image.read_bytes()[:300])
    (folder / "text.png").write_text("no image")
    lonely.write_bytes(b"x" * 100)
    outside = [{**content["annotations"][0], "bbox": [900, 900, 20, 20]}]
    unknown = [{**content["annotations"][0], "category_id": 99}]
    one_image = {"images": content["images"][:1], "annotations": content["annotations"][:1]}
    other = folder / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes(weights.read_bytes())
    values = json.loads((weights.parent / "config.json").read_text())
    values["model"]["fpn_channels"] = 64
    (other / "config.json").write_text(json.dumps(values))
    train = ["train", "--device", "cpu", "--epochs", 1, "--output", folder / "out", "--data.train"]
    there = ["--data.images", train_images]
    evaluate = ["evaluate", "--output", folder / "out", "--weights", weights, "--images", train_images, "--data"]
    return {
        "missing data": ([*train, folder / "none.json"], ["none.json", "no such file"]),
        "malformed": ([*train, malformed], ["malformed.json", "not valid JSON"]),
        "empty": ([*train, data("empty", images=[], annotations=[]), *there], ["empty.json"]),
        "outside": ([*train, data("outside", annotations=outside), *there], ["outside.json"]),
        "unknown": ([*train, data("unknown", annotations=unknown), *there], ["unknown.json", "99"]),
        "torn": ([*train, data("torn_image", **one_image), "--data.images", torn], [image.name]),
        "no images": ([*train, data("far"), "--data.images", folder / "nowhere"], ["nowhere"]),
        "config": (["train", "--config", folder / "none.toml"], ["none.toml", "cannot be read"]),
        "no data": (["train", "--output", folder / "out"], ["data.train is empty"]),
        "device": ([*train, digits, "--device", "gpu"], ["device must be"]),
        "resume": (["train", "--resume", "--output", folder / "out"], ["holds no run to resume"]),
        "start weights": ([*train, digits, "--weights", weights], ["another architecture"]),
        "missing weights": (["evaluate", "--data", digits, "--weights", folder / "none"], ["none", "no such file"]),
        "lonely weights": (["predict", image, "--weights", lonely], ["config.json", "no such file"]),
        "other weights": (["predict", image, "--weights", other], ["model.safetensors", "another architecture"]),
        "missing image": (["predict", folder / "none.png", "--weights", weights], ["none.png", "no such file"]),
        "empty folder": (["predict", folder / "torn/..", "--weights", weights, "--classes", "cow"], ["cow"]),
        "threshold": (["predict", image, "--weights", weights, "--threshold", 2], ["threshold must be in [0, 1]"]),
        "categories": ([*evaluate, data("names", categories=[{"id": 0, "name": "cow"}])], ["names.json"]),
        "batch size": ([*evaluate, digits, "--batch-size", -1], ["batch_size must be at least 1, got -1"]),
        "no epochs": ([*train, digits, "--epochs", 0], ["epochs must be at least 1, got 0"]),
        "no time": (["demo", "--minutes", 0, "--output", folder / "out"], ["minutes must be at least 0.01, got 0.0"]),
        "both": ([*evaluate, digits, "--detections", malformed], ["either --weights"]),
        "detections": (["evaluate", "--data", digits / "annotations/train.json", "--detections", malformed,
                        "--output", folder / "out"], ["malformed.json"]),
        "output": (["inspect", "--data", digits, "--output", malformed], ["malformed.json", "output folder"]),
    }  # fmt: skip


def test_bad_input_is_one_line(tmp_path: Path, digits: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the file and the reason, has no traceback, and leaves no files in the output folder."""
    for name, (command, parts) in bad_inputs(tmp_path, digits, weights).items():
        status = run(*command)
        *before, line = capsys.readouterr().err.splitlines()
        assert len(before) <= 2 and "Traceback" not in "".join(before), (name, before)
        assert status == 1 and line.startswith(f"retina-ops {command[0]}: "), (name, line)
        for part in parts:
            assert part in line, (name, line)
        left = [path.name for path in (tmp_path / "out").rglob("*")] if (tmp_path / "out").exists() else []
        assert left == [], (name, left)


def test_digits_with_a_model_of_other_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ModelConfig(architecture="retinanet_small_fpn", min_size=64, max_size=64, fpn_channels=32, head_depth=1)
    save_model(build_model(config, [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]), tmp_path / "model")
    assert run("evaluate", "--data", "digits", "--weights", tmp_path / "model", "--output", tmp_path / "out") == 1
    assert "digits: has the classes 0 to 9, but asked for are cat, dog" in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_class_names_on_an_ascii_terminal(tmp_path: Path, digits: Path) -> None:
    content = json.loads((digits / "annotations/train.json").read_text())
    content["categories"][0]["name"] = "\u732b"
    (tmp_path / "t.json").write_text(json.dumps(content))
    command = [sys.executable, "-m", "retina_ops", "inspect", "--data", str(tmp_path / "t.json")]
    command += ["--images", str(digits / "images/train"), "--output", str(tmp_path / "out"), "--pictures", "1"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"  \\u732b" in done.stdout and json.loads((tmp_path / "out/summary.json").read_text())["classes"]["\u732b"]
