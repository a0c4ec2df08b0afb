"""The emulator reports each bug of planted.cpp, and nothing for the same kernel without the bug."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .build import HERE, compile_program, symbolized
from .device import ENVIRONMENT

# By bug: what the report of the sanitizers contains, and that of the race checker. None: this variant cannot find it.
PLANTED: dict[str, tuple[str | None, str | None]] = {
    "global bounds": ("heap-buffer-overflow", "read outside every array"),
    "shared bounds": ("out of bounds|use-after-poison|heap-buffer-overflow", "read outside every array"),
    "missing barrier": (None, "read after write|write after read|nobody wrote"),
    "tile overwritten": (None, "write after read|read after write"),
    "lost update": (None, "after write|after read"),
    "lost update across blocks": (None, "after write|after read"),
    "adjacent bytes": (None, "write after write"),
    "reused reduction": (None, "write after read|read after write"),
    "divergent barrier": ("meet at different barriers", "meet at different barriers"),
    "deadlock": ("deadlock:|different", "deadlock:|different"),
    "missing syncwarp": (None, "read after write|write after read|nobody wrote"),
    "uninitialized shared": (None, "nobody wrote: byte 28 of shared memory"),
    "misaligned": ("misaligned address", None),
    "lane that left": ("names a lane that left", "names a lane that left"),
    "lane outside mask": ("not in its own mask", "not in its own mask"),
    "deep stack": ("", ""),  # a fault at the guard page, without a report
    "missing fence": (None, "read after write"),
    "missing fence after the counter": (None, "read after write"),
    "fence before the barrier": (None, "read after write"),
    "global garbage": (None, "nobody wrote: byte 0 of data"),
    "invalid launch": ("invalid launch configuration", "invalid launch configuration"),
}
SCHEDULES = [("forward", 1), ("reverse", 1), *(("random", seed) for seed in range(1, 21))]


@pytest.fixture(scope="module")
def programs() -> dict[str, Path]:
    return {name: compile_program(name, [HERE / "planted.cpp"]) for name in ("sanitizers", "races")}


def run(program: Path, name: str, state: str, order: str, seed: int) -> tuple[int, str]:
    command = [str(program), name, state, order, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, errors="replace")
    return done.returncode, symbolized(program, done.stderr)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_reported(programs: dict[str, Path], name: str) -> None:
    for variant, expected in zip(("sanitizers", "races"), PLANTED[name], strict=True):
        if expected is None:
            continue
        for order, seed in (("forward", 1), ("reverse", 1), ("random", 3)):
            status, text = run(programs[variant], name, "wrong", order, seed)
            assert status != 0, (variant, order)
            assert any(part in text for part in expected.split("|")), (variant, order, text)


@pytest.mark.parametrize("name", PLANTED)
def test_right_kernel_is_not_reported(programs: dict[str, Path], name: str) -> None:
    for variant, program in programs.items():
        for order, seed in SCHEDULES if variant == "races" else SCHEDULES[:3]:
            status, text = run(program, name, "right", order, seed)
            assert status == 0, (variant, order, seed, text)


def test_reports_name_the_source_line(programs: dict[str, Path]) -> None:
    text = run(programs["races"], "missing barrier", "wrong", "forward", 1)[1]
    assert "at planted.cpp:" in text and "thread" in text and "block 0" in text
