"""One HTML file of an experiment, without references to other files: tables, plots, and what the paper says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import needs_extra
from ..evaluation.page import Page
from .results import RunResult, StudyResults

with needs_extra("train"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_report(studies: Sequence[StudyResults], path: Path) -> Path:
    """Writes the report of experiments, one section each. Returns the path."""
    page = Page("Study: " + ", ".join(dict.fromkeys(study.experiment.name for study in studies)))
    for study in studies:
        _add_section(page, study)
    return page.write(path)


def _add_section(page: Page, study: StudyResults) -> None:
    experiment = study.experiment
    page.heading(f"({experiment.letter}) {experiment.name} on {study.data.name}")
    page.paragraph(experiment.question)
    page.quote(experiment.paper)
    page.paragraph(
        f"Budget {study.budget.name}: {study.budget.steps} updates per run. AP in percent, on the test set, of the "
        "weights with the best validation AP; mean and standard deviation over seeds."
    )
    missing = [f"{run.name} ({len(run.seeds)} of {run.planned})" for run in study.runs if len(run.seeds) < run.planned]
    if missing:
        page.paragraph(f"Not finished: {', '.join(missing)}.")
    header, _, *rows = (line.strip("|").split("|") for line in study.markdown().splitlines())
    page.table([cell.strip() for cell in header], [[cell.strip() for cell in row] for row in rows])
    if experiment.x:
        page.plot(_plot(study, _results), "AP on the test set; bars are one standard deviation over seeds.")
    page.plot(_plot(study, _curves), "Validation AP through training, of the first seed of each run.")
    if experiment.plot is not None:
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        experiment.plot(figure, study.runs)
        page.plot(figure, f"What was measured on the runs of {experiment.name}.")


def _plot(study: StudyResults, draw: Callable[[Axes, StudyResults], None]) -> Figure:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, study)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure


def _results(axes: Axes, study: StudyResults) -> None:
    """AP against the experiment's label, one line for each value of its other label."""
    experiment = study.experiment
    lines: dict[str, list[RunResult]] = {}
    for run in study.runs:
        lines.setdefault(str(run.labels.get(experiment.line, "")), []).append(run)
    places = list(dict.fromkeys(run.labels[experiment.x] for run in study.runs))
    if all(isinstance(place, (int, float)) for place in places):
        places.sort()
    position = {value: index for index, value in enumerate(places)}
    for name, runs in lines.items():
        runs.sort(key=lambda run: position[run.labels[experiment.x]])
        axes.errorbar(
            [position[run.labels[experiment.x]] for run in runs],
            [100 * run.mean("AP") for run in runs],
            [100 * (run.spread("AP") or 0.0) for run in runs],
            marker="o",
            capsize=3,
            label=f"{experiment.line} {name}" if experiment.line else None,
            linestyle="-" if len(runs) > 1 else "none",
        )
    axes.set_xticks(range(len(places)), [f"{place:g}" if isinstance(place, float) else str(place) for place in places])
    axes.set(xlabel=experiment.x, ylabel="AP, percent", title="Accuracy on the test set")
    axes.set_ylim(bottom=0)
    if experiment.line:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _curves(axes: Axes, study: StudyResults) -> None:
    """Validation AP through training, of the first seed of each run."""
    for run in study.runs:
        steps, values = zip(*run.seeds[0].curve, strict=True) if run.seeds[0].curve else ((), ())
        label = ", ".join(f"{key} {value}" for key, value in run.labels.items())
        axes.plot(steps, [100 * value for value in values], marker=".", linewidth=1, label=label)
    axes.set(xlabel="update", ylabel="AP, percent", title="Validation through training (first seed)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
