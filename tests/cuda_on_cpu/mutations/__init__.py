"""Plants bugs in copies of the real kernels and requires that the kernel tests report each: `make check-all`.

python -m cuda_on_cpu.mutations [NAME...], from the folder tests. One module a room of csrc.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from ..build import CSRC, build
from ..device import Device, Report
from . import anchor_matching, boxes, focal_loss, iou_losses, nms, postprocess, retinanet_loss, soft_nms
from .plan import Mutation

MUTATIONS: dict[str, Mutation] = {
    **focal_loss.MUTATIONS,
    **boxes.MUTATIONS,
    **iou_losses.MUTATIONS,
    **anchor_matching.MUTATIONS,
    **nms.MUTATIONS,
    **soft_nms.MUTATIONS,
    **retinanet_loss.MUTATIONS,
    **postprocess.MUTATIONS,
}


def outcome(check: Callable[[Device], None], part: str, variant: str, csrc: Path = CSRC) -> str | None:
    """What the check reports of the kernels in `csrc`; None where it finds nothing."""
    program = build(variant, csrc, [part])
    torch.manual_seed(0)
    try:
        for order, seed in (("forward", 1), ("random", 1)):
            check(Device(program, order, seed))
    except Report as report:
        return next((line for line in str(report).splitlines() if line.strip("= ")), "no output")
    except AssertionError:
        return "a wrong result"
    return None


def planted(mutation: Mutation, variant: str) -> str | None:
    """What the check reports of a copy of the kernels with the bug."""
    with tempfile.TemporaryDirectory() as folder:
        csrc = Path(folder) / "csrc"
        shutil.copytree(CSRC, csrc)
        file = csrc / mutation.file
        text = file.read_text()
        assert text.count(mutation.old) >= 1, f"{mutation.file} no longer has: {mutation.old}"
        file.write_text(text.replace(mutation.old, mutation.new, 1))
        return outcome(mutation.check, mutation.part, variant, csrc)


def main(names: list[str]) -> int:
    chosen = [MUTATIONS[name] for name in names or MUTATIONS]
    for check, part, variant in dict.fromkeys((m.check, m.part, v) for m in chosen for v in m.variants):
        report = outcome(check, part, variant)
        assert report is None, f"{check.__name__}, {variant}, without any bug: {report}"
    missed = []
    for name in names or MUTATIONS:
        for variant in MUTATIONS[name].variants:
            report = planted(MUTATIONS[name], variant)
            print(f"{'MISSED' if report is None else 'found'}: {name}, {variant}: {str(report)[:200]}", flush=True)
            missed += [f"{name}, {variant}"] if report is None else []
    print(f"{len(missed)} missed" + "".join(f"\n  {name}" for name in missed))
    return 1 if missed else 0
