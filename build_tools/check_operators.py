"""Every CPU operator against its plain PyTorch reference, with nothing but torch and retina_ops installed.

python build_tools/check_operators.py [--save FILE]. With --save nothing is compared: outputs and gradients of every
sample are written, by operator and dtype, for torch.load.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from samples import OPERATORS
from samples.calls import assert_matches, expected_of, fixed_samples, named, results_of
from torch import Tensor

Saved = dict[str, dict[torch.dtype, list[tuple[list[Tensor], list[Tensor]]]]]


def results_of_all() -> Saved:
    """Outputs and gradients of each sample."""
    saved: Saved = {}
    for row in OPERATORS:
        saved[row.name] = {}
        for dtype in row.dtypes:
            results = [results_of(row, row.function, sample) for sample in fixed_samples(row, dtype)]
            saved[row.name][dtype] = [(result.outputs, result.gradients) for result in results]
    return saved


def compare_all() -> None:
    """Raises AssertionError where an operator and its reference differ by more than the row's tolerance."""
    for row in OPERATORS:
        for dtype in row.dtypes:
            for sample in fixed_samples(row, dtype):
                with named(row, sample, dtype):
                    got = results_of(row, row.function, sample)
                    assert_matches(row, sample, dtype, got, expected_of(row, sample))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="file for the results")
    save = parser.parse_args().save
    assert "torchvision" not in sys.modules
    if save is None:
        compare_all()
        print(f"{len(OPERATORS)} operators agree with their references")
    else:
        torch.save(results_of_all(), save)
    assert "torchvision" not in sys.modules


if __name__ == "__main__":
    main()
