"""Compiles the kernels with g++ against the emulator: with sanitizers, with the race checker, or for line coverage.

Rooms are found by folder: a room is a folder of csrc with a .cuh file, `common` excepted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "cuda_on_cpu"
COMPILER = os.environ.get("CXX", "g++")
SHARED = ("-std=c++17", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off")
EMULATOR = (HERE / "case.cpp", HERE / "emulator/fiber.cpp", HERE / "emulator/scheduler.cpp")
MARK = "RETINA_OPS_LAUNCH("  # a header that has it registers a launch


@dataclass(frozen=True)
class Variant:
    """Flags of the kernels, of the emulator, of the link; and the sources that only this variant has."""

    kernels: tuple[str, ...]
    emulator: tuple[str, ...]
    link: tuple[str, ...] = ()
    sources: tuple[str, ...] = ("emulator/race_none.cpp",)


_SANITIZE = ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
VARIANTS = {
    "sanitizers": Variant(_SANITIZE, _SANITIZE, _SANITIZE),
    # Instrumented for ThreadSanitizer, linked with the race checker in its place.
    "races": Variant(
        ("-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"),
        ("-O2",),
        ("-no-pie",),
        ("emulator/race_checker.cpp", "emulator/race_entry.cpp"),
    ),
    "coverage": Variant(("-O0", "--coverage"), ("-O2",), ("--coverage",)),
}


def find_rooms(csrc: Path = CSRC) -> dict[str, list[Path]]:
    """The emulated sources of each room: its headers that register launches, and its .cu files without torch."""
    rooms = {}
    for folder in sorted(path for path in csrc.iterdir() if path.name != "common" and any(path.glob("*.cuh"))):
        headers = [path for path in sorted(folder.glob("*.cuh")) if MARK in path.read_text()]
        sources = [path for path in sorted(folder.glob("*.cu")) if not path.stem.endswith("_op")]
        rooms[folder.name] = [_including(folder.name, headers), *sources]
    return rooms


def build(variant: str, csrc: Path = CSRC, rooms: Sequence[str] = ()) -> Path:
    """The program that runs cases of the kernels of `rooms`; of all rooms where none is named."""
    found = find_rooms(csrc)
    sources = [path for room in rooms or found for path in found[room]]
    return _link(variant, compile_objects(variant, sources, csrc), [HERE / "main.cpp"])


def compile_program(variant: str, sources: Sequence[Path]) -> Path:
    """A program of kernel sources with a main of their own."""
    return _link(variant, compile_objects(variant, sources), [])


def compile_objects(variant: str, kernels: Sequence[Path], csrc: Path = CSRC) -> list[Path]:
    """Object files of kernel sources; what is compiled already is taken from the cache."""
    return _compile(variant, [(path, VARIANTS[variant].kernels) for path in kernels], csrc)


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


def _including(room: str, headers: Sequence[Path]) -> Path:
    """A source that includes the headers."""
    source = CACHE / "rooms" / f"{room}.cpp"
    text = "".join(f'#include "{room}/{path.name}"\n' for path in headers)
    if not source.is_file() or source.read_text() != text:
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text)
    return source


def _link(variant: str, objects: list[Path], mains: Sequence[Path]) -> Path:
    chosen = VARIANTS[variant]
    emulator = [*mains, *EMULATOR, *(HERE / name for name in chosen.sources)]
    objects = [*_compile(variant, [(path, chosen.emulator) for path in emulator]), *objects]
    program = CACHE / variant / hashlib.sha256(" ".join(map(str, objects)).encode()).hexdigest()[:16]
    with _locked():
        if not program.is_file():
            partial = program.with_suffix(".partial")
            _run([COMPILER, *chosen.link, *map(str, objects), "-o", str(partial)])
            partial.rename(program)
    return program


def _compile(variant: str, jobs: Sequence[tuple[Path, tuple[str, ...]]], csrc: Path = CSRC) -> list[Path]:
    folder = CACHE / variant / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    include = (HERE, HERE / "include", csrc)

    def compile_one(job: tuple[Path, tuple[str, ...]]) -> Path:
        source, flags = job
        command = [COMPILER, *SHARED, *flags]
        target = folder / f"{source.stem}-{_digest(command, source, include)}.o"
        done = target.with_suffix(".done")  # an object may be there in part
        if not done.is_file():
            places = [word for path in include for word in ("-I", str(path))]
            _run([*command, *places, "-x", "c++", "-c", str(source), "-o", str(target)])
            done.touch()
        return target

    with _locked(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, jobs))


_INCLUDED = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]', re.MULTILINE)


def _digest(command: Sequence[str], source: Path, include: Sequence[Path]) -> str:
    """Of the command, the source, and all that it includes from the folders `include`."""
    digest = hashlib.sha256("\n".join(command).encode())
    seen, waiting = set(), [source]
    while waiting:
        content = waiting.pop().read_bytes()
        digest.update(content)
        for name in _INCLUDED.findall(content.decode()):
            found = next((folder / name for folder in include if (folder / name).is_file()), None)
            if found is not None and name not in seen:
                seen.add(name)
                waiting.append(found)
    return digest.hexdigest()[:16]


@contextmanager
def _locked() -> Iterator[None]:
    """One process at a time writes into the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[-4:])}:\n{done.stderr[-6000:]}")
