"""Plants bugs in copies of the kernels, and requires that the checks of their room report each of them.

python -m cuda_on_cpu.mutations [NAME...], from the folder tests. NAME: a bug or a room; default: all of them.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import torch

from .build import CSRC, build
from .device import Device, Report
from .room import Bug, Check
from .rooms import ROOMS

# Room and bug by name.
MUTATIONS: dict[str, tuple[str, Bug]] = {
    name: (room, bug) for room, module in ROOMS.items() for name, bug in module.PLANTED.items()
}


def outcome(check: Check, room: str, variant: str, csrc: Path = CSRC) -> str | None:
    """What the check reports of the kernels in `csrc`; None where it finds nothing."""
    program = build(variant, csrc, [room])
    torch.manual_seed(0)
    try:
        for order, seed in (("forward", 1), ("random", 1)):
            check(Device(program, order, seed))
    except Report as report:
        return next((line for line in str(report).splitlines() if line.strip("= ")), "no output")
    except AssertionError:
        return "a wrong result"
    return None


def planted(room: str, bug: Bug, variant: str) -> str | None:
    """What the check reports of a copy of csrc with the bug."""
    with tempfile.TemporaryDirectory() as folder:
        csrc = Path(folder) / "csrc"
        shutil.copytree(CSRC, csrc)
        file = csrc / bug.file
        text = file.read_text()
        assert bug.old in text, f"{bug.file} does not contain: {bug.old}"
        file.write_text(text.replace(bug.old, bug.new, 1))
        return outcome(bug.check, room, variant, csrc)


def main(chosen: list[str]) -> int:
    names = [name for name, (room, _) in MUTATIONS.items() if not chosen or name in chosen or room in chosen]
    if unknown := set(chosen) - set(MUTATIONS) - set(ROOMS):
        raise SystemExit(f"neither a bug nor a room: {', '.join(sorted(unknown))}")
    bugs = [MUTATIONS[name] for name in names]
    for check, room, variant in dict.fromkeys((bug.check, room, v) for room, bug in bugs for v in bug.variants):
        report = outcome(check, room, variant)
        assert report is None, f"{check.__name__} of {room}, {variant}, without any bug: {report}"
    missed = []
    for name, (room, bug) in zip(names, bugs, strict=True):
        for variant in bug.variants:
            report = planted(room, bug, variant)
            print(f"{'MISSED' if report is None else 'found'}: {name}, {variant}: {str(report)[:200]}", flush=True)
            missed += [f"{name}, {variant}"] if report is None else []
    print(f"{len(missed)} missed" + "".join(f"\n  {name}" for name in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
