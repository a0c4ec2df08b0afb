"""Compiles the kernels with g++ against the emulator: with sanitizers, with the race checker, or for line coverage."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "cuda_on_cpu"
COMPILER = os.environ.get("CXX", "g++")
SHARED = ["-std=c++17", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"]


@dataclass(frozen=True)
class Variant:
    """Flags of the kernels, of the emulator, of the link; and the sources that it has beside the common ones."""

    kernels: Sequence[str]
    emulator: Sequence[str]
    link: Sequence[str] = ()
    sources: Sequence[str] = field(default=("emulator/race_none.cpp",))


_SANITIZE = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
VARIANTS = {
    "sanitizers": Variant(_SANITIZE, _SANITIZE, _SANITIZE),
    # Instrumented for ThreadSanitizer, linked with the checker in its place.
    "races": Variant(
        ["-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"],
        ["-O2"],
        ["-no-pie"],
        ("emulator/race_checker.cpp", "emulator/race_entry.cpp"),
    ),
    "coverage": Variant(["-O0", "--coverage"], ["-O2"], ["--coverage"]),
}
EMULATOR = ("case.cpp", "emulator/fiber.cpp", "emulator/scheduler.cpp")
KERNELS = {
    "anchor_matching": (HERE / "kernels_anchor_matching.cpp",),
    "box_coding": (HERE / "kernels_box_coding.cpp",),
    "box_iou": (HERE / "kernels_box_iou.cpp", Path("box_iou/box_iou_grad.cu")),
    "focal_loss": (
        HERE / "kernels_focal_loss.cpp",
        Path("focal_loss/focal_loss_labels.cu"),  # of csrc
        Path("focal_loss/focal_loss_soft.cu"),
    ),
    "iou_losses": (HERE / "kernels_iou_losses.cpp",),
    "nms": (HERE / "kernels_nms.cpp",),
    "retinanet_loss": (
        HERE / "kernels_retinanet_loss.cpp",
        Path("retinanet_loss/retinanet_loss_classification.cu"),
        Path("retinanet_loss/retinanet_loss_box.cu"),
    ),
    "soft_nms": (HERE / "kernels_soft_nms.cpp",),
    "postprocess": (HERE / "kernels_postprocess.cpp",),
}


def build(variant: str, csrc: Path = CSRC, parts: Sequence[str] = tuple(KERNELS)) -> Path:
    """The program that runs cases of the kernels of `parts`. Compiled once for the same sources."""
    sources = [csrc / name for part in parts for name in KERNELS[part]]
    return compile_program(variant, [HERE / "main.cpp", *sources], csrc)


def compile_program(variant: str, sources: Sequence[Path], csrc: Path = CSRC) -> Path:
    """A program of kernel sources and the emulator, from the cache where nothing has changed."""
    chosen = VARIANTS[variant]
    folder = CACHE / variant / _digest(variant, sources, csrc)
    program = folder / "program"
    if program.is_file():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    include = ["-I", str(HERE), "-I", str(HERE / "include"), "-I", str(csrc)]
    jobs = [(source, [*SHARED, *chosen.kernels]) for source in sources]
    jobs += [(HERE / name, [*SHARED, *chosen.emulator]) for name in [*EMULATOR, *chosen.sources]]

    def compile_one(job: tuple[Path, list[str]]) -> Path:
        source, flags = job
        target = folder / f"{source.stem}.o"
        _run([COMPILER, *flags, *include, "-x", "c++", "-c", str(source), "-o", str(target)], folder)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, jobs))
    partial = folder / f"program.{os.getpid()}"
    _run([COMPILER, *chosen.link, *map(str, objects), "-o", str(partial)], folder)
    partial.rename(program)
    return program


def symbolized(program: Path, text: str) -> str:
    """A report with `pc=0x...` replaced by the source line."""
    words = text.split()
    places = {word.rstrip(",;") for word in words if word.startswith("pc=0x")}
    for place in places:
        # Offsets count from the start of the image, which -no-pie puts at 0x400000.
        address = hex(int(place[3:], 16) + 0x400000)
        found = subprocess.run(
            ["addr2line", "-e", str(program), address], capture_output=True, text=True
        ).stdout.strip()
        if found and not found.startswith("??"):
            text = text.replace(place, f"at {Path(found.split(' ')[0]).name}")
    return text


def _digest(variant: str, sources: Sequence[Path], csrc: Path) -> str:
    everything = [*sources, *sorted(HERE.rglob("*.h")), *sorted(HERE.rglob("*.cpp")), *sorted(csrc.rglob("*.*h"))]
    digest = hashlib.sha256(f"{VARIANTS[variant]}{SHARED}{COMPILER}".encode())
    for path in everything:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[-4:])}:\n{done.stderr[-6000:]}")
