"""Reading JSON with one-line errors, writing any file whole or not at all, and names for new files."""

from __future__ import annotations

import json
import os
import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeGuard

from .errors import DataError


def read_json(path: str | Path) -> Any:
    """The parsed content of a JSON file.

    Raises:
        DataError: the file is missing, unreadable, empty, not UTF-8 or not JSON.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from None
    if not content.strip():
        raise DataError(path, "is empty, expected JSON")
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        reason = f"not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise DataError(path, reason) from None
    except UnicodeDecodeError:
        raise DataError(path, "not valid JSON: it is not UTF-8 text") from None
    except RecursionError:
        raise DataError(path, "not valid JSON: nested too deeply") from None


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value can be an id or a number of pixels: an integer below 2^53, which evaluators hold exactly.

    NumPy's integers are integers, too.
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) < 2**53


def as_integer(value: Any) -> int | None:
    """The integer that a value is, also as 480.0 and "480", as some exporters write ids and sizes; None for others."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) <= 15:
        return int(value)
    if isinstance(value, Real) and not isinstance(value, (bool, Integral)) and float(value).is_integer():
        return as_integer(int(float(value)))
    return int(value) if is_integer(value) else None


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that fits in a float64; NaN and infinity count as numbers, NumPy's scalars, too."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return not isinstance(value, Integral) or abs(int(value)) < 10**300


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Writes a file whole or not at all, so that a reader never sees half of it.

    The body of the ``with`` statement writes to the temporary file that it is given, in the folder of ``path``. Then
    that file replaces ``path``. After an error the temporary file is removed and ``path`` is left as it was. Missing
    folders are created. The file gets the permissions that the umask of the process allows.

    Args:
        path: the file to write.
        durable: wait until the content is on the disk before ``path`` is replaced, so that a power failure leaves
            either the old content or the new one.

    Raises:
        OSError: the file cannot be written. The error names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # At most 50 characters of the name, because a file name is limited to 255 bytes.
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.{threading.get_native_id()}.partial")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        mode = os.fstat(descriptor).st_mode & 0o777
        os.close(descriptor)
        yield temporary
        # Some writers replace the file instead of writing into it. safetensors leaves one that others cannot read.
        os.chmod(temporary, mode)
        if durable:
            _flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # the name that the user knows
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Removes the temporary files of `atomic_write` that killed processes left. No process may be writing there."""
    if folder.is_dir():
        for path in folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)


_PARTIAL = re.compile(r"\..+\.[0-9]+\.[0-9]+\.partial", re.DOTALL)


def write_bytes(path: str | Path, content: bytes | memoryview) -> Path:
    """Writes bytes as `atomic_write` does, durably. Returns the path."""
    with atomic_write(path, durable=True) as temporary, temporary.open("wb") as file:
        file.write(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Writes UTF-8 text as `atomic_write` does, durably. Returns the path."""
    return write_bytes(path, text.encode())


def write_json(path: str | Path, content: Any, *, indent: int | None = None) -> Path:
    """Writes JSON as `atomic_write` does, durably. Returns the path.

    Raises:
        ValueError: the content has NaN or infinity, which are not JSON.
    """
    return write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class NewNames:
    """Names for files in one folder, one for each given name and no two alike.

    A given name may be any path: an absolute one, one with ``..`` or backslashes, one that occurred before. The new
    name is a relative path below the folder. Two names that differ only in case or in Unicode's composition count as
    alike, because they are one file on some file systems.

    Args:
        suffix: suffix of the new names, such as ``".png"``.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._used: set[str] = set()

    def add(self, name: str) -> str:
        """The new name for a file of the given name, with ``/`` between folders."""
        parts = [part for part in re.split(r"[/\\]", name.replace("\0", "_")) if part not in ("", ".", "..")]
        *folders, last = parts or ["image"]
        if re.fullmatch(r"[A-Za-z]:", name[:2]):
            folders = folders[1:]  # the drive
        stem = Path(last).stem
        folder = "".join(_shortened(part, "") + "/" for part in folders)
        new, number = folder + _shortened(stem, self._suffix), 1
        while self._key(new) in self._used:
            number += 1
            new = folder + _shortened(stem, f"-{number}{self._suffix}")
        self._used.add(self._key(new))
        return new

    @staticmethod
    def _key(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()


def _shortened(stem: str, ending: str) -> str:
    """Stem and ending, the stem cut so that both take 255 bytes at most: the limit of file systems."""
    room = 255 - len(os.fsencode(ending))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem + ending
