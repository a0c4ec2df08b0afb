"""A build compiles what has changed and nothing else, and leaves nothing of an earlier build behind.

The tests build a copy of the package whose csrc/ holds a few functions and no operator.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from requirements import require

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = 'extern "C" __attribute__((visibility("default"))) int {name}() {{ return {value}; }}\n'


class Project:
    """The copy, with the commands that build it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "build_tools", folder / "build_tools", ignore=shutil.ignore_patterns("__pycache__"))
        self.write("retina_ops/__init__.py", "")
        self.write("retina_ops/_version.py", '__version__ = "0.1.0"\n')
        self.write("csrc/build.json", (ROOT / "csrc/build.json").read_text())
        self.write("csrc/common/value.h", "#define VALUE 1\n")
        self.write("csrc/common/value.cpp", '#include "value.h"\n' + FUNCTION.format(name="value", value="VALUE"))
        self.write("csrc/room/room_op.cpp", FUNCTION.format(name="room", value=2))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *command: str, cuda: str = "0", **environment: str) -> str:
        """Runs Python in the folder of the project and returns what it printed."""
        variables = {**os.environ, "RETINA_OPS_CUDA": cuda, "MAX_JOBS": "2", **environment}
        run = subprocess.run([sys.executable, *command], cwd=self.folder, env=variables, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
        return run.stdout + run.stderr

    def build(self, **options: str) -> set[str]:
        """Builds in place, as `make build`, and returns the names of the compiled sources."""
        return compiled(self.run("setup.py", "build_ext", "--inplace", **options))

    def call(self, function: str) -> int | None:
        """Calls a function of the built library, or returns None where the library lacks it."""
        code = "import ctypes, sys; print(getattr(ctypes.CDLL(sys.argv[1]), sys.argv[2], lambda: None)())"
        command = [sys.executable, "-c", code, str(self.library("cpu")), function]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        return None if text == "None" else int(text)

    def library(self, name: str) -> Path:
        return self.folder / f"retina_ops/_{name}.abi3.so"


def compiled(output: str) -> set[str]:
    return {Path(source).name for source in re.findall(r"^\[\d+/\d+\] .* -c (\S+) -o ", output, flags=re.MULTILINE)}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_builds_what_has_changed(project: Project) -> None:
    assert project.build() == {"value.cpp", "room_op.cpp"}
    assert (project.call("value"), project.call("room")) == (1, 2)
    # A header is changed, a source is removed and another is new.
    project.write("csrc/common/value.h", "#define VALUE 3\n")
    (project.folder / "csrc/room/room_op.cpp").unlink()
    project.write("csrc/other/other_op.cpp", FUNCTION.format(name="other", value=4))
    assert project.build() == {"value.cpp", "other_op.cpp"}
    assert [project.call(name) for name in ("value", "room", "other")] == [3, None, 4]
    # A flag.
    settings = (project.folder / "csrc/build.json").read_text()
    project.write("csrc/build.json", settings.replace('"cxx_flags": [', '"cxx_flags": ["-DFLAG", '))
    assert project.build() == {"value.cpp", "other_op.cpp"}
    # Another torch, compiler or toolkit.
    (tools,) = project.folder.glob("build/temp.*/tools.json")
    tools.write_text("[]")
    assert project.build() == {"value.cpp", "other_op.cpp"}
    # Nothing, and pip's editable install uses the same objects.
    project.library("cpu").unlink()
    backend = "import sys; sys.path.insert(0, 'build_tools'); import retina_ops_build as backend; "
    output = project.run("-c", f"{backend}print(backend.build_editable(sys.argv[1]))", str(project.folder / "out"))
    assert "ninja: no work to do." in output and project.call("value") == 3
    # So does a wheel, which holds the package alone, whatever earlier builds have left in the folder that is packed.
    (packed,) = project.folder.glob("build/lib.*/retina_ops")
    (packed / "_cuda.abi3.so").touch()
    (packed / "removed.py").touch()
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-w", str(project.folder))
    assert "ninja: no work to do." in project.run("-m", "pip", "wheel", "-v", *options, ".")
    (wheel,) = project.folder.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("retina_ops/")]
    assert sorted(names) == [
        f"retina_ops/{name}" for name in ("__init__.py", "_build_info.json", "_cpu.abi3.so", "_version.py")
    ]


def test_cuda_switched_on_and_off(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "build_tools"))
    toolkit = importlib.import_module("cuda_toolkit")
    require(toolkit.decide(torch.version.cuda, toolkit.find_toolkit()).build, "a CUDA toolkit for this torch")
    project.write("csrc/room/room_op.cu", "__global__ void kernel(float* x) { x[threadIdx.x] = 0.0f; }\n")
    everything = {"value.cpp", "room_op.cpp", "room_op.cu"}
    assert project.build(cuda="1", TORCH_CUDA_ARCH_LIST="8.0") == everything
    ctypes.CDLL(str(project.library("cuda")))
    # room_op.cpp and room_op.cu have an object each, and an architecture concerns the second alone.
    assert project.build(cuda="1", TORCH_CUDA_ARCH_LIST="9.0") == {"room_op.cu"}
    # The CUDA library of an earlier build does not stay.
    assert project.build(cuda="0") == set()
    assert project.library("cpu").is_file() and not project.library("cuda").exists()
