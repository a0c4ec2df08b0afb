"""Old names of arguments and settings: still taken, with a warning that gives the new name."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

# New names of arguments that several functions share: torchvision's words.
MATCHING = {"fg_iou": "fg_iou_thresh", "bg_iou": "bg_iou_thresh"}
BOX_CODER = {"box_weights": "bbox_reg_weights"}
POSTPROCESSING = {
    "score_threshold": "score_thresh",
    "topk": "topk_candidates",
    "nms_threshold": "nms_thresh",
    "detections_per_image": "detections_per_img",
}

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


def renamed_arguments(**new_names: str) -> Callable[[F], F]:
    """Lets a function take keyword arguments by their old names.

    Args:
        **new_names: the new name of each old one.

    Returns:
        A decorator. The function then warns (FutureWarning) where it is given an old name, and raises TypeError where
        it is given both.
    """

    def decorate(function: F) -> F:
        owner = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def with_old_names(*args: Any, **kwargs: Any) -> Any:
            if any([name in new_names for name in kwargs]):  # a list, which torch.compile traces
                kwargs = with_new_names(owner, kwargs, new_names)
            return function(*args, **kwargs)

        return cast(F, with_old_names)

    return decorate


def renamed_fields(**new_names: str) -> Callable[[C], C]:
    """Lets a dataclass take and show its fields by their old names, in the constructor and as attributes.

    Args:
        **new_names: the new name of each old one; `old_field_names` returns them.

    Returns:
        A decorator, to be applied to the dataclass: above ``@dataclass``.
    """

    def decorate(cls: C) -> C:
        cls.__init__ = renamed_arguments(**new_names)(cls.__init__)  # type: ignore[misc]
        for old, new in new_names.items():
            setattr(cls, old, _alias(cls.__name__, old, new))
        cls._old_field_names = new_names  # type: ignore[attr-defined]
        return cls

    return decorate


def old_field_names(cls: type) -> dict[str, str]:
    """The new name of each old field name of a dataclass with `renamed_fields`; empty for others."""
    names: dict[str, str] = getattr(cls, "_old_field_names", {})
    return names


def with_new_names(owner: str, given: dict[str, Any], new_names: dict[str, str]) -> dict[str, Any]:
    """The given values by their new names, with one warning per old name.

    Raises:
        TypeError: a value is given by both names.
    """
    renamed: dict[str, Any] = {}
    for name, value in given.items():
        new = new_names.get(name, name)
        if new != name:
            _warn(f"{owner}: {name} is now {new}", stacklevel=3)
        if new in renamed or (new != name and new in given):
            raise TypeError(f"{owner}: got {new} and its old name as well")
        renamed[new] = value
    return renamed


def _alias(owner: str, old: str, new: str) -> property:
    def get(self: Any) -> Any:
        _warn(f"{owner}.{old} is now {owner}.{new}", stacklevel=2)
        return getattr(self, new)

    def set_(self: Any, value: Any) -> None:
        _warn(f"{owner}.{old} is now {owner}.{new}", stacklevel=2)
        setattr(self, new, value)

    return property(get, set_, doc=f"Deprecated: the old name of ``{new}``.")


def _warn(message: str, stacklevel: int) -> None:
    warnings.warn(f"{message}; the old name will be removed", FutureWarning, stacklevel=stacklevel + 1)
