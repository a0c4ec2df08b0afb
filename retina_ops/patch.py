"""Runs a script with the operators of this package in the place of those of ``torchvision.ops``.

    python -m retina_ops.patch script.py [arguments]
    python -m retina_ops.patch -m package.module [arguments]

It is what ``import retina_ops; retina_ops.patch_torchvision_ops()`` does at the top of the script.
"""

from __future__ import annotations

import os
import runpy
import sys

from .patching import patch_torchvision_ops

USAGE = "usage: python -m retina_ops.patch (script.py | -m module) [arguments]"


def main(arguments: list[str]) -> int:
    """Runs the script or module that the command line names, with the arguments after it.

    Args:
        arguments: without the name of the program.

    Returns:
        2 for a command line that names no script, with one line on stderr; else 0. A script may exit as it likes.
    """
    as_module = arguments[:1] == ["-m"]
    given = arguments[1:] if as_module else arguments
    if not given or given[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 0 if given[:1] in (["-h"], ["--help"]) else 2
    target = given[0]
    if not as_module and not os.path.exists(target):
        print(f"retina_ops.patch: no such file: {target}; {USAGE}", file=sys.stderr)
        return 2
    try:
        report = patch_torchvision_ops()
    except ImportError as error:
        print(f"retina_ops.patch: torchvision cannot be imported: {error}", file=sys.stderr)
        return 2
    for name, reason in report.left.items():
        print(f"retina_ops.patch: left alone: {name}: {reason}", file=sys.stderr)
    sys.argv = list(given)
    if as_module:
        sys.path[0] = os.getcwd()
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(target))
        runpy.run_path(target, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
