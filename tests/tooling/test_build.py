"""What the build decides: its sources, where the toolkit is, whether CUDA is built, and the message where it is not."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import retina_ops

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def toolkit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "build_tools"))
    for name in ("CUDA_HOME", "CUDA_PATH", "RETINA_OPS_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    return importlib.import_module("cuda_toolkit")


def fake_toolkit(folder: Path, release: str = "13.0") -> Path:
    """A folder with an nvcc that answers as the real one does."""
    (folder / "include").mkdir(parents=True)
    (folder / "include/cuda_runtime.h").touch()
    nvcc = folder / "bin/nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(
        f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\necho 'TOP={folder}' >&2\n"
    )
    nvcc.chmod(nvcc.stat().st_mode | stat.S_IEXEC)
    return folder


def test_finds_the_toolkit_of_a_wrapper(toolkit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script called nvcc in another folder leads to the toolkit."""
    home = fake_toolkit(tmp_path / "cuda-13.0")
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec "{home}/bin/nvcc" "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    assert toolkit.find_toolkit() == home
    assert toolkit.toolkit_release(home) == "13.0"
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit(tmp_path / "other", "12.8")))
    assert toolkit.find_toolkit() == tmp_path / "other"


@pytest.mark.parametrize(
    ("wanted", "torch_cuda", "release", "reason"),
    [
        ("auto", "13.2", "13.0", None),
        ("1", "13.2", "13.0", None),
        ("0", "13.2", "13.0", "switched off with RETINA_OPS_CUDA=0"),
        ("auto", None, "13.0", "no CUDA; install a CUDA build of torch"),
        ("auto", "12.8", "13.0", "the toolkit is CUDA 13.0 and torch is built with CUDA 12.8; install a toolkit 12.x"),
        ("auto", "13.2", None, "no CUDA toolkit was found; install one"),
    ],
)
def test_decides(toolkit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str,
                 torch_cuda: str | None, release: str | None, reason: str | None) -> None:  # fmt: skip
    monkeypatch.setenv("RETINA_OPS_CUDA", wanted)
    decision = toolkit.decide(torch_cuda, fake_toolkit(tmp_path / "cuda", release) if release else None)
    assert decision.build is (reason is None)
    assert (decision.reason is None) if reason is None else (reason in decision.reason)
    if reason and wanted == "auto":
        monkeypatch.setenv("RETINA_OPS_CUDA", "1")
        with pytest.raises(toolkit.CudaUnavailable, match=re.escape(f"RETINA_OPS_CUDA=1, but {decision.reason}")):
            toolkit.decide(torch_cuda, tmp_path / "cuda" if release else None)


def test_bad_value(toolkit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINA_OPS_CUDA", "yes")
    with pytest.raises(toolkit.CudaUnavailable, match="RETINA_OPS_CUDA must be auto, 1 or 0, got 'yes'"):
        toolkit.decide("13.0", None)


def test_architectures(toolkit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        assert toolkit.architectures("8.0;9.0+PTX") == "8.0;9.0+PTX"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "10.0")
    assert toolkit.architectures("8.0") == "10.0"


def test_setup_without_the_toolkit_that_is_asked_for() -> None:
    """One line, not a traceback."""
    environment = {**os.environ, "RETINA_OPS_CUDA": "1", "CUDA_HOME": "/nowhere", "PATH": "/usr/bin:/bin"}
    code = "import sys; sys.argv = ['setup.py', '--version']; sys.path.insert(0, 'build_tools'); import cuda_toolkit\n"
    code += "cuda_toolkit.find_toolkit = lambda: None\nexec(compile(open('setup.py').read(), 'setup.py', 'exec'),"
    code += " {'__name__': '__main__', '__file__': 'setup.py'})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert (
        run.stderr.strip().splitlines()[-1].startswith("retina_ops: RETINA_OPS_CUDA=1, but no CUDA toolkit was found")
    )
    assert "Traceback" not in run.stderr


def test_build_info_is_true() -> None:
    info = retina_ops.build_info()
    folder = Path(retina_ops.__file__).parent
    assert info["version"] == retina_ops.__version__ and info["torch_running"] == torch.__version__
    assert info["cuda"] is (folder / "_cuda.abi3.so").is_file() and info["cpu"] is True
    assert (info["cuda_reason"] is None) is info["cuda"]
    stored = json.loads((folder / "_build_info.json").read_text())
    assert stored.items() <= info.items()


def test_a_package_without_cuda_operators_says_why(tmp_path: Path) -> None:
    """Built without CUDA, the CPU operators work, and a call with CUDA tensors raises an error with the reason."""
    package = tmp_path / "retina_ops"
    shutil.copytree(Path(retina_ops.__file__).parent, package, ignore=shutil.ignore_patterns("_cuda*", "__pycache__"))
    stored = {**json.loads((package / "_build_info.json").read_text()), "cuda": False, "cuda_reason": "no toolkit"}
    (package / "_build_info.json").write_text(json.dumps(stored))
    code = (
        "import torch, retina_ops\n"
        "boxes, scores = torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1)\n"
        "assert retina_ops.nms(boxes, scores, 0.5).tolist() == [0]\n"
        "kernel = torch.library.get_kernel('retina_ops::nms', 'CUDA')\n"
        "keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)\n"
        "kernel.call_boxed(keys, boxes, scores, None, 0.5)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    expected = (
        "retina_ops: no CUDA operators: this retina_ops was built without CUDA: no toolkit. See `retina-ops env`."
    )
    assert expected in run.stderr, run.stderr


def test_sources_by_suffix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every source is in one group, and core includes no torch header."""
    monkeypatch.syspath_prepend(str(ROOT / "build_tools"))
    sources = importlib.import_module("sources")
    found = [*sources.core(), *sources.cpu_operators(), *sources.cuda()]
    assert sorted(found) == sorted(
        str(path.relative_to(ROOT / "csrc"))
        for suffix in ("cpp", "cu")
        for path in (ROOT / "csrc").rglob(f"*.{suffix}")
    )
    for name in sources.core():
        command = [os.environ.get("CXX", "c++"), f"-std=c++{sources.settings()['cxx_standard']}", "-MM"]
        run = subprocess.run(
            [*command, f"-I{ROOT / 'csrc'}", str(ROOT / "csrc" / name)], capture_output=True, text=True
        )
        assert run.returncode == 0 and "torch/" not in run.stdout, run.stderr
    monkeypatch.setattr(sources, "CSRC", tmp_path)
    for name in ("room/room_op.cpp", "room/room_cpu.cpp", "room/room_op.cu", "room/room_op.h"):
        (tmp_path / "room").mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sources.cpu_operators() == ["room/room_op.cpp"]
    assert sources.core() == ["room/room_cpu.cpp"]
    assert sources.cuda() == ["room/room_op.cu"]


def test_operators_are_asked_of_the_dispatcher() -> None:
    """Each has a kernel for CPU tensors, and one for CUDA tensors, which may be the one that says what is missing."""
    from retina_ops._library import operators

    assert {"nms", "sigmoid_focal_loss", "sigmoid_focal_loss_backward"} <= set(operators())
    for name in operators():
        for key in ("CPU", "CUDA"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"retina_ops::{name}", key), (name, key)


def test_versions_agree() -> None:
    """The oldest torch in pyproject.toml is the one whose headers the sources are compiled for."""
    target = json.loads((ROOT / "csrc/build.json").read_text())["torch_target_version"]
    major, minor = int(target[2:4], 16), int(target[4:6], 16)
    assert f'dependencies = ["torch>={major}.{minor}"]' in (ROOT / "pyproject.toml").read_text()
