"""Builds the operators: ``_cpu`` always, ``_cuda`` where it can. Sources and flags stand in csrc/build.json."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_tools"))

import cuda_toolkit  # noqa: E402

HOME = cuda_toolkit.find_toolkit()
if HOME is not None:
    os.environ["CUDA_HOME"] = str(HOME)  # torch reads it on import, and takes a wrapper's folder otherwise

import torch  # noqa: E402
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # noqa: E402

BUILD = json.loads((ROOT / "csrc/build.json").read_text())
try:
    CUDA = cuda_toolkit.decide(torch.version.cuda, HOME)
except cuda_toolkit.CudaUnavailable as error:
    sys.exit(f"retina_ops: {error}")
if CUDA.build:
    os.environ["TORCH_CUDA_ARCH_LIST"] = cuda_toolkit.architectures(BUILD["cuda_architectures"])


def sources(*groups: str) -> list[str]:
    return [f"csrc/{name}" for group in groups for name in BUILD[group]]


def extensions() -> list:
    cxx = [*BUILD["cxx_flags"], f"-std=c++{BUILD['cxx_standard']}"]
    shared = {
        "include_dirs": [str(ROOT / "csrc")],
        "define_macros": [("TORCH_TARGET_VERSION", BUILD["torch_target_version"])],
        "py_limited_api": True,
    }
    built = [
        CppExtension(
            "retina_ops._cpu", sources("core_sources", "cpu_sources"), extra_compile_args={"cxx": cxx}, **shared
        )
    ]
    if CUDA.build:
        nvcc = [*BUILD["nvcc_flags"], f"-std=c++{BUILD['cxx_standard']}", "-DUSE_CUDA"]
        built.append(
            CUDAExtension(
                "retina_ops._cuda",
                sources("cuda_sources"),
                extra_compile_args={"cxx": cxx, "nvcc": nvcc},
                **shared,
            )
        )
    return built


class Build(BuildExtension):
    """Also stores what was built, for ``retina_ops.build_info()``."""

    def run(self) -> None:
        super().run()
        folder = Path(self.get_ext_fullpath("retina_ops._cpu")).parent
        compiler = subprocess.run(
            [os.environ.get("CXX", "c++"), "--version"], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        info = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "compiler": compiler[0] if compiler else None,
            "cpu": True,
            "cuda": CUDA.build,
            "cuda_reason": CUDA.reason,
            "cuda_toolkit": CUDA.toolkit,
            "cuda_architectures": os.environ["TORCH_CUDA_ARCH_LIST"] if CUDA.build else None,
        }
        (folder / "_build_info.json").write_text(json.dumps(info, indent=2) + "\n")
        print(f"retina_ops: built _cpu{' and _cuda' if CUDA.build else f'; no _cuda: {CUDA.reason}'}")


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": Build.with_options(use_ninja=True)},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
