"""From a run of pytest-benchmark to a record and a table: `python benchmarks/publish.py RUN.json`.

The run is appended to ``benchmarks/results/<device>.json``, one file a device, and ``benchmarks/results/<device>.md``
is written anew from the last one.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch
import torchvision

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


def device_name() -> str:
    """Lower case with dashes: nvidia-h200, or cpu-<model>-<threads>."""
    if torch.cuda.is_available():
        return _dashes(torch.cuda.get_device_name())
    return f"cpu-{_dashes(_processor())}-{torch.get_num_threads()}"


def _processor() -> str:
    if hasattr(torch.cpu, "get_capabilities"):
        return str(torch.cpu.get_capabilities().get("cpu_name", platform.machine()))
    return platform.machine()


def _dashes(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def table(run: dict[str, Any]) -> str:
    """A section a group: time, ratio to ours, throughput."""
    lines = [
        f"Measured on {run['device']}, {run['threads']} threads, torch {run['torch']}, torchvision "
        f"{run['torchvision']}, commit {run['commit']}, by `make bench`.",
        "",
        "`x ours` is the time over that of retina_ops in the same run; GB/s and the share of a copy count the bytes",
        "that any implementation must read and write.",
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in run["rows"]:
        groups.setdefault(row["group"], []).append(row)
    for group, rows in groups.items():
        ours = next((row["median_ms"] for row in rows if row["row"] == BASELINE), None)
        lines += ["", f"**{group}**", ""]
        lines += ["| | median ms | p10 | p90 | x ours | GB/s | of a copy |", "|---|---:|---:|---:|---:|---:|---:|"]
        for row in rows:
            ratio = f"{row['median_ms'] / ours:.2f}" if ours else ""
            rate = f"{row['gigabytes_per_second']:.2f}" if "gigabytes_per_second" in row else ""
            share = f"{row['share_of_copy']:.1%}" if "share_of_copy" in row else ""
            times = " | ".join(f"{row[key]:.3f}" for key in ("median_ms", "p10_ms", "p90_ms"))
            lines.append(f"| {row['row']} | {times} | {ratio} | {rate} | {share} |")
            if "import_beyond_torch_milliseconds" in row:
                lines.append(f"\nOf this beyond torch's import: {row['import_beyond_torch_milliseconds']:.1f} ms.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what pytest --benchmark-json wrote")
    source = json.loads(parser.parse_args().run.read_text())
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    run = {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "date": source["datetime"],
        "rows": [row_of(entry) for entry in source["benchmarks"]],
    }
    RESULTS.mkdir(exist_ok=True)
    record = RESULTS / f"{run['device']}.json"
    runs = json.loads(record.read_text()) if record.is_file() else []
    record.write_text(json.dumps([*runs, run], indent=1) + "\n")
    text = table(run)
    record.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
