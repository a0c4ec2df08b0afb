"""Builds the operators: ``_cpu`` always, ``_cuda`` where it can.

build_tools/sources.py finds the sources, csrc/build.json holds the flags. Objects stay in build/: ninja compiles again
what has changed (sources, headers, command lines), whether `make build`, pip's editable install or a wheel asks for it.
"""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_tools"))

import cuda_toolkit  # noqa: E402
import sources  # noqa: E402

COMPILER = shlex.split(os.environ.get("CXX", "")) or ["c++"]
_COMPILING = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}
if _COMPILING & set(sys.argv) and shutil.which(COMPILER[0]) is None:
    sys.exit(
        f"retina_ops: no C++ compiler: {COMPILER[0]!r} is not found. Install one (apt install g++, dnf install "
        "gcc-c++, conda install gxx), or name one in the variable CXX"
    )
HOME = cuda_toolkit.find_toolkit()
if HOME is not None:
    os.environ["CUDA_HOME"] = str(HOME)  # torch reads it on import; without it torch takes the folder of a wrapper
if (Path(sys.executable).parent / "ninja").is_file():
    # One ninja for every build of this environment: releases of ninja do not read each other's logs.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import torch  # noqa: E402
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # noqa: E402

BUILD = sources.settings()
try:
    CUDA = cuda_toolkit.decide(torch.version.cuda, HOME)
except cuda_toolkit.CudaUnavailable as error:
    sys.exit(f"retina_ops: {error}")
if CUDA.build:
    os.environ["TORCH_CUDA_ARCH_LIST"] = cuda_toolkit.architectures(BUILD["cuda_architectures"])
# Read by the compilers, and not part of a command line.
COMPILER_VARIABLES = ("CPATH", "CPLUS_INCLUDE_PATH", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")


def extension(kind: Callable, name: str, files: list[str], **flags: list[str]) -> Extension:
    return kind(
        f"retina_ops.{name}",
        [f"csrc/{file}" for file in files],
        include_dirs=[str(ROOT / "csrc")],  # a list per extension: torch appends to it
        define_macros=[("TORCH_TARGET_VERSION", BUILD["torch_target_version"])],
        extra_compile_args=flags,
        py_limited_api=True,
    )


def extensions() -> list[Extension]:
    standard = f"-std=c++{BUILD['cxx_standard']}"
    # -g0: setuptools repeats the flags that Python was built with. Debug information takes a quarter of the compile
    # time and four times the space.
    cxx = ["-g0", *BUILD["cxx_flags"], standard]
    built = [extension(CppExtension, "_cpu", [*sources.core(), *sources.cpu_operators()], cxx=cxx)]
    if CUDA.build:
        nvcc = [*BUILD["nvcc_flags"], standard, "-DUSE_CUDA"]
        built.append(extension(CUDAExtension, "_cuda", sources.cuda(), cxx=cxx, nvcc=nvcc))
    return built


def compiler_version() -> str | None:
    lines = subprocess.run([*COMPILER, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    return lines[0] if lines else None


class BuildLibraries(BuildExtension):
    """Compiles what has changed, links, and stores what was built for ``retina_ops.build_info()``."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Without `force`, setuptools skips a library that is newer than its sources, whatever its headers and flags
        # are. With it, ninja decides which objects are compiled, and the library is linked from them each time.
        self.force = True
        if self.editable_mode:  # setuptools builds in a temporary folder here
            command = self.get_finalized_command("build")
            self.build_temp = f"{command.build_base}/temp.{command.plat_name}-{sys.implementation.cache_tag}"

    def run(self) -> None:
        self.remove_objects_of_other_tools()
        super().run()
        folder = Path(self.get_ext_fullpath("retina_ops._cpu")).parent
        if not CUDA.build:
            (folder / "_cuda.abi3.so").unlink(missing_ok=True)  # of an earlier build
        info = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "compiler": compiler_version(),
            "cpu": True,
            "cuda": CUDA.build,
            "cuda_reason": CUDA.reason,
            "cuda_toolkit": CUDA.toolkit,
            "cuda_architectures": os.environ["TORCH_CUDA_ARCH_LIST"] if CUDA.build else None,
        }
        (folder / "_build_info.json").write_text(json.dumps(info, indent=2) + "\n")
        print(f"retina_ops: built _cpu{' and _cuda' if CUDA.build else f'; no _cuda: {CUDA.reason}'}")

    def build_extension(self, ext: Extension) -> None:
        """Builds in a folder per library: nms_op.cpp and nms_op.cu have objects of the same name."""
        folder = self.build_temp
        self.build_temp = os.path.join(folder, ext.name.rpartition(".")[2])
        super().build_extension(ext)
        self.build_temp = folder

    def remove_objects_of_other_tools(self) -> None:
        """Removes the objects of another torch, compiler or toolkit: ninja compares command lines, not versions."""
        folder = Path(self.build_temp)
        variables = {name: os.environ.get(name) for name in COMPILER_VARIABLES}
        tools = json.dumps([torch.__version__, compiler_version(), CUDA.toolkit, variables])
        record = folder / "tools.json"
        if not record.is_file() or record.read_text() != tools:
            for library in ("_cpu", "_cuda"):
                shutil.rmtree(folder / library, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            record.write_text(tools)


class Build(build):
    """Starts from an empty build/lib: bdist_wheel packs everything that it finds there."""

    def run(self) -> None:
        if Path(self.build_lib).parent == Path(self.build_base):  # not a folder that the user has named
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(
    ext_modules=extensions(),
    cmdclass={"build": Build, "build_ext": BuildLibraries.with_options(use_ninja=True)},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
