"""A folder that a command writes its results to, without replacing files of others."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError
from .files import atomic_write, write_text

_GROWING = "growing"  # in place of the digest of a file that a killed process was writing to


class OutputFolder:
    """A folder of results. A file that exists is replaced only if the same writer wrote it and nobody changed it since.

    What was written is listed with its SHA-256 in ``.retina-ops-<writer>.jsonl`` in the folder. A line is added before
    a file is put in place, so that the list is complete whenever the process ends.

    Args:
        folder: the folder, which is created when the first file is written.
        writer: name of the command or function that writes.
        inputs: files that the writer reads. They are never replaced.
        option: how the user chooses the folder, for messages.
    """

    def __init__(
        self, folder: str | Path, writer: str, *, inputs: Iterable[str | Path] = (), option: str = "--output"
    ) -> None:
        self.folder, self._writer, self._option = Path(folder), writer, option
        self._inputs = {os.path.realpath(path) for path in inputs}
        self._list = self.folder / f".retina-ops-{writer}.jsonl"
        self._written = _read_list(self._list)

    def check(self, names: Iterable[str]) -> None:
        """Checks that files of these names may be written, before any work is done.

        Raises:
            DataError: a file exists that this writer did not write, or the folder cannot be one.
        """
        for parent in (self.folder, *self.folder.parents):
            if os.path.lexists(parent):
                if not parent.is_dir():
                    raise DataError(self.folder, f"cannot be an output folder ({parent} is a file)")
                break
        for name in names:
            self._check(name)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Writes a file as `retina_ops.files.atomic_write` does: the body writes to the path that it is given.

        Raises:
            DataError: the file exists and this writer did not write it.
            OSError: the file cannot be written.
        """
        self._check(name)
        with atomic_write(self.folder / name) as temporary:
            yield temporary
            self._add_to_list(name, temporary)

    def write_json(self, name: str, content: Any, *, indent: int | None = None) -> Path:
        """Writes JSON. Returns the path. Raises ValueError for NaN and infinity, which are not JSON."""
        text = json.dumps(content, indent=indent, allow_nan=False) + "\n"
        with self.writing(name) as temporary:
            temporary.write_bytes(text.encode())
        return self.folder / name

    @contextmanager
    def json_list(self, name: str) -> Iterator[JsonList]:
        """Writes a JSON list that grows. The file is a complete list at any time, also if the process is killed.

        Raises:
            DataError: the file exists and this writer did not write it.
            OSError: the file cannot be written. The entries added before are kept.
        """
        self._check(name)
        path = self.folder / name
        write_text(path, "[]\n")
        self._list_file({"file": name, "growing": True})
        with path.open("r+b", buffering=0) as file:
            try:
                yield JsonList(file, path)
            finally:
                self._add_to_list(name, path)

    def _check(self, name: str) -> None:
        path = self.folder / name
        if not os.path.lexists(path):
            return
        if os.path.realpath(path) in self._inputs:
            raise DataError(path, f"is an input, which is not replaced: choose another {self._option}")
        if path.is_dir() or name not in self._written:
            raise DataError(path, f"exists and was not written by {self._writer}: choose another {self._option}")
        if path.is_symlink() or not {_GROWING, _digest(path)} & self._written[name]:
            raise DataError(
                path, f"was changed since {self._writer} wrote it: move it, or choose another {self._option}"
            )

    def _add_to_list(self, name: str, file: Path) -> None:
        digest = _digest(file)
        known = self._written.get(name, set())
        if digest in known and _GROWING not in known:
            return
        self._list_file({"file": name, "sha256": digest})

    def _list_file(self, entry: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._list.open("a", encoding="utf-8") as listed:
            listed.write("\n" + json.dumps(entry))  # the line before may have been cut off
        _add_entry(self._written, entry)


class JsonList:
    """The JSON list of `OutputFolder.json_list`: one entry per line, in a file that is opened for writing."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._end = 1  # behind the last entry
        self._length = 0

    def add(self, entries: Iterable[Any]) -> None:
        """Adds entries and writes them to the file. Raises OSError, which names the file."""
        lines = [json.dumps(entry, allow_nan=False) for entry in entries]
        if not lines:
            return
        text = ("," if self._length else "") + "\n" + ",\n".join(lines)
        try:
            self._write(text.encode())
        except OSError as error:
            self._file.truncate(self._end)
            self._write(b"")
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        self._end += len(text.encode())
        self._length += len(lines)

    def _write(self, text: bytes) -> None:
        self._file.seek(self._end)
        rest = memoryview(text + b"\n]\n")
        while rest:
            rest = rest[self._file.write(rest) :]


def _read_list(path: Path) -> dict[str, set[str]]:
    """The digests of each file in a list of files. A line that a crash cut off is skipped."""
    digests: dict[str, set[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return digests
    for line in lines:
        try:
            entry = json.loads(line)
            _add_entry(digests, entry)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return digests


def _add_entry(digests: dict[str, set[str]], entry: dict[str, Any]) -> None:
    of_file = digests.setdefault(str(entry["file"]), set())
    if entry.get("growing"):
        of_file.add(_GROWING)
    else:
        of_file.discard(_GROWING)
        of_file.add(str(entry["sha256"]))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
