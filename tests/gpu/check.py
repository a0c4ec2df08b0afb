"""The whole GPU check in stages, one JSON record: `make gpu-check`, or python tests/gpu/check.py --help.

Builds from the tree with this very Python and its torch; needs no network and no virtual environment.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXERCISE = [sys.executable, str(ROOT / "tests" / "gpu" / "exercise.py")]
DTYPES = ("float32", "float64", "float16", "bfloat16")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
LIMIT_S = 8 * 60  # a stage


class Unavailable(Exception):
    """A stage whose tool is missing or refuses: recorded as such, never as passed."""


def run(command: list[str], **environment: str) -> str:
    """The command's output; raises where it fails."""
    variables = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}",
        **environment,
    }
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command[:4])} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
        )
    return done.stdout


def build(options: argparse.Namespace) -> dict[str, Any]:
    run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], RETINA_OPS_CUDA="1")
    return {"libraries": sorted(path.name for path in (ROOT / "retina_ops").glob("*.so"))}


def tests(options: argparse.Namespace) -> dict[str, Any]:
    """The whole suite; tests that take a device run on CUDA too."""
    out = run([sys.executable, "-m", "pytest", "tests", "-q", "-p", "no:cacheprovider", *shlex.split(options.pytest)])
    counts = {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|skipped)", out.splitlines()[-1])}
    if not counts.get("passed"):
        raise RuntimeError(f"no test ran: {out[-500:]}")
    return counts


def sanitizer(tool: str) -> Any:
    """Every kernel under a tool of compute-sanitizer. One process per dtype: the tool serialises launches."""

    def stage(options: argparse.Namespace) -> dict[str, Any]:
        program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
        if program is None:
            raise Unavailable("compute-sanitizer is not installed")

        def of(dtype: str) -> str:
            try:
                out = run([program, "--tool", tool, "--error-exitcode", "9", *EXERCISE, "kernels", f"torch.{dtype}"],
                          PYTORCH_NO_CUDA_MEMORY_CACHING="1")  # fmt: skip
            except RuntimeError as error:
                if "not supported" in str(error) or "Unable to" in str(error):
                    raise Unavailable(str(error)[-500:]) from None
                raise
            summary = re.search(r"ERROR SUMMARY: .*|RACECHECK SUMMARY: .*", out)
            if summary is None:
                raise Unavailable(f"{tool} printed no summary: {out[-500:]}")
            return summary[0]

        with ThreadPoolExecutor() as pool:
            return {"summary": dict(zip(DTYPES, pool.map(of, DTYPES), strict=True))}

    return stage


def exercise(what: str) -> Any:
    def stage(options: argparse.Namespace) -> dict[str, Any]:
        times = {"determinism": [str(options.runs)], "equality": [str(options.cases)]}.get(what, [])
        figures: dict[str, Any] = json.loads(run([*EXERCISE, what, *times]).splitlines()[-1])
        return figures

    return stage


def benchmarks(options: argparse.Namespace) -> dict[str, Any]:
    out = ROOT / "build" / "gpu-bench.json"
    out.parent.mkdir(exist_ok=True)
    full = ["--full"] if options.full else []
    run([sys.executable, "-m", "pytest", "benchmarks", "--device", "cuda", "-q", "-p", "no:cacheprovider",
         "--benchmark-save-data",
         "--benchmark-json", str(out), *full])  # fmt: skip
    run([sys.executable, "benchmarks/publish.py", str(out)])
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from publish import row_of

    return {"rows": [row_of(entry) for entry in json.loads(out.read_text())["benchmarks"]]}


