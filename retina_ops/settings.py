"""Settings: typed dataclasses, read from plain values and TOML files, checked, and written back."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ._deprecated import old_field_names, with_new_names
from .errors import DataError, needs_extra
from .files import is_number

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value of a number: ``epochs: Annotated[int, Range(1)]`` in a settings dataclass.

    Attributes:
        low: smallest value allowed.
        high: largest value allowed.
    """

    low: float
    high: float = math.inf

    def check(self, value: float, where: str) -> None:
        """Raises ValueError for a value outside the range, for NaN and for infinity."""
        if not self.low <= value <= self.high or math.isinf(value):
            limits = f"in [{self.low:g}, {self.high:g}]" if self.high < math.inf else f"at least {self.low:g}"
            raise ValueError(f"{where} must be {limits}, got {value}")


def from_plain(cls: type[T], values: Any, where: str = "") -> T:
    """An instance of a dataclass from nested dicts, lists and scalars. An absent key keeps its default.

    Args:
        cls: the dataclass. Its fields are bool, int, float, str, ``Literal``, tuples or dataclasses; numbers may have
            a `Range`.
        values: the values by field name. An old field name (see `retina_ops._deprecated`) is read with a warning.
        where: path of the values, for messages.

    Raises:
        ValueError: an unknown key, a value of another type or out of its range (the message names its path), or
            whatever the dataclass itself refuses.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where or cls.__name__} must be a table, got {values!r}")
    hints = get_type_hints(cls, include_extras=True)
    values = with_new_names(where or cls.__name__, values, old_field_names(cls))
    known = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"unknown setting {_path(where, key)!r}; known are {', '.join(known)}")
    return cls(**{key: _converted(hints[key], value, _path(where, key)) for key, value in values.items()})


def check_settings(settings: Any, where: str = "") -> None:
    """Checks the types and ranges of a dataclass's fields, also in nested dataclasses.

    A dataclass may have a method ``check_combination`` for values that do not fit together. It raises ValueError with a
    message that begins with the name of a field.

    Raises:
        ValueError: the first value that `from_plain` would not take, named by its path.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for item in fields(settings):
        _converted(hints[item.name], getattr(settings, item.name), _path(where, item.name))
    if hasattr(settings, "check_combination"):
        try:
            settings.check_combination()
        except ValueError as error:
            raise ValueError(_path(where, str(error))) from None


_deferred: ContextVar[bool] = ContextVar("deferred", default=False)


@contextmanager
def deferred_checks() -> Iterator[None]:
    """`check_when_made` does nothing in the ``with`` statement: a command line checks all of its options at the end."""
    token = _deferred.set(True)
    try:
        yield
    finally:
        _deferred.reset(token)


def check_when_made(settings: Any, where: str = "") -> None:
    """`check_settings` for the ``__post_init__`` of a dataclass."""
    if not _deferred.get():
        check_settings(settings, where)


def to_plain(settings: Any) -> dict[str, Any]:
    """Nested dicts, lists and scalars of a dataclass, for JSON and TOML."""
    plain: dict[str, Any] = _without_tuples(asdict(settings))
    return plain


def read_toml(path: str | Path, cls: type[T]) -> T:
    """The settings in a TOML file.

    Raises:
        DataError: the file is missing or not TOML, or has an unknown setting or a wrong value.
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
    """The settings as TOML. `read_toml` reads equal settings back."""
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
    """The value of a field of type ``kind``; ``where`` is its path."""
    origin = get_origin(kind)
    if origin is Annotated:
        kind, *limits = get_args(kind)
        value = _converted(kind, value, where)
        for limit in limits:
            if isinstance(limit, Range):
                limit.check(value, where)
        return value
    if is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            check_settings(value, where)
            return value
        return from_plain(kind, value, where)
    if origin in (Union, UnionType):
        kinds = [each for each in get_args(kind) if each is not type(None)]
        return None if value is None and len(kinds) < len(get_args(kind)) else _converted(kinds[0], value, where)
    if origin is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{where} must be one of {', '.join(map(str, get_args(kind)))}, got {value!r}")
        return value
    if origin is tuple:
        return _converted_tuple(get_args(kind), value, where)
    if kind is float and is_number(value):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} must be {_NAMES.get(kind, kind.__name__)}, got {value!r}")
    return value


def _converted_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where} must be a list, got {value!r}")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"{where} must have {len(kinds)} values, got {value!r}")
    return tuple(_converted(each, item, where) for each, item in zip(kinds, value, strict=True))


_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
