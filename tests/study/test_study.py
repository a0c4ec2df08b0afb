"""Studies: which runs there are, that they go on where they stopped, and what is written."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from training.runs import small_config, write_digits

from retina_ops.cli import main
from retina_ops.study import BUDGETS, EXPERIMENTS, Budget, Experiment, Run, StudyData, StudyResults, run_study
from retina_ops.study import runner as study_runner
from retina_ops.study.experiment import DIGITS
from retina_ops.study.report import write_report
from retina_ops.study.runner import pending, planned_runs
from retina_ops.training import TrainConfig

TINY = Budget("tiny", steps=2, seeds=2)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    folder = write_digits(tmp_path_factory.mktemp("digits"), 4)
    annotations = folder / "annotations"
    split = {name: str(annotations / f"{name}.json") for name in ("train", "val")}
    return StudyData("digits", split["train"], split["val"], split["val"])


def two_stages(data: StudyData, budget: Budget, finished: Any) -> list[Run]:
    """Two alphas with one seed, then the better one with all seeds."""
    runs = []
    for alpha in (0.25, 0.75):
        config = small_config(Path(), epochs=100, max_steps=budget.steps)
        config.data.train, config.data.val, config.data.test = data.train, data.val, data.test
        config.model.loss = replace(config.model.loss, alpha=alpha)
        runs.append(Run(f"alpha-{alpha:g}", {"alpha": alpha}, config))
    if len(finished) == 2:
        best = max(runs, key=lambda run: finished[run.name])
        runs.append(replace(best, seeds=budget.seeds))
    return runs


EXPERIMENT = Experiment("z", "two-stages", "Is it so?", "The paper says <so>.", two_stages, x="alpha")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits: StudyData) -> Path:
    said: list[str] = []
    folder = run_study(EXPERIMENT, digits, TINY, tmp_path_factory.mktemp("study"), say=said.append)
    assert len(said) == 3
    return folder


def test_later_runs_depend_on_earlier_ones(finished: Path, digits: StudyData) -> None:
    runs = planned_runs(EXPERIMENT, digits, TINY, finished)
    assert sorted(run.seeds for run in runs) == [1, 2]
    assert list(pending(EXPERIMENT, digits, TINY, finished)) == []
    assert len(list(finished.glob("*/seed-*/cost.json"))) == 3


def test_a_finished_study_trains_nothing(finished: Path, digits: StudyData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_runner, "train", lambda *_, **__: pytest.fail("trains again"))
    assert run_study(EXPERIMENT, digits, TINY, finished.parent, say=lambda _: None) == finished


def test_an_interrupted_run_goes_on(tmp_path: Path, digits: StudyData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call resumes the run that the first one left, and does not train the finished one again."""
    calls: list[tuple[str, bool]] = []
    real = study_runner.train

    def train(config: TrainConfig, output: Path, *, resume: bool) -> dict[str, Any]:
        calls.append((output.parent.name, resume))
        result = real(config, output, resume=resume)
        if len(calls) == 2:
            (output / "metrics.json").unlink()
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(study_runner, "train", train)
    budget = replace(TINY, seeds=1)
    with pytest.raises(KeyboardInterrupt):
        run_study(EXPERIMENT, digits, budget, tmp_path, say=lambda _: None)
    run_study(EXPERIMENT, digits, budget, tmp_path, say=lambda _: None)
    assert calls == [("alpha-0.25", False), ("alpha-0.75", False), ("alpha-0.75", True)]


def test_results(finished: Path, digits: StudyData) -> None:
    """Means and spreads are those of the files; a curve of one validation is not called flat."""
    study = StudyResults.read(EXPERIMENT, digits, TINY, finished)
    plain = json.loads(json.dumps(study.to_dict()))
    assert plain["budget"] == {"name": "tiny", "steps": 2, "seeds": 2} and plain["letter"] == "z"
    for run, row in zip(plain["runs"], plain["table"], strict=True):
        files = [
            json.loads((finished / run["name"] / f"seed-{seed['seed']}" / "metrics.json").read_text())
            for seed in run["seeds"]
        ]
        assert all(file["steps"] == 2 for file in files)
        assert row["AP"] == pytest.approx(sum(file["AP"] for file in files) / len(files))
        assert row["seeds"] == len(files) and row["flat"] is None
        assert (row["AP spread"] is None) == (len(files) == 1)
        assert [seed["seed"] for seed in run["seeds"]] == list(range(len(files)))
        assert all(seed["torch"] and seed["threads"] >= 1 for seed in run["seeds"])
    lines = study.markdown().splitlines()
    assert lines[0] == "| alpha | AP | AP50 | AP75 | seeds | validation AP flat |" and len(lines) == 4
    assert sum("±" in line for line in lines) == 1


