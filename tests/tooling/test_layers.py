"""The layers of the package: a module imports from its own layer or from those below, and nothing in a circle."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "retina_ops"

# From the lowest layer up; the parts of one layer do not import each other.
LAYERS = (
    ("_version", "_checkout", "_deprecated", "_defaults", "errors", "resizing"),
    ("_library", "files", "reference"),
    ("coco_format", "images", "settings", "anchor_cache", "output_folder", "ops"),
    ("patching",),
    ("patch",),
    ("__init__",),  # the public operators
    ("inference",),
    ("models", "data"),
    ("evaluation",),
    ("training",),
    ("study",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def module_files() -> dict[str, Path]:
    """Dotted name below the package to file; a package is called by its folder."""
    files = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return files


FILES = module_files()


def resolve(module: str, is_package: bool, node: ast.ImportFrom) -> str | None:
    """The module below the package that a `from` import names; None for one outside."""
    if node.level == 0:
        if node.module is None or node.module.split(".")[0] != "retina_ops":
            return None
        return ".".join(node.module.split(".")[1:])
    base = module.split(".") if module != "__init__" else []
    base = base if is_package else base[:-1]
    base = base[: len(base) - (node.level - 1)]
    return ".".join([*base, *(node.module.split(".") if node.module else [])])


@cache
def imports(module: str) -> set[str]:
    """Every module of the package that a module imports, anywhere in it."""
    path, found = FILES[module], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names if alias.name.split(".")[0] == "retina_ops"}
            found |= {name.removeprefix("retina_ops").removeprefix(".") or "__init__" for name in names}
        elif isinstance(node, ast.ImportFrom):
            target = resolve(module, path.name == "__init__.py", node)
            if target is None:
                continue
            for alias in node.names:
                inner = f"{target}.{alias.name}" if target else alias.name
                found.add(inner if inner in FILES else target or "__init__")
    return {name for name in found if name in FILES and name != module}


def part_of(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module: str) -> None:
    """Also those in functions and those for type checking only."""
    part = part_of(module)
    assert part in LEVEL, f"{part} has no layer"
    for other in imports(module):
        assert part_of(other) == part or LEVEL[part_of(other)] < LEVEL[part], f"{module} imports {other}"


def test_no_circles() -> None:
    graph = {module: imports(module) for module in FILES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())
