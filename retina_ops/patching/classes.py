"""How a module is patched: its class becomes a subclass of the class it had and of one of the classes in `fused`.

Apart from one plain attribute of the model, the modules stay as they are. So state dicts, optimizers and wrappers see
the same modules, and a copy of a patched model is patched too.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn


class Fused:
    """Base of the classes that patching adds. Pickles and copies name the two classes, not the one made of them."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        reduced: Any = super().__reduce_ex__(max(2, int(protocol)))  # the class first, then the state
        return _new, (type(self)._added, type(self)._patched), *reduced[2:]  # type: ignore[attr-defined]

    def __prepare_scriptable__(self) -> NoReturn:
        raise RuntimeError("TorchScript does not support a patched model: call unpatch_torchvision on it first")


@cache
def fused_class(added: Any, patched: Any) -> type:
    """The class of a module that had the class `patched`, with the methods of `added` before its own."""
    return type(f"Fused{patched.__name__}", (added, patched), {"_added": added, "_patched": patched})


def own_class(kind: Any) -> Any:
    """The class that a patched module had before; any other class as it is."""
    return kind._patched if issubclass(kind, Fused) else kind


def _new(added: type, patched: type) -> Any:
    kind: Any = fused_class(added, patched)
    return kind.__new__(kind)
