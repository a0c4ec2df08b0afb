"""The pictures of a run: speed-up bars, time against size, roofline. `publish.py` draws them beside its table."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]
OURS = "retina_ops"
COLORS = {
    OURS: "tab:blue",
    "torchvision": "tab:red",
    "torchvision_compiled": "tab:orange",
    "reference": "tab:gray",
    "reference_compiled": "tab:olive",
}


def draw(run: dict[str, Any], target: Path) -> list[Path]:
    """Writes ``<target>-speedup.png``, ``-size.png``, ``-roofline.png``, and ``-step.png`` where steps were timed."""
    rows = [row for row in run["rows"] if "operator" in row]
    drawn = []
    groups = len({row["group"] for row in rows if row["row"] != OURS})
    plots = (
        ("speedup", speedup, max(5.5, 0.28 * groups)),
        ("size", time_against_size, 5.5),
        ("roofline", roofline, 5.5),
    )
    for name, plot, height in plots:
        figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
        plot(axes, rows, run)
        path = target.with_name(f"{target.name}-{name}.png")
        figure.savefig(path, dpi=110)
        plt.close(figure)
        drawn.append(path)
    steps = [row for row in run["rows"] if "phases_ms" in row]
    if steps:
        figure, axes = plt.subplots(figsize=(9, 1.2 + 0.8 * len(steps)), layout="constrained")
        step_phases(axes, steps, run)
        path = target.with_name(f"{target.name}-step.png")
        figure.savefig(path, dpi=110)
        plt.close(figure)
        drawn.append(path)
    return drawn


def speedup(axes: plt.Axes, rows: list[Row], run: dict[str, Any]) -> None:
    """How many times longer the others take, a group of bars a case."""
    ours = {row["group"]: row["median_ms"] for row in rows if row["row"] == OURS}
    others = [row for row in rows if row["row"] in COLORS and row["row"] != OURS and row["group"] in ours]
    groups = [group for group in ours if any(row["group"] == group for row in others)]
    kinds = [kind for kind in COLORS if any(row["row"] == kind for row in others)]
    height = 0.8 / max(1, len(kinds))
    for k, kind in enumerate(kinds):
        mine = [(groups.index(row["group"]), row["median_ms"] / ours[row["group"]]) for row in others
                if row["row"] == kind]  # fmt: skip
        places, ratios = [place + k * height for place, _ in mine], [ratio for _, ratio in mine]
        bars = axes.barh(places, ratios, height, label=kind.replace("_", " "), color=COLORS[kind])
        axes.bar_label(bars, fmt="%.3g", fontsize=6, padding=2)
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(groups))], groups, fontsize=6)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(f"time over that of retina_ops, {run['device']}")
    axes.legend(fontsize=7)


def time_against_size(axes: plt.Axes, rows: list[Row], run: dict[str, Any]) -> None:
    """Operators of more than one size: a solid line for ours, a dashed line for torchvision, one case per size."""
    lines: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["row"] in (OURS, "torchvision"):
            lines[row["operator"], row["row"]][row["size"]].append(row["median_ms"])
    operators = sorted(
        operator
        for (operator, kind), sizes in lines.items()
        if kind == OURS and len(sizes) > 1 and all(len(times) == 1 for times in sizes.values())
    )
    colors = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for i, operator in enumerate(operators):
        for kind, style in ((OURS, "o-"), ("torchvision", "s--")):
            points = sorted((size, times[0]) for size, times in lines.get((operator, kind), {}).items())
            label = operator if kind == OURS else None
            axes.plot(*zip(*points, strict=True), style, color=colors[i % len(colors)], label=label, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="elements or boxes", ylabel=f"median ms, {run['device']}")
    axes.set_title("solid: retina_ops, dashed: torchvision", fontsize=9)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def roofline(axes: plt.Axes, rows: list[Row], run: dict[str, Any]) -> None:
    """Operations a second against operations a byte, under the bandwidth of a copy and the rate of a matrix product."""
    mine = [row for row in rows if row["row"] == OURS and row.get("operations")]
    peak = run["matmul_gigaflops"]
    bandwidth = max((row["copy_gigabytes_per_second"] for row in mine), default=1.0)
    intensities = [2.0**i for i in range(-2, 11)]
    axes.plot(intensities, [min(peak, bandwidth * x) for x in intensities], color="black",
              label=f"copy {bandwidth:.0f} GB/s, float32 matrix product {peak:.0f} Gop/s")  # fmt: skip
    for i, operator in enumerate(sorted({row["operator"] for row in mine})):
        points = [row for row in mine if row["operator"] == operator]
        axes.plot(
            [row["operations"] / row["moved_bytes"] for row in points],
            [row["operations"] / row["median_ms"] / 1e6 for row in points],
            "o",
            color=f"C{i}",
            label=operator,
        )
    axes.set(xscale="log", yscale="log", xlabel="operations a byte that must move", ylabel="Gop/s")
    axes.legend(fontsize=7)


def step_phases(axes: plt.Axes, rows: list[Row], run: dict[str, Any]) -> None:
    """Where the time of a training step goes: a stacked bar for each row, torchvision's before ours."""
    rows = sorted(rows, key=lambda row: (row["group"], row["row"] == OURS))
    phases = list(rows[0]["phases_ms"])
    left = [0.0] * len(rows)
    for k, phase in enumerate(phases):
        widths = [row["phases_ms"][phase] for row in rows]
        axes.barh(range(len(rows)), widths, left=left, label=phase, color=f"C{k}")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, (row, end) in enumerate(zip(rows, left, strict=True)):
        parts = " + ".join(f"{row['phases_ms'][phase]:.4g}" for phase in phases)
        axes.text(end, place, f" {parts} ms", va="center", fontsize=7)
    axes.set_xlim(0, 1.45 * max(left))
    cases = [row["group"].removeprefix("training step, ").replace(", bfloat16", "\nbfloat16") for row in rows]
    axes.set_yticks(
        range(len(rows)), [f"{row['row']}\n{case}" for row, case in zip(rows, cases, strict=True)], fontsize=6
    )
    axes.invert_yaxis()
    axes.set_xlabel(f"ms, {run['device']}")
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(phases))
