"""Experiments of the paper as training runs: `retina-ops study`.

`experiment.py` says what an experiment is, ``experiments/`` has one file per experiment, `runner.py` trains what is
missing, `results.py` reads what the runs wrote, `report.py` shows it.
"""

from .experiment import BUDGETS, Budget, Experiment, Run, StudyData
from .experiments import EXPERIMENTS
from .results import StudyResults
from .runner import run_study

__all__ = ["BUDGETS", "EXPERIMENTS", "Budget", "Experiment", "Run", "StudyData", "StudyResults", "run_study"]
