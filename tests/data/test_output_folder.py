"""Nothing that others wrote is replaced, and every given name gets a file of its own below the folder."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from dataset_samples import HEIGHT, WIDTH, coco_content
from PIL import Image

from retina_ops.data import CocoDetection, DataError, DetectionDataset, inspect_dataset, write_coco
from retina_ops.data.digits import DigitScenes
from retina_ops.files import NewNames
from retina_ops.output_folder import OutputFolder


def write(output: OutputFolder, name: str, text: str) -> None:
    with output.writing(name) as temporary:
        temporary.write_text(text)


def test_replaces_only_what_it_wrote_and_nobody_changed(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("theirs")
    output = OutputFolder(tmp_path, "test")
    output.check(["new.txt"])
    for text in ("first", "second"):
        write(output, "deep/a.txt", text)
        write(OutputFolder(tmp_path, "test"), "deep/a.txt", text)
    assert (tmp_path / "deep/a.txt").read_text() == "second"
    for attempt in (lambda: output.check(["theirs.txt"]), lambda: write(output, "theirs.txt", "ours")):
        with pytest.raises(
            DataError, match=r"theirs\.txt: exists and was not written by test: choose another --output"
        ):
            attempt()
    assert (tmp_path / "theirs.txt").read_text() == "theirs"
    with pytest.raises(DataError, match="not written by other"):
        write(OutputFolder(tmp_path, "other"), "deep/a.txt", "third")
    (tmp_path / "deep/a.txt").write_text("changed by hand")
    with pytest.raises(DataError, match="was changed since test wrote it"):
        write(OutputFolder(tmp_path, "test"), "deep/a.txt", "third")
    with pytest.raises(DataError, match=r"theirs\.txt is a file"):
        OutputFolder(tmp_path / "theirs.txt" / "below", "test").check([])


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    write(OutputFolder(tmp_path, "test"), "a.txt", "ours")
    (tmp_path / "link").symlink_to(tmp_path)
    for source in (tmp_path / "a.txt", tmp_path / "link" / "a.txt", tmp_path / "x" / ".." / "a.txt"):
        with pytest.raises(DataError, match="is an input"):
            OutputFolder(tmp_path, "test", inputs=[source]).check(["a.txt"])


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("theirs")
    output = OutputFolder(tmp_path / "out", "test")
    write(output, "a.txt", "theirs")  # the same content
    (tmp_path / "out/a.txt").unlink()
    (tmp_path / "out/a.txt").symlink_to(tmp_path / "theirs.txt")
    with pytest.raises(DataError, match="was changed"):
        write(output, "a.txt", "new")
    (tmp_path / "out/b.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="was not written by"):
        write(output, "b.txt", "new")


def test_json_list_is_complete_after_every_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "list.json"
    with pytest.raises(KeyboardInterrupt), OutputFolder(tmp_path, "test").json_list(file.name) as written:
        assert json.loads(file.read_text()) == []
        for added, length in ([{"a": 1}], 1), ([], 1), ([{"b": "\u00e9"}, {"c": [1, 2]}], 3):
            written.add(added)
            assert len(json.loads(file.read_text())) == length
        raise KeyboardInterrupt
    assert json.loads(file.read_text()) == [{"a": 1}, {"b": "\u00e9"}, {"c": [1, 2]}]
    with OutputFolder(tmp_path, "test").json_list(file.name) as written:
        written.add([{"kept": 1}])
        whole = written._write

        def full(text: bytes) -> None:
            if text:
                written._file.write(text[:5])
                raise OSError(errno.ENOSPC, "No space left on device")
            whole(text)

        monkeypatch.setattr(written, "_write", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*list\.json'"):
            written.add([{"lost": 1}])
    assert json.loads(file.read_text()) == [{"kept": 1}]


def test_a_list_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:  # in a process of its own, which ends without a chance to clean up
        with OutputFolder(tmp_path, "test").json_list("list.json") as written:
            written.add([1])
            os._exit(0)
    os.waitpid(child, 0)
    assert json.loads((tmp_path / "list.json").read_text()) == [1]
    with OutputFolder(tmp_path, "test").json_list("list.json") as written:
        written.add([2])
    assert json.loads((tmp_path / "list.json").read_text()) == [2]
    (tmp_path / "list.json").write_text("mine")
    with pytest.raises(DataError, match="was changed"):
        OutputFolder(tmp_path, "test").check(["list.json"])


NAMES = [
    "a.png", "a.jpg", "sub/a.png", "../a.png", "/etc/a.png", "../../sub/a.jpg", "C:\\x\\a.png", "sub\\a.bmp", "A.PNG",
    "a-2.png", "e\u0301.png", "\u00e9.png", "", "..", "/", "n\0l.png", "x" * 255, "x" * 251 + ".jpg", "\u732b" * 85,
    "d" * 300 + "/a.png", ".png", "a.tar.png",
]  # fmt: skip


def test_every_name_gets_a_file_of_its_own_below_the_folder(tmp_path: Path) -> None:
    names = NewNames(".png")
    new = [names.add(name) for name in NAMES]
    assert new[:4] == ["a.png", "a-2.png", "sub/a.png", "a-3.png"]
    for name in new:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        assert name.endswith(".png") and ".." not in Path(name).parts and not Path(name).is_absolute()
    assert len({name.casefold() for name in new}) == len(NAMES)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == len(NAMES)


class Named(DigitScenes):
    """Scenes with the names of a test."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("train", len(names))
        self.names = names

    def file_name(self, index: int) -> str:
        return self.names[index]


def test_write_coco_keeps_every_image_apart_and_writes_below_its_folder(tmp_path: Path) -> None:
    source = tmp_path / "source.png"
    Image.new("RGBA", (256, 256), (1, 2, 3, 4)).save(source)
    before = source.read_bytes()
    dataset: DetectionDataset = Named([str(source), "../source.png", "a.jpg", "a.png"])
    file = write_coco(dataset, tmp_path / "out", "train")
    assert source.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["out", "source.png"]
    again = CocoDetection(file)
    for index in range(4):
        assert torch.equal(again[index][0], dataset[index][0])
        assert torch.equal(again[index][1]["boxes"], dataset[index][1]["boxes"])
    write_coco(dataset, tmp_path / "out", "train")  # its own files
    with pytest.raises(DataError, match="is an input, which is not replaced"):
        write_coco(again, tmp_path / "out", "train")
    with pytest.raises(ValueError, match="name without folders"):
        write_coco(dataset, tmp_path / "out", "../train")


def test_write_coco_and_inspect_leave_files_of_others(tmp_path: Path) -> None:
    content = coco_content()
    for entry in content["images"]:
        path = tmp_path / "images/all" / Path(entry["file_name"]).with_suffix(".png")
        entry["file_name"] = path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations/all.json"
    file.write_text(json.dumps(content))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    dataset = CocoDetection(file)
    with pytest.raises(DataError, match="is an input"):
        write_coco(dataset, tmp_path)
    with pytest.raises(DataError, match="exists and was not written by write_coco"):
        write_coco(DigitScenes("train", 1), tmp_path, "all")
    (tmp_path / "summary.json").write_text("mine")
    with pytest.raises(DataError, match="exists and was not written by inspect"):
        inspect_dataset(dataset, torch.tensor([[0.0, 0, 9, 9]]), tmp_path)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == len(before) + 1
