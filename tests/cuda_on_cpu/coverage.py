"""Line coverage of the kernel files under the emulator's tests: python -m cuda_on_cpu.coverage, from the folder tests.

Runs the kernel tests with the kernels compiled for gcov. Every line that no test runs must have its reason in REASONS.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from .build import CSRC, HERE, ROOT, compile_objects, find_rooms

# Line (stripped) to why no emulated run can reach it.
REASONS: dict[str, str] = {}


def is_measured(path: Path) -> bool:
    """Kernels, their launches, and the device code that they share."""
    return path.is_relative_to(CSRC) and path.suffix == ".cuh"


def run_tests() -> None:
    """The tests that run under each variant, except those in random schedules, which always run the race checker."""
    files = [HERE / "test_rooms.py", *HERE.glob("test_*_kernels.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--variants", "coverage"]
    command += ["-k", "not random_schedules", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the tests failed under coverage:\n{done.stdout[-3000:]}")


def executed_lines(counters: Sequence[Path]) -> dict[Path, dict[int, int]]:
    """How often each line with code ran, summed over template instances and sources."""
    counts: dict[Path, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for data in counters:
        command = ["gcov", "--json-format", "--stdout", str(data)]
        text = subprocess.run(command, cwd=data.parent, capture_output=True, text=True, check=True).stdout
        for report in text.splitlines():
            for file in json.loads(report)["files"]:
                path = Path(file["file"]).resolve()
                if not is_measured(path):
                    continue
                for line in file["lines"]:
                    counts[path][line["line_number"]] += line["count"]
    return counts


def measure() -> tuple[list[str], list[str]]:
    """A table of files, and the lines that never ran and have no reason."""
    objects = compile_objects("coverage", [path for sources in find_rooms().values() for path in sources])
    counters = [path.with_suffix(".gcda") for path in objects]
    for path in counters:
        path.unlink(missing_ok=True)
    run_tests()
    table, missed = [], []
    for path, lines in sorted(executed_lines(counters).items()):
        source = path.read_text().splitlines()
        idle = [number for number, count in sorted(lines.items()) if count == 0]
        unexplained = [number for number in idle if source[number - 1].strip() not in REASONS]
        name = path.relative_to(CSRC)
        table.append(f"{name}: {len(lines) - len(idle)} of {len(lines)} lines run, {len(idle)} with a reason")
        missed += [f"{name}:{number}: {source[number - 1].strip()}" for number in unexplained]
    return table, missed


def main() -> int:
    table, missed = measure()
    print("\n".join([*table, *(f"never run: {line}" for line in missed)]))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
