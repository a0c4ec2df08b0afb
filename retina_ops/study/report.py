"""One HTML file of an experiment, without references to other files: tables, plots as SVG, and what the paper says."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import needs_extra
from ..files import write_text
from .results import RunResult, StudyResults

with needs_extra("train"):
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
figure { margin: 1.5rem 0; } svg { max-width: 100%; height: auto; }
.paper { border-left: 4px solid #999; padding-left: 1rem; }
"""


def write_report(studies: Sequence[StudyResults], path: Path) -> Path:
    """Writes the report of experiments, one section each. Returns the path."""
    sections = "\n".join(_section(study) for study in studies)
    title = html.escape(", ".join(dict.fromkeys(study.experiment.name for study in studies)))
    write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Study: {title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body><h1>Study: {title}</h1>\n{sections}\n</body></html>\n",
    )
    return path


def _section(study: StudyResults) -> str:
    experiment = study.experiment
    missing = [f"{run.name} ({len(run.seeds)} of {run.planned})" for run in study.runs if len(run.seeds) < run.planned]
    plots = [_plot(study, _curves)]
    if experiment.x:
        plots.insert(0, _plot(study, _results))
    if experiment.plot is not None:
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        experiment.plot(figure, study.runs)
        plots.append(_svg(figure))
    parts = [
        f"<h2>({experiment.letter}) {html.escape(experiment.name)} on {html.escape(study.data.name)}</h2>",
        f"<p>{html.escape(experiment.question)}</p>",
        f'<p class="paper">{html.escape(experiment.paper)}</p>',
        f"<p>Budget {study.budget.name}: {study.budget.steps} updates per run. AP in percent, on the test set, of the "
        "weights with the best validation AP; mean and standard deviation over seeds.</p>",
        f"<p>Not finished: {html.escape(', '.join(missing))}.</p>" if missing else "",
        _table(study),
        *(f"<figure>{plot}</figure>" for plot in plots),
    ]
    return "<section>" + "\n".join(part for part in parts if part) + "</section>"


def _table(study: StudyResults) -> str:
    header, _, *rows = study.markdown().splitlines()

    def cells(line: str, tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(cell.strip())}</{tag}>" for cell in line.strip("|").split("|"))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{cells(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _plot(study: StudyResults, draw: Callable[[Axes, StudyResults], None]) -> str:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, study)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


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
