"""A checkout that is not built hands over to the installed package.

In a clone after ``pip install .``, ``python -m retina_ops`` and ``torchrun -m retina_ops`` find the folder of the
sources first, which has no compiled operators. Its modules may be of another version than the installed operators, so
all of them are taken from the installed package.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_LIBRARY = "_cpu.abi3.so"


def _installed_package() -> Path | None:
    """The folder of another retina_ops on ``sys.path`` that is built."""
    for entry in sys.path:
        folder = Path(entry or ".").resolve() / _HERE.name
        if folder != _HERE and (folder / _LIBRARY).is_file():
            return folder
    return None


if not (_HERE / _LIBRARY).is_file():
    _found = _installed_package()
    if _found is not None:
        sys.modules[__name__.rpartition(".")[0]].__path__[:] = [str(_found)]
        warnings.warn(
            f"{_HERE} is not built: the installed package {_found} is used", category=ImportWarning, stacklevel=2
        )
