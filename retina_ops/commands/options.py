"""Common parts of the commands: parsing typed options, the output folder, a table of metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from .._deprecated import old_field_names
from ..errors import DataError, needs_extra
from ..settings import check_settings, deferred_checks

with needs_extra("train"):
    import tyro

T = TypeVar("T")


def parse(options: type[T], command: str, arguments: list[str], *, default: T | None = None) -> T:
    """The options of a command line.

    Args:
        options: a dataclass. The first line of its docstring and the texts under "Attributes" are the help.
        command: name of the command, for the help.
        arguments: the words of the command line after the name of the command.
        default: values of options that are not given. Default: the defaults of the dataclass.

    Raises:
        SystemExit: the usage is wrong; tyro has printed a message. The status is 2.
        ValueError: a number is out of its range, or values do not fit together.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    with deferred_checks():  # tyro would explain what a dataclass refuses in a box, without its path
        parsed = tyro.cli(
            options,
            prog=f"retina-ops {command}",
            description=(options.__doc__ or "").partition("\n")[0],
            args=with_new_flags(options, arguments),
            **given,
        )
    check_settings(parsed)
    return parsed


def with_new_flags(options: type, arguments: list[str]) -> list[str]:
    """The arguments with options of renamed fields by their new names. It warns (FutureWarning) about old names."""
    new_flags = dict(_renamed_flags(options))
    renamed = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        new_flag = new_flags.get(flag.replace("_", "-"))
        if new_flag is not None:
            warnings.warn(f"{flag} is now {new_flag}; the old name will be removed", FutureWarning, stacklevel=3)
        renamed.append(argument if new_flag is None else new_flag + equals + value)
    return renamed


def _renamed_flags(options: type, prefix: str = "--") -> Iterator[tuple[str, str]]:
    """(old flag, new flag) of all renamed fields of a dataclass and of its nested dataclasses."""
    for old, new in old_field_names(options).items():
        yield f"{prefix}{old}".replace("_", "-"), f"{prefix}{new}".replace("_", "-")
    hints = get_type_hints(options)
    for item in fields(options):
        if is_dataclass(hints[item.name]):
            yield from _renamed_flags(hints[item.name], f"{prefix}{item.name}.")


def output_folder(path: str) -> Path:
    """Creates the folder if it is missing.

    Raises:
        DataError: the folder cannot be created.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(folder, f"cannot be an output folder ({error.strerror})") from None
    return folder


def metrics_table(metrics: dict[str, Any]) -> str:
    """COCO metrics as lines of text: one line for all classes together, then one line per class."""
    recalls = [key for key in metrics if key[:2] == "AR" and key[2:].isdigit()]  # named by their limits of detections
    keys = ("AP", "AP50", "AP75", "APs", "APm", "APl", *recalls)
    per_class: dict[str, dict[str, Any]] = metrics.get("per_class", {})
    width = max([len("all classes"), *map(len, per_class)])
    lines = [f"{'':<{width}}" + "".join(f"{key:>8}" for key in keys)]
    for name, row in {"all classes": metrics, **per_class}.items():
        cells = (f"{row[key]:8.3f}" if row.get(key) is not None else f"{'-':>8}" for key in keys)
        lines.append(f"{name:<{width}}" + "".join(cells))
    return "\n".join(lines)