def training(options: argparse.Namespace) -> dict[str, Any]:
    """A few minutes on real photographs."""
    if options.data is None:
        raise Unavailable("no --data")
    folder = options.data.resolve() / "annotations"
    output = ROOT / "runs" / "gpu-check"
    shutil.rmtree(output, ignore_errors=True)
    sets = [f"--data.{split}={folder / split}.json" for split in ("train", "val", "test")]
    run([sys.executable, "-m", "retina_ops", "train", "--config", str(options.config), "--output", str(output),
         "--max-minutes", str(options.minutes), *sets])  # fmt: skip
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return {key: value for key, value in metrics.items() if key != "per_class"}


STAGES = {
    "build": build,
    "tests": tests,
    **{tool: sanitizer(tool) for tool in TOOLS},
    "determinism": exercise("determinism"),
    "equality": exercise("equality"),
    "graph": exercise("graph"),
    "benchmarks": benchmarks,
    "training": training,
}


def environment() -> dict[str, Any]:
    """Device, driver, versions and commit of the record."""
    import torch

    smi = shutil.which("nvidia-smi")
    query = [smi, "--query-gpu=driver_version", "--format=csv,noheader"] if smi else ["true"]
    driver = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    nvcc = shutil.which("nvcc")
    toolkit = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout if nvcc else ""
    release = re.search(r"release ([\d.]+)", toolkit)
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "driver": driver or None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "toolkit": release[1] if release else None,
        "python": platform.python_version(),
        "commit": os.environ.get("RETINA_OPS_COMMIT") or commit.stdout.strip() or "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def perform(name: str, options: argparse.Namespace, has_gpu: bool) -> dict[str, Any]:
    """The record of one stage."""
    start = time.monotonic()
    result: dict[str, Any] = {}
    try:
        if not has_gpu and name != "build":
            raise Unavailable("torch sees no CUDA device")
        result = {"status": "passed", **STAGES[name](options)}
    except Unavailable as reason:
        result = {"status": "unavailable", "message": str(reason)}
    except Exception as error:
        result = {"status": "failed", "message": f"{type(error).__name__}: {error}"[-4000:]}
    result["seconds"] = round(time.monotonic() - start, 1)
    message = f": {result['message']}" if "message" in result else ""
    print(f"{name}: {result['status']} in {result['seconds']} s{message}", flush=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated; default all: %(default)s")
    parser.add_argument("--data", type=Path, help="folder with annotations/{train,val,test}.json and images")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "bccd-gpu.toml", help="of the training")
    parser.add_argument("--minutes", type=float, default=5.0, help="of the training")
    parser.add_argument("--full", action="store_true", help="all sizes of the benchmarks")
    parser.add_argument("--pytest", default="", help="further arguments of the tests, in one string")
    parser.add_argument("--runs", type=int, default=100, help="of determinism")
    parser.add_argument("--cases", type=int, default=1000, help="of equality")
    parser.add_argument("--jobs", type=int, default=1, help="stages at a time; one for benchmarks")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the record")
    options = parser.parse_args()
    unknown = set(options.stages.split(",")) - set(STAGES)
    if unknown:
        parser.error(f"unknown stage {sorted(unknown)[0]!r}; known are {', '.join(STAGES)}")
    about = environment()
    name = re.sub(r"[^a-z0-9]+", "-", (about["device"] or "no-gpu").lower()).strip("-")
    path = options.output / f"{name}-gpu-check.json"
    record: dict[str, Any] = {"environment": about, "stages": {}}
    if path.is_file():  # what other runs of this commit have found stays
        before = json.loads(path.read_text())
        record["stages"] = before["stages"] if before["environment"]["commit"] == about["commit"] else {}
    asked = options.stages.split(",")
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(perform, stage, options, about["device"] is not None): stage for stage in asked}
        for done in as_completed(running):
            record["stages"][running[done]] = done.result()
            record["stages"] = {stage: record["stages"][stage] for stage in STAGES if stage in record["stages"]}
            options.output.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"record: {path}")
    states = [record["stages"][stage]["status"] for stage in asked]
    return 1 if "failed" in states else 2 if about["device"] is None else 0


if __name__ == "__main__":
    raise SystemExit(main())
