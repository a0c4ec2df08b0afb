"""The build asks the interpreter that will run the package for its torch, and believes no other."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import retina_ops

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = (
    "RETINA_OPS_PYTHON",
    "PIP_BUILD_TRACKER",
    "UV_INTERNAL__BUILD_DIR",
    "UV_PYTHON",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
)


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module, in a process that no tool started, whose own interpreter has no torch."""
    monkeypatch.syspath_prepend(str(ROOT / "build_tools"))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    module = importlib.import_module("target_interpreter")
    monkeypatch.setattr(module.sys, "executable", environment(tmp_path / "build", None))
    monkeypatch.setattr(module, "_parent_process", lambda: ([], tmp_path, {}))
    return module


def environment(folder: Path, torch: str | None, python: tuple[int, int] = sys.version_info[:2]) -> str:
    """An environment's folder with an interpreter that answers as one with this torch. Returns the interpreter."""
    file = folder / "bin" / "python"
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\necho '{json.dumps([python, torch, [str(folder / 'lib')]])}'\n")
    file.chmod(0o755)
    return str(file)


def test_the_real_interpreter_is_asked_without_the_isolation_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip hides its packages through PYTHONPATH and PYTHONNOUSERSITE."""
    monkeypatch.syspath_prepend(str(ROOT / "build_tools"))
    module = importlib.import_module("target_interpreter")
    monkeypatch.setenv("PIP_BUILD_TRACKER", "x")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    found = module.find_torch()
    import torch

    assert found.version.split("+")[0] == torch.__version__.split("+")[0] and found.python == sys.executable
    assert str(Path(torch.__file__).parents[1]) in found.paths and "/nowhere" not in found.paths


def test_pip_believes_its_own_interpreter_alone(
    target: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(tmp_path / "conda", "2.12.0")
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "conda"))
    monkeypatch.setenv("PIP_BUILD_TRACKER", "x")
    assert target.find_torch() is None


@pytest.mark.parametrize("how", ["--python", "--python=", "-p folder", "VIRTUAL_ENV", "CONDA_PREFIX", ".venv"])
def test_uv(target: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The environment that uv installs into is that of its own process, not that of the build."""
    monkeypatch.setenv("UV_INTERNAL__BUILD_DIR", "x")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "build"))
    project = tmp_path / "project" / "below"
    project.mkdir(parents=True)
    folder = tmp_path / "project" / ".venv" if how == ".venv" else tmp_path / "chosen"
    python = environment(folder, "2.12.0+cpu")
    arguments, variables = ["uv", "pip", "install", "."], {}
    if how == "--python":
        arguments[3:3] = ["--python", "../../chosen/bin/python"]
    elif how == "--python=":
        arguments.append(f"--python={python}")
    elif how == "-p folder":
        arguments += ["-p", str(folder)]
    elif how != ".venv":
        variables[how] = str(folder)
    if how != ".venv":
        environment(tmp_path / "project" / ".venv", "2.14.0")
    monkeypatch.setattr(target, "_parent_process", lambda: (arguments, project, variables))
    found = target.find_torch()
    assert (found.version, Path(found.python).resolve()) == ("2.12.0+cpu", Path(python).resolve())
    assert found.paths == [str(folder / "lib")]


@pytest.mark.parametrize(
    ("torch", "python", "reason"),
    [
        ("2.12.0", (3, 1), "it is of Python 3.1, the build runs under"),
        ("2.9.1", sys.version_info[:2], "it is 2.9.1, needed is 2.10 or newer"),
    ],
)
def test_what_does_not_do_is_said(
    target: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    torch: str,
    python: tuple[int, int],
    reason: str,
) -> None:
    named = environment(tmp_path / "named", torch, python)
    monkeypatch.setenv("RETINA_OPS_PYTHON", named)
    assert target.find_torch() is None
    assert f"retina_ops: the torch of {named} is not used: {reason}" in capsys.readouterr().err
    monkeypatch.setenv("RETINA_OPS_PYTHON", str(tmp_path / "nowhere"))
    assert target.find_torch() is None
    assert "is not a Python that can be run" in capsys.readouterr().err


def test_no_compiler_is_one_line() -> None:
    variables = {**os.environ, "CXX": "no-such-compiler -O2"}
    run = subprocess.run(
        [sys.executable, "setup.py", "build_ext"], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    assert run.returncode == 1 and run.stdout == ""
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("retina_ops: no C++ compiler: 'no-such-compiler' is not found. Install one")


def test_an_old_setuptools_is_one_line() -> None:
    code = (
        "import setuptools; setuptools.__version__ = '65.5.0'; import retina_ops_build as b; b.build_wheel('/nowhere')"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "build_tools")}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True)
    (line,) = run.stderr.strip().splitlines()
    assert run.returncode == 1 and line.startswith("retina_ops: the build needs setuptools 77 or newer, found 65.5.0")


def test_a_checkout_that_is_not_built_uses_the_installed_package(tmp_path: Path) -> None:
    package, clone, site = Path(retina_ops.__file__).parent, tmp_path / "clone", tmp_path / "site"
    shutil.copytree(package, clone / "retina_ops", ignore=shutil.ignore_patterns("*.so", "__pycache__", "_build_info*"))
    shutil.copytree(package, site / "retina_ops", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "retina_ops/_version.py").write_text('__version__ = "9.9"\n')
    variables = {**os.environ, "PYTHONPATH": str(site)}
    run = subprocess.run(
        [sys.executable, "-W", "default", "-m", "retina_ops", "--version"],
        cwd=clone, env=variables, capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout == "retina-ops 9.9\n", run.stderr
    assert f"{clone / 'retina_ops'} is not built: the installed package {site / 'retina_ops'} is used" in run.stderr
    code = "import retina_ops, torch; print(retina_ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5).tolist())"
    run = subprocess.run([sys.executable, "-c", code], cwd=clone, env=variables, capture_output=True, text=True)
    assert run.stdout == "[0]\n", run.stderr
