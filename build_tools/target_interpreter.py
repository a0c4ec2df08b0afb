"""Finds the interpreter that will run the package, and its torch, from within an isolated build.

pip runs the build with that interpreter and hides its packages. uv and `python -m build` run it with an interpreter of
their own. uv tells the build nothing about the environment that it installs into, so it is looked up as uv does: its
option --python, VIRTUAL_ENV, CONDA_PREFIX and .venv of the uv process. RETINA_OPS_PYTHON names it in any other case.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST_TORCH = (2, 10)
_QUESTION = """
import importlib.metadata, importlib.util, json, sys
found = importlib.util.find_spec("torch")
version = importlib.metadata.version("torch") if found and found.origin else None
print(json.dumps([sys.version_info[:2], version, [path for path in sys.path if path]]))
"""


@dataclass(frozen=True)
class Torch:
    """A torch to build for.

    Attributes:
        version: of torch.
        python: the interpreter that has it.
        paths: its sys.path.
    """

    version: str
    python: str
    paths: list[str]


def find_torch() -> Torch | None:
    """The torch of the interpreter that will run the package. None if it has none that the package can be built for.

    What is found and does not do, is said on stderr.
    """
    for python in _candidates():
        answer = _ask(python)
        if answer is None:
            continue
        python_version, torch_version, paths = answer
        if torch_version is None:
            continue
        if tuple(python_version) != sys.version_info[:2]:
            here, there = (".".join(map(str, version)) for version in (sys.version_info[:2], python_version))
            _say(f"the torch of {python} is not used: it is of Python {there}, the build runs under {here}")
        elif _release(torch_version) < OLDEST_TORCH:
            oldest = ".".join(map(str, OLDEST_TORCH))
            _say(f"the torch of {python} is not used: it is {torch_version}, needed is {oldest} or newer")
        else:
            return Torch(torch_version, python, paths)
    return None


def _candidates() -> Iterator[str]:
    """Interpreters that may be the one that will run the package, the likeliest first."""
    named = os.environ.get("RETINA_OPS_PYTHON")
    if named:
        yield named
        return
    yield sys.executable
    if "PIP_BUILD_TRACKER" in os.environ:
        return  # pip: it was this one
    arguments, folder, environment = _parent_process()
    if "UV_INTERNAL__BUILD_DIR" in os.environ or "builds-v0" in sys.prefix:  # uv
        chosen = _option(arguments, "--python", "-p") or environment.get("UV_PYTHON")
        if chosen:
            yield from _interpreters_in(folder / chosen)
            return
        if "--system" in arguments:
            yield from filter(None, [shutil.which("python3", path=environment.get("PATH"))])
            return
    else:
        environment = dict(os.environ)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if environment.get(name):
            yield from _interpreters_in(folder / environment[name])
            return
    for parent in (folder, *folder.parents):
        if (parent / ".venv").is_dir():
            yield from _interpreters_in(parent / ".venv")
            return


def _interpreters_in(path: Path) -> Iterator[str]:
    """An interpreter, or that of an environment's folder."""
    for file in (path, path / "bin" / "python", path / "Scripts" / "python.exe"):
        if file.is_file():
            yield str(file)
            return


def _parent_process() -> tuple[list[str], Path, dict[str, str]]:
    """Arguments, folder and environment of the parent process; empty where the system does not tell."""
    process = Path("/proc") / str(os.getppid())
    try:
        arguments = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
        variables = os.fsdecode((process / "environ").read_bytes()).split("\0")
        folder = Path(os.readlink(process / "cwd"))
    except OSError:
        return [], Path.cwd(), {}
    return arguments, folder, dict(variable.split("=", 1) for variable in variables if "=" in variable)


def _option(arguments: list[str], *names: str) -> str | None:
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else next(iter(arguments[index + 1 :]), None)
    return None


def _ask(python: str) -> tuple[list[int], str | None, list[str]] | None:
    """Python's version, torch's version or None, and sys.path of an interpreter without this build's isolation."""
    isolation = ("PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in isolation}
    try:
        run = subprocess.run(
            [python, "-c", _QUESTION], capture_output=True, text=True, env=environment, cwd=os.path.abspath(os.sep)
        )
        python_version, torch_version, paths = json.loads(run.stdout)
    except (OSError, ValueError):
        _say(f"{python} is not a Python that can be run")
        return None
    return python_version, torch_version, paths


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2])


def _say(text: str) -> None:
    print(f"retina_ops: {text}", file=sys.stderr)
