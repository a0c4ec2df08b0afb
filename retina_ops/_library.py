"""Loads the compiled operators, and says why where it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from retina_ops._version import __version__

_PACKAGE = Path(__file__).parent

_cuda_problem: str | None = None  # why the CUDA operators are not loaded


def operators() -> list[str]:
    """The names of the operators that the compiled libraries have registered in the namespace ``retina_ops``."""
    names = [name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()]
    return sorted({name.removeprefix("retina_ops::") for name in names if name.startswith("retina_ops::")})


def _built() -> dict[str, Any]:
    """What setup.py stored about the build."""
    path = _PACKAGE / "_build_info.json"
    if not path.is_file():
        return {}
    info: dict[str, Any] = json.loads(path.read_text())
    return info


def build_info() -> dict[str, Any]:
    """What was built, with which tools, and whether the CUDA operators are loaded.

    Returns:
        A dict. About the build: ``version``, ``torch``, ``python``, ``compiler``, ``cpu`` (always True), ``cuda``
        (whether the CUDA operators were built), ``cuda_reason`` (why they were not, or None), ``cuda_toolkit`` and
        ``cuda_architectures``. About this process: ``torch_running``, ``cuda_loaded`` and ``cuda_problem`` (why they
        are not loaded, or None).
    """
    return {
        "version": __version__,
        **_built(),
        "torch_running": torch.__version__,
        "cuda_loaded": _cuda_problem is None,
        "cuda_problem": _cuda_problem,
    }


def _load_cuda() -> str | None:
    """Loads the CUDA operators. Returns the reason where that fails, else None."""
    built = _built()
    library = _PACKAGE / "_cuda.abi3.so"
    if not library.is_file():
        return f"this retina_ops was built without CUDA: {built.get('cuda_reason') or 'unknown reason'}"
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) has no CUDA"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return (
            f"the CUDA operators, built with toolkit {built.get('cuda_toolkit')}, do not load under torch "
            f"{torch.__version__} (CUDA {torch.version.cuda}): {error}"
        )
    return None


def _refuse_cuda(problem: str) -> torch.library.Library:
    """Registers, for every operator and CUDA tensors, a function that raises an error with the reason."""
    library = torch.library.Library("retina_ops", "IMPL", "CUDA")

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"retina_ops: no CUDA operators: {problem}. See `retina-ops env`.")

    for name in operators():
        library.impl(name, refuse)
    return library


def _load() -> torch.library.Library | None:
    """Loads the operators. Returns the registrations of :func:`_refuse_cuda` where CUDA is missing."""
    global _cuda_problem
    library = _PACKAGE / "_cpu.abi3.so"
    if not library.is_file():
        raise ImportError(
            f"retina_ops is not built: {library} is missing. Run `pip install .`, or, in a checkout, `make build`."
        )
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise ImportError(
            f"retina_ops, built with torch {_built().get('torch')}, does not load under torch {torch.__version__}: "
            f"{error}"
        ) from error
    _cuda_problem = _load_cuda()
    return None if _cuda_problem is None else _refuse_cuda(_cuda_problem)


_cuda_refusals = _load()  # kept: its registrations end with the object
