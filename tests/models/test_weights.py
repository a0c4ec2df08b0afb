"""Models as files: written, read, transferred to other classes, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retina_ops.data import DataError, DataWarning
from retina_ops.models import LossOptions, ModelConfig, build_model, load_model, save_model, transfer_weights

CONFIG = ModelConfig(architecture="retinanet_small_fpn", min_size=64, max_size=64, fpn_channels=32, head_depth=1)
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]


def saved(folder: Path) -> Path:
    torch.manual_seed(0)
    return save_model(build_model(CONFIG, CATEGORIES), folder, {"metrics": {"AP": 0.5}})


def test_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(CONFIG, CATEGORIES).eval()
    torch.nn.init.normal_(model.head.classification_head.predictor.bias, mean=-2)
    weights = save_model(model, tmp_path / "m", {"metrics": {"AP": 0.5}})
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]
    for path in (weights, tmp_path / "m"):
        again = load_model(path)
        assert again.categories == CATEGORIES and again.config == CONFIG and not again.training
        image = torch.rand(3, 64, 64)
        with torch.no_grad():
            a, b = model([image])[0], again([image])[0]
        assert len(a["boxes"]) > 0 and all(torch.equal(a[key], b[key]) for key in a)
    assert json.loads((tmp_path / "m/config.json").read_text())["metrics"] == {"AP": 0.5}


@pytest.mark.parametrize("architecture", ["retinanet_resnet18_fpn", "retinanet_resnet34_fpn", "retinanet_small_fpn"])
def test_every_architecture_of_a_config(tmp_path: Path, architecture: str) -> None:
    config = ModelConfig(architecture=architecture, min_size=64, max_size=64, norm="group", fpn_channels=32)
    save_model(build_model(config, CATEGORIES), tmp_path)
    assert load_model(tmp_path).config == config


def test_transfer_to_other_classes(tmp_path: Path) -> None:
    weights = saved(tmp_path)
    torch.manual_seed(1)
    model = build_model(CONFIG, [*CATEGORIES, {"id": 1, "name": "cow"}])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = transfer_weights(model, weights)
    assert report.renewed == [
        "head.classification_head.cls_logits.bias",
        "head.classification_head.cls_logits.weight",
    ]
    assert "renewed: head.classification_head.cls_logits.bias" in str(report)
    source = load_model(weights).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in report.renewed else source[name])


def test_transfer_to_the_same_classes_keeps_the_classifier(tmp_path: Path) -> None:
    weights = saved(tmp_path)
    model = build_model(CONFIG, CATEGORIES)
    assert transfer_weights(model, weights).renewed == []
    renamed = build_model(CONFIG, [{"id": 7, "name": "cat"}, {"id": 9, "name": "wolf"}])
    assert len(transfer_weights(renamed, weights).renewed) == 2  # as many classes, but others


@pytest.mark.parametrize("normalizations", [("image", "ema"), ("ema", "image"), ("ema", "ema")])
def test_transfer_leaves_the_moving_average_of_the_loss(tmp_path: Path, normalizations: tuple[str, str]) -> None:
    source, model = (
        build_model(replace(CONFIG, loss=LossOptions(normalization=name)), CATEGORIES) for name in normalizations
    )
    if source.loss_normalizer is not None:
        source.loss_normalizer(torch.tensor([3000]))
        save_model(source, tmp_path / "again")
        assert load_model(tmp_path / "again").loss_normalizer.average == source.loss_normalizer.average
    weights = save_model(source, tmp_path / "m")
    assert transfer_weights(model, weights).renewed == []
    if model.loss_normalizer is not None:
        assert model.loss_normalizer.average == 100


def test_transfer_from_a_state_dict(tmp_path: Path) -> None:
    source = build_model(CONFIG, CATEGORIES)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    assert transfer_weights(build_model(CONFIG, CATEGORIES), tmp_path / "w.pth").renewed == []


def test_rejects_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing/model\.safetensors: no such file"):
        (tmp_path / "nothing").mkdir()
        load_model(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"gone\.safetensors: no such file"):
        load_model(tmp_path / "gone.safetensors")
    weights = saved(tmp_path / "m")
    content = weights.read_bytes()
    for damaged in (b"", b"not weights at all", content[: len(content) // 2]):
        weights.write_bytes(damaged)
        with pytest.raises(DataError, match=r"model\.safetensors: not weights that can be read") as error:
            load_model(weights)
        assert "\n" not in str(error.value)
    weights.write_bytes(content)
    config = weights.with_name("config.json")
    good = config.read_text()
    for text, reason in (
        ("{", "JSON"),
        ("{}", "does not describe a model"),
        (good.replace("retinanet_small_fpn", "yolo"), "architecture must be one of"),
        (good.replace('"min_size"', '"min_sise"'), "unknown setting 'min_sise'"),
    ):
        config.write_text(text)
        with pytest.raises(DataError, match=reason):
            load_model(weights)
    (tmp_path / "w.pth").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"w\.pth: not weights that can be read"):
        transfer_weights(build_model(CONFIG, CATEGORIES), tmp_path / "w.pth")


def test_rejects_another_architecture(tmp_path: Path) -> None:
    weights = saved(tmp_path)
    wider = ModelConfig(architecture="retinanet_small_fpn", fpn_channels=64, head_depth=1)
    with pytest.raises(DataError, match=r"another architecture than the model: .* is \[32, .*\], wanted \[64, "):
        transfer_weights(build_model(wider, CATEGORIES), weights)
    config = weights.with_name("config.json")
    config.write_text(config.read_text().replace('"head_depth": 1', '"head_depth": 2'))
    with pytest.raises(DataError, match=r"another architecture than config\.json says: .* is missing"):
        load_model(weights)


def test_predict(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path / "m"))
    torch.nn.init.normal_(model.head.classification_head.predictor.bias, mean=-1)
    from torchvision.io import write_png

    folder = tmp_path / "images"
    folder.mkdir()
    for name, size in (("a.png", (64, 90)), ("b.png", (50, 70)), ("d.png", (64, 64))):
        write_png(torch.randint(0, 256, (3, *size), dtype=torch.uint8), str(folder / name))
    (folder / "c.png").write_bytes(b"not an image")
    with pytest.warns(DataWarning, match=r"skipped .*c\.png: "):
        found = model.predict(folder, threshold=0.1, batch_size=3)
    assert [d["path"].name for d in found] == ["a.png", "b.png", "d.png"]
    for detections, (height, width) in zip(found, ((64, 90), (50, 70), (64, 64)), strict=True):
        boxes = detections["boxes"]
        assert len(boxes) > 0 and (detections["scores"] >= 0.1).all() and boxes.min() >= 0
        assert boxes[:, 2].max() <= width and boxes[:, 3].max() <= height
        assert detections["names"] == [("cat", "dog")[label] for label in detections["labels"].tolist()]
    only = model.predict(folder / "a.png", threshold=0.1, classes=["dog"])
    assert set(only[0]["names"]) == {"dog"}
    assert not model.training
    with pytest.raises(ValueError, match="unknown class 'cow'; the model knows cat, dog"):
        model.predict(folder, classes=["cow"])
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got 2"):
        model.predict(folder, threshold=2)
    with pytest.raises(DataError, match="nowhere"):
        model.predict(tmp_path / "nowhere")


def test_leaves_files_of_others(tmp_path: Path) -> None:
    model = build_model(CONFIG, CATEGORIES)
    for name, content in (("config.json", '{"hidden_size": 768}'), ("config.json", "{"), ("model.safetensors", "x")):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(DataError, match="exists and is not of a model of retina_ops"):
            save_model(model, folder)
        assert {path.name: path.read_text() for path in folder.iterdir()} == {name: content}
    own = tmp_path / "own"
    save_model(model, own)
    (own / "config.json").unlink()  # a crash before the configuration was written
    assert load_model(save_model(model, own)).config == CONFIG


@pytest.mark.parametrize("wrap", ["plain", "model", "state_dict", "module.", "model and module."])
def test_transfer_from_pth_files_of_other_programs(tmp_path: Path, wrap: str) -> None:
    torch.manual_seed(0)
    source = build_model(CONFIG, CATEGORIES)
    state: dict[str, object] = dict(source.state_dict())
    if "module." in wrap:
        state = {f"module.{name}": value for name, value in state.items()}
    if wrap in ("model", "state_dict", "model and module."):
        state = {wrap.split()[0]: state, "epoch": 3, "optimizer": {"state": {}}}
    torch.save(state, tmp_path / "w.pth")
    torch.manual_seed(1)
    model = build_model(CONFIG, CATEGORIES)
    assert transfer_weights(model, tmp_path / "w.pth").renewed == []
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_is_no_model(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "last.pt")
    with pytest.raises(
        DataError, match=r"last\.pt: does not say what model it is of: give the folder of a trained model"
    ):
        load_model(tmp_path / "last.pt")
    saved(tmp_path / "best")
    with pytest.raises(DataError, match=rf"such as {tmp_path}/best$"):
        load_model(tmp_path / "last.pt")


def test_settings_that_were_changed_are_saved(tmp_path: Path) -> None:
    """Also those that are attributes, as in torchvision; what `config.json` cannot hold is an error."""
    model = build_model(ModelConfig(architecture="retinanet_small_fpn"), [{"id": 1, "name": "a"}])
    model.score_thresh, model.fg_iou_thresh, model.detections_per_img = 0.37, 0.6, 7
    model.head.regression_head._loss_type = "giou"
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.score_thresh, loaded.fg_iou_thresh, loaded.detections_per_img) == (0.37, 0.6, 7)
    assert loaded.loss_options == model.loss_options and loaded.loss_options.box_loss == "giou"
    model.detections_per_img = None
    with pytest.raises(ValueError, match="detections_per_img is None"):
        save_model(model, tmp_path)
    model.detections_per_img = 7
    for coder in (model.box_coder, model.head.regression_head.box_coder):
        coder.weights = (10.0, 10.0, 5.0, 5.0)
        with pytest.raises(ValueError, match=r"box_coder has weights \(10\.0, 10\.0, 5\.0, 5\.0\)"):
            save_model(model, tmp_path)
        coder.weights = (1.0, 1.0, 1.0, 1.0)
