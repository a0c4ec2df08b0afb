"""One-line errors, for files, for missing packages, and from other processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from retina_ops.data import DataError
from retina_ops.errors import needs_extra


def test_data_error_is_one_line_also_after_pickling() -> None:
    error = DataError(Path("a.json"), "line one\n  line two")
    assert str(error) == "a.json: line one line two" and isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.source, again.reason) == (str(error), error.source, error.reason)


@pytest.mark.parametrize("cause", [ImportError("No module named 'x'"), RuntimeError("operator\nnms does not exist")])
def test_missing_package_names_the_extra(cause: Exception) -> None:
    ending = r"this part needs: pip install 'retina_ops\[demo\]'$"
    with pytest.raises(ImportError, match=ending) as caught, needs_extra("demo"):
        raise cause
    assert "\n" not in str(caught.value) and str(caught.value).startswith(" ".join(str(cause).split()))


# One process for all three, because it takes seconds to import torch.
WITHOUT_PACKAGES = """
import importlib, sys
for module, missing in (("retina_ops.evaluation", "faster_coco_eval"), ("retina_ops.data.digits", "sklearn"),
                        ("retina_ops.images", "PIL")):
    for loaded in [name for name in sys.modules if name.startswith("retina_ops.")]:
        del sys.modules[loaded]
    removed = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == missing}
    sys.modules[missing] = None
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(error)
    del sys.modules[missing]
    sys.modules.update(removed)
"""


def test_modules_name_their_extra() -> None:
    root = Path(__file__).resolve().parents[2]
    code = [sys.executable, "-c", WITHOUT_PACKAGES]
    done = subprocess.run(code, cwd=root, capture_output=True, text=True, timeout=600)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 3, done.stderr
    for line, missing, extra in zip(
        lines, ("faster_coco_eval", "sklearn", "PIL"), ("train", "demo", "train"), strict=True
    ):
        assert missing in line and line.endswith(f"pip install 'retina_ops[{extra}]'")