class References(HTMLParser):
    """Collects what a page would load, and its unbalanced tags."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "svg"
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.found.append(f"{tag} {name}={value}")


def test_report_refers_to_no_other_file(finished: Path, digits: StudyData, tmp_path: Path) -> None:
    study = StudyResults.read(EXPERIMENT, digits, TINY, finished)
    text = write_report([study], tmp_path / "report.html").read_text()
    page = References()
    page.feed(text)
    assert page.found == [] and page.pictures == 2
    assert "The paper says &lt;so&gt;." in text and "url(http" not in text
    for run in study.runs:
        assert f"{100 * run.mean('AP'):.1f}" in text


# --- the experiments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_runs_are_training_runs(name: str) -> None:
    """Settings that `retina-ops train` takes, different from each other, of the budget's number of updates."""
    experiment = EXPERIMENTS[name]
    runs = experiment.runs(DIGITS, BUDGETS["full"], {})
    assert experiment.question.endswith("?") and experiment.paper
    assert len({run.name for run in runs}) == len(runs)
    assert all(re.fullmatch(r"[a-z0-9.-]+", run.name) for run in runs)
    settings = []
    for run in runs:
        run.config.check()
        assert experiment.x in ("", *run.labels) and experiment.line in ("", *run.labels)
        assert run.config.max_steps and run.config.max_minutes == 0 and run.config.precision == "fp32"
        settings.append((repr(run.config), run.starts_from, run.detector))
    assert len(set(settings)) == len(settings)


def test_gamma_takes_the_best_alpha_of_each() -> None:
    experiment, budget = EXPERIMENTS["gamma"], BUDGETS["full"]
    first = experiment.runs(DIGITS, budget, {})
    assert len(first) == 21 and {run.seeds for run in first} == {1}
    scores = {run.name: float(run.labels["alpha"] == 0.5) for run in first}
    later = [run for run in experiment.runs(DIGITS, budget, scores) if run.seeds == 3]
    assert [run.labels["alpha"] for run in later] == [0.5] * 7


# --- the command ------------------------------------------------------------------------------------------------------


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in lines] == [f"({experiment.letter})" for experiment in EXPERIMENTS.values()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "unknown experiment 'nonsense'; known are alpha, "),
        ([], "no experiment is named; known are alpha, "),
        (["gamma", "--bccd", "nowhere"], "--bccd nowhere: no annotations/train.json in this folder"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", *arguments, "--output", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_command_writes_results(
    finished: Path, digits: StudyData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retina_ops.commands import study as command

    monkeypatch.setitem(command.EXPERIMENTS, EXPERIMENT.name, EXPERIMENT)
    monkeypatch.setitem(command.BUDGETS, "small", TINY)
    monkeypatch.setattr(command, "DIGITS", digits)
    folder = finished.parent
    assert main(["study", EXPERIMENT.name, "--output", str(folder), "--report-only"]) == 0
    assert "| alpha | AP |" in capsys.readouterr().out
    assert {"report.html", "study.json", "table.md"} <= {path.name for path in finished.iterdir()}


def test_a_start_whose_weights_are_gone_is_trained_again(tmp_path: Path, digits: StudyData) -> None:
    """As after a clone, which has the results of finished runs and no weights."""

    def runs(data: StudyData, budget: Budget, finished: Any) -> list[Run]:
        first = two_stages(data, replace(budget, seeds=1), {})[0]
        return [first, replace(first, name="then", starts_from=first.name, labels={"alpha": 1.0})]

    experiment = replace(EXPERIMENT, runs=runs)
    folder = run_study(experiment, digits, TINY, tmp_path, say=lambda _: None)
    shutil.rmtree(folder / "then")
    shutil.rmtree(folder / "alpha-0.25" / "seed-0" / "best")
    said: list[str] = []
    run_study(experiment, digits, TINY, tmp_path, say=said.append)
    assert [line.split(": ")[1] for line in said] == ["alpha-0.25, seed 0", "then, seed 0"]
    config = (folder / "then" / "seed-0" / "config.toml").read_text()
    assert 'weights = "' + str(folder / "alpha-0.25" / "seed-0" / "best") in config
    assert not list(folder.rglob("*.pt"))
