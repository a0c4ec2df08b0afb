"""From a run of pytest-benchmark to a record and a table: `python benchmarks/publish.py RUN.json`.

The run is appended to ``benchmarks/results/<device>.json``, one file for each device that was measured. ``<device>.md``
and the plots beside it are written anew from the last run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
import torchvision
from harness import synchronize
from plots import draw

RESULTS = Path(__file__).parent / "results"
BASELINE = "retina_ops"


def row_of(entry: dict[str, Any]) -> dict[str, Any]:
    """What is kept of one case: times in milliseconds, and what the case says of itself."""
    stats = entry["stats"]
    times = sorted(stats["data"]) if stats.get("data") else [stats["median"]]
    percent = {p: times[min(len(times) - 1, round(p / 100 * (len(times) - 1)))] for p in (10, 90)}
    return {
        "group": entry["group"],
        "row": (entry["params"] or {}).get("row", BASELINE),
        "median_ms": stats["median"] * 1e3,
        "p10_ms": percent[10] * 1e3,
        "p90_ms": percent[90] * 1e3,
        "rounds": stats["rounds"],
        **entry["extra_info"],
    }


def device_name(device: str) -> str:
    """Lower case with dashes: nvidia-h200, or cpu-<model>-<instruction set>-<threads>."""
    if device == "cuda":
        return _dashes(torch.cuda.get_device_name())
    return f"cpu-{_dashes(_processor())}-{_dashes(torch.backends.cpu.get_cpu_capability())}-{torch.get_num_threads()}"


def _processor() -> str:
    if hasattr(torch.cpu, "get_capabilities"):
        return str(torch.cpu.get_capabilities().get("cpu_name", platform.machine()))
    return platform.machine()


def _dashes(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def matmul_gigaflops(device: str) -> float:
    """The rate of a float32 matrix product: what this machine's arithmetic can reach."""
    size = 1536 if device == "cpu" else 8192
    a = torch.rand(size, size, device=device)
    times = []
    for _ in range(7):
        synchronize(device)
        start = time.perf_counter()
        a @ a
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times) / 1e9


def growth(rows: list[dict[str, Any]]) -> dict[str, str]:
    """For each operator of several sizes past 500, the least-squares slope on log axes."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["row"] == BASELINE and row.get("size", 0) > 500:
            points.setdefault(row["operator"], []).append((math.log(row["size"]), math.log(row["median_ms"])))
    slopes = {}
    for operator, its in points.items():
        if len({x for x, _ in its}) > 1:
            slope = statistics.linear_regression(*zip(*its, strict=True)).slope
            low, high = (round(math.exp(bound(x for x, _ in its))) for bound in (min, max))
            slopes[operator] = f"{slope:.2f} from {low:,} to {high:,}"
    return slopes


def phases(rows: list[dict[str, Any]]) -> list[str]:
    """Where the time of each row's step goes, in milliseconds and percent."""
    lines = []
    for row in rows:
        if "phases_ms" in row:
            whole = sum(row["phases_ms"].values())
            parts = (f"{phase} {ms:.4g} ms ({ms / whole:.1%})" for phase, ms in row["phases_ms"].items())
            lines.append(f"- {row['row']}: {'; '.join(parts)}")
    return ["", *lines] if lines else []


def table(run: dict[str, Any]) -> str:
    """A section a group: time, ratio to ours, throughput."""
    lines = [
        f"Measured on {run['device']}, {run['threads']} threads, torch {run['torch']}, torchvision "
        f"{run['torchvision']}, commit {run['commit']}, by `make bench`.",
        "",
        "`x ours` is the time over that of retina_ops in the same run; GB/s and the share of a copy count the bytes",
        "that any implementation must read and write. Peak: the most memory that one call held beyond what was held",
        "before it (on the CPU resident memory, in pages).",
    ]
    for name in ("speedup", "size", "roofline"):
        lines += ["", f"![{name}]({run['device']}-{name}.png)"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in run["rows"]:
        groups.setdefault(row["group"], []).append(row)
    for group, rows in groups.items():
        ours = next((row["median_ms"] for row in rows if row["row"] == BASELINE), None)
        lines += ["", f"**{group}**", ""]
        lines += ["| | median ms | p10 | p90 | x ours | GB/s | of a copy | peak MiB |", "|---|" + 7 * "---:|"]
        for row in rows:
            ratio = f"{row['median_ms'] / ours:.2f}" if ours else ""
            rate = f"{row['gigabytes_per_second']:.2f}" if "gigabytes_per_second" in row else ""
            share = f"{row['share_of_copy']:.1%}" if "share_of_copy" in row else ""
            peak = f"{row['peak_bytes'] / 2**20:.1f}" if "peak_bytes" in row else ""
            times = " | ".join(f"{row[key]:.3f}" for key in ("median_ms", "p10_ms", "p90_ms"))
            lines.append(f"| {row['row']} | {times} | {ratio} | {rate} | {share} | {peak} |")
            if "import_beyond_torch_milliseconds" in row:
                lines.append(f"\nOf this beyond torch's import: {row['import_beyond_torch_milliseconds']:.1f} ms.")
        lines += phases(rows)
    lines += ["", "**Growth of retina_ops with the size** (slope of log time over log size)", ""]
    lines += [f"- {operator}: {slope}" for operator, slope in growth(run["rows"]).items()]
    return "\n".join(lines) + "\n"


def record_of(source: dict[str, Any], device: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a run's cases on one device."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "commit": os.environ.get("RETINA_OPS_COMMIT") or commit or "unknown",
        "date": source["datetime"],
        "matmul_gigaflops": matmul_gigaflops(device),
        "rows": [row_of(case) for case in cases],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what pytest --benchmark-json wrote")
    source = json.loads(parser.parse_args().run.read_text())
    by_device: dict[str, list[dict[str, Any]]] = {}
    for case in source["benchmarks"]:
        by_device.setdefault((case["params"] or {}).get("device", "cpu"), []).append(case)
    RESULTS.mkdir(exist_ok=True)
    for device, cases in by_device.items():
        run = record_of(source, device, cases)
        record = RESULTS / f"{run['device']}.json"
        runs = json.loads(record.read_text()) if record.is_file() else []
        record.write_text(json.dumps([*runs, run], indent=1) + "\n")
        text = table(run)
        record.with_suffix(".md").write_text(text)
        drawn = draw(run, record.with_suffix(""))
        print(text, "written:", *[path.relative_to(RESULTS.parents[1]) for path in [record, *drawn]])


if __name__ == "__main__":
    main()
