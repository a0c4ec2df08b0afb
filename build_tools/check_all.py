"""Runs the checks that take too long for CI, and keeps a record of each: `make check-all`.

python build_tools/check_all.py [--stages cuda mutations schedules portability]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks/results/check-all.json"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
STAGES = {
    # Every architecture that nvcc knows: warnings, spilled registers, budgets, width of accesses.
    "cuda": [sys.executable, "build_tools/check_cuda.py", "--all"],
    # Bugs planted in copies of every kernel: each must be reported.
    "mutations": [sys.executable, "-m", "cuda_on_cpu.mutations"],
    # Every kernel in 200 random orders of threads and blocks.
    "schedules": [*PYTEST, "tests/cuda_on_cpu", "-k", "random_schedules", "--schedules", "200"],
    # The headers of every supported torch, and the wheel under a torch without CUDA.
    "portability": [sys.executable, "build_tools/check_portability.py", "--all"],
}


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    names = parser.parse_args().stages
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    results, failed = {}, []
    for name in names:
        print(f"== {name}", flush=True)
        start = time.monotonic()
        code = subprocess.run(STAGES[name], cwd=ROOT, env=environment).returncode
        results[name] = {
            "commit": git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain") else ""),
            "date": datetime.date.today().isoformat(),
            "passed": code == 0,
            "seconds": round(time.monotonic() - start),
            "command": " ".join([Path(STAGES[name][0]).name, *STAGES[name][1:]]),
        }
        failed += [name] if code else []
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(RECORD.read_text())["stages"] if RECORD.is_file() else {}  # keeps those not run now
    RECORD.write_text(json.dumps({"machine": platform.machine(), "stages": before | results}, indent=2) + "\n")
    print(f"written: {RECORD.relative_to(ROOT)}; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
