"""Every CPU operator against its plain PyTorch reference, with nothing but torch and retina_ops installed.

python build_tools/check_operators.py [--save FILE]: outputs and gradients by operator, for torch.load.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from samples import OPERATORS
from samples.calls import checked_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="file for the results")
    save = parser.parse_args().save
    assert "torchvision" not in sys.modules
    results = {row.name: checked_results(row) for row in OPERATORS}
    assert "torchvision" not in sys.modules
    if save is not None:
        torch.save(results, save)
    print(f"{len(OPERATORS)} operators agree with their references")


if __name__ == "__main__":
    main()
