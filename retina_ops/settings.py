"""Settings: typed dataclasses from plain values and TOML files, and back."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ._deprecated import old_field_names, with_new_names
from .errors import DataError, needs_extra

T = TypeVar("T")


def from_plain(cls: type[T], values: Any, where: str = "") -> T:
    """An instance of a dataclass from nested dicts, lists and scalars; what is absent keeps its default.

    Raises:
        ValueError: an unknown key or a value of another type, named by its path; or what the dataclass itself refuses.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where or cls.__name__} must be a table, got {values!r}")
    hints = get_type_hints(cls)
    values = with_new_names(where or cls.__name__, values, old_field_names(cls))
    known = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"unknown setting {_path(where, key)!r}; known are {', '.join(known)}")
    return cls(**{key: _converted(hints[key], value, _path(where, key)) for key, value in values.items()})


def to_plain(settings: Any) -> dict[str, Any]:
    """Nested dicts, lists and scalars of a dataclass, for JSON and TOML."""
    plain: dict[str, Any] = _without_tuples(asdict(settings))
    return plain


def read_toml(path: str | Path, cls: type[T]) -> T:
    """The settings in a TOML file.

    Raises:
        DataError: no such file, not TOML, an unknown setting or a wrong value.
    """
    with needs_extra("train"):
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
    try:
        return from_plain(cls, tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(path, "is not TOML: it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(path, f"is not TOML: {error}") from None
    except (ValueError, TypeError) as error:
        raise DataError(path, str(error)) from None


def to_toml(settings: Any) -> str:
    """The settings as TOML that `read_toml` reads back to equal ones."""
    with needs_extra("train"):
        import tomli_w
    return tomli_w.dumps(to_plain(settings))


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tuples(item) for key, item in value.items()}
    return [_without_tuples(item) for item in value] if isinstance(value, (list, tuple)) else value


def _converted(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return from_plain(kind, value, where)
    if origin is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{where} must be one of {', '.join(map(str, get_args(kind)))}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list, got {value!r}")
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        if len(kinds) != len(value):
            raise ValueError(f"{where} must have {len(kinds)} values, got {value!r}")
        return tuple(_converted(each, item, where) for each, item in zip(kinds, value, strict=True))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} must be {_NAMES.get(kind, kind.__name__)}, got {value!r}")
    return value


_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
