"""How a module is patched: its class becomes one that is made of a class of ours and its own.

Nothing of the module itself changes but one plain attribute of the model. So state dicts, optimizers and wrappers see
the modules they saw, and a copy is patched too.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn


class Fused:
    """Base of ours: pickles and copies name the class that was patched, not the one made of it."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        reduced: Any = super().__reduce_ex__(max(2, int(protocol)))  # the class first, then the state
        return _new, (type(self)._added, type(self)._patched), *reduced[2:]  # type: ignore[attr-defined]

    def __prepare_scriptable__(self) -> NoReturn:
        raise RuntimeError("TorchScript is not supported by a patched model: unpatch_torchvision it first")


@cache
def fused_class(added: Any, patched: Any) -> type:
    """The class of a module of class `patched` that is patched with `added`."""
    return type(f"Fused{patched.__name__}", (added, patched), {"_added": added, "_patched": patched})


def own_class(thing: Any) -> Any:
    """Its class, of a patched module the one it had before."""
    kind: Any = type(thing)
    return kind._patched if isinstance(thing, Fused) else kind


def _new(added: type, patched: type) -> Any:
    kind: Any = fused_class(added, patched)
    return kind.__new__(kind)
