"""The generated files are up to date, and their parser finds every operator that the dispatcher knows."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import retina_ops
from retina_ops import _library, reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "build_tools"))
    return importlib.import_module("operators_page")


def test_generated_files_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "build_tools/generated_files.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_schemas_are_those_of_the_dispatcher(page: ModuleType) -> None:
    found = {operator.name: operator.schema for fragment in page.fragments() for operator in fragment.operators}
    registered = {
        name: str(getattr(torch.ops.retina_ops, name).default._schema).removeprefix("retina_ops::")
        for name in _library.operators()
    }
    assert found == registered


def test_every_operator_is_described(page: ModuleType) -> None:
    for fragment in page.fragments():
        assert fragment.comment.endswith("."), fragment.room
        for operator in fragment.operators:
            assert operator.comment.endswith("."), operator.name
            assert f"### {operator.name}\n\n" in page.page()


def test_every_reference_has_its_operator() -> None:
    """The exports of ``retina_ops.reference`` are functions, and ``retina_ops`` exports the same names."""
    for name in reference.__all__:
        assert callable(getattr(reference, name)) and callable(getattr(retina_ops, name)), name
