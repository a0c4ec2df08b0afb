"""Reading JSON with one-line errors, and writing any file whole or not at all."""

from __future__ import annotations

import json
import os
import threading
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
        if error.filename not in (temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # the name that the user knows
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Writes UTF-8 text as `atomic_write` does, durably. Returns the path."""
    with atomic_write(path, durable=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


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
