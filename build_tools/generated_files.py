"""Writes the files that are generated from other sources: `make format`. With --check, compares: `make lint`.

python build_tools/generated_files.py [--check]
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

import operators_page

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "retina_ops/reference"
REFERENCE_HEAD = '''"""Every operator in plain PyTorch: the specification, and the baseline of tests and benchmarks.

`make format` generates this file: it exports what the modules of the folder list in ``__all__``.
"""

'''


def reference_exports() -> str:
    """retina_ops/reference/__init__.py, in the format of ruff."""
    exported = {path.stem: _all_of(path) for path in sorted(REFERENCE.glob("[!_]*.py"))}
    imports = [_import(f"retina_ops.reference.{module}", names) for module, names in exported.items() if names]
    names = "".join(f'    "{name}",\n' for name in sorted(name for names in exported.values() for name in names))
    return f"{REFERENCE_HEAD}{''.join(imports)}\n__all__ = [\n{names}]\n"


def _all_of(path: Path) -> list[str]:
    """The names in ``__all__`` of a module, which is not imported: it may need compiled operators."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return sorted(ast.literal_eval(statement.value))
    return []


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}\n"
    if len(line) <= 121:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")\n"


def generated() -> dict[Path, str]:
    """The text of every generated file."""
    return {ROOT / "docs/operators.md": operators_page.page(), REFERENCE / "__init__.py": reference_exports()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")
    check = parser.parse_args().check
    outdated = [path for path, text in generated().items() if not path.is_file() or path.read_text() != text]
    for path in outdated:
        if not check:
            path.write_text(generated()[path])
        print(f"{path.relative_to(ROOT)} {'is out of date: run `make format`' if check else 'written'}")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
