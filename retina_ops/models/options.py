"""Settings of a model that one of its parts holds."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

from ..settings import check_settings


def option_of(owner: str, name: str) -> Any:
    """A property that reads and sets `name` of the attribute `owner`."""

    def get(self: Any) -> Any:
        return getattr(getattr(self, owner), name)

    def set_(self: Any, value: Any) -> None:
        holder = getattr(self, owner)
        if not hasattr(holder, name):
            raise AttributeError(
                f"{owner} is {type(holder).__qualname__}, which has no {name}: set what it has instead"
            )
        before = getattr(holder, name)
        setattr(holder, name, value)
        if is_dataclass(holder):
            try:
                check_settings(holder)
            except ValueError:
                setattr(holder, name, before)
                raise

    return property(get, set_)
