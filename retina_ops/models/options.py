"""Settings of a model that one of its parts holds."""

from __future__ import annotations

from typing import Any


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
        setattr(holder, name, value)

    return property(get, set_)
