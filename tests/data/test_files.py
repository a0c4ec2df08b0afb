"""Files are written whole or not at all."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retina_ops.data import read_json, save_png, write_json
from retina_ops.files import atomic_write, write_text


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = write_json(tmp_path / "deep" / "m.json", {"AP": None})
    assert read_json(file) == {"AP": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"AP": float("nan")})
    assert json.loads(file.read_text()) == {"AP": None} and names_in(file.parent) == ["m.json"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("writing"), KeyboardInterrupt()]
)
def test_an_error_leaves_the_old_content_and_no_temporary_file(tmp_path: Path, error: BaseException) -> None:
    file = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)), atomic_write(file) as temporary:
        temporary.write_text("half of the new cont")
        assert temporary.parent == tmp_path and file.read_text() == "old"
        raise error
    assert file.read_text() == "old" and names_in(tmp_path) == ["a.txt"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    """Also for writers that replace the temporary file, as safetensors does with one of mode 0600."""
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "w.safetensors", durable=True) as temporary:
            save_file({"a": torch.ones(2)}, temporary)
        write_text(tmp_path / "w.txt", "text")
        save_png(torch.zeros(3, 4, 4, dtype=torch.uint8), tmp_path / "w.png")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_text(tmp_path / "folder", "text")
    assert str(caught.value).endswith(f"'{tmp_path / 'folder'}'") and "partial" not in str(caught.value)
    assert names_in(tmp_path) == ["folder"] and names_in(tmp_path / "folder") == []
    write_text(tmp_path / "file", "text")
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "below", "text")


@pytest.mark.parametrize("name", ["a" * 255, "猫" * 85], ids=["ascii", "three bytes per character"])
def test_longest_name(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "text")
    assert names_in(tmp_path) == [name]


def test_several_threads_write_the_same_file(tmp_path: Path) -> None:
    contents = [str(number) * 10_000 for number in range(10)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: write_text(tmp_path / "a.txt", text), contents * 5))
    assert (tmp_path / "a.txt").read_text() in contents and names_in(tmp_path) == ["a.txt"]
