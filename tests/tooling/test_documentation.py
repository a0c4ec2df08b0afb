"""What the documentation shows runs: examples, docstrings, the README's code; and every public name is documented."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import retina_ops

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(retina_ops.__path__, "retina_ops.")
    if not info.name.endswith(("__main__", ".abi3"))
)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example(example: Path) -> None:
    arguments = ["3"] if example.stem == "training_loop" else []
    run = subprocess.run([sys.executable, str(example), *arguments], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.strip(), run.stderr[-2000:]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    if name.endswith(("_cpu", "_cuda")):
        return
    module = importlib.import_module(name)
    torch.manual_seed(0)
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


def test_public_names_are_documented() -> None:
    for name in retina_ops.__all__:
        if name.startswith("__"):
            continue
        text = inspect.getdoc(getattr(retina_ops, name)) or ""
        assert len(text) > 80, name
        if name != "build_info":
            for section in ("Args:", "Returns:", "Raises:"):
                assert section in text, (name, section)


def test_readme_code() -> None:
    """Each Python block of the README runs, with the names of those before it."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


def test_links_in_documents() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            assert target.startswith("http") or (document.parent / target).exists(), (document.name, target)


def test_figures_of_the_focal_loss(tmp_path: Path) -> None:
    """The script draws both figures, and docs/focal-loss.md quotes what it prints."""
    code = (
        "import pathlib, runpy, sys\n"
        "script = runpy.run_path(sys.argv[1])\n"
        "script['main'].__globals__['FOLDER'] = pathlib.Path(sys.argv[2])\n"
        "script['main']()\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "docs" / "figures" / "draw.py"), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gradient.svg", "loss.svg"]
    text = (ROOT / "docs" / "focal-loss.md").read_text()
    assert len(run.stdout.splitlines()) == 2
    for line in run.stdout.splitlines():
        assert f"> {line}\n" in text


def test_every_difference_names_its_tests() -> None:
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    rows = [line for line in (ROOT / "docs" / "differences.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        names = re.findall(r"`([^`]+)`", row.split("|")[-2])
        assert names, row
        for name in names:
            file, _, function = name.rpartition("::")
            if name.endswith(".py"):
                assert name in files, name
            else:
                assert any(f"def {function}(" in text for path, text in files.items() if file in ("", path)), name
