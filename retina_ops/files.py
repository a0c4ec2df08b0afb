"""JSON files: read with one-line errors, written whole or not at all."""

from __future__ import annotations

import json
import os
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
    """Whether a JSON value can be an id or a number of pixels: evaluators hold ids as float64, exact below 2^53."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value fits a float64; NaN and infinity do."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**300)


def write_json(path: str | Path, content: Any, *, indent: int | None = None) -> Path:
    """Write JSON beside its place and move it there, so that a reader never sees half a file.

    NaN and infinity are refused (ValueError): they are not JSON. Folders are made where missing. Returns the path.
    """
    path = Path(path)
    text = json.dumps(content, indent=indent, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text + "\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
