"""The PEP 517 backend: setuptools, with the torch of the interpreter that will run the package.

Build isolation hides that torch, and a build requirement would download another. This backend asks the interpreter
where its torch is (`target_interpreter`), and adds its folders to sys.path. Where there is no torch, it requires one.
"""

import sys

import setuptools
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403
from target_interpreter import find_torch

OLDEST_SETUPTOOLS = 77  # the first to know the license of pyproject.toml


def _requires_torch() -> list[str]:
    _check_setuptools()
    return [] if find_torch() else ["torch>=2.10"]


def _use_torch() -> None:
    _check_setuptools()
    found = find_torch()
    if found is None:
        return  # the build requirement is on sys.path
    print(f"retina_ops: builds for torch {found.version} of {found.python}", file=sys.stderr)
    sys.path += [path for path in found.paths if path not in sys.path]


def _check_setuptools() -> None:
    if int(setuptools.__version__.partition(".")[0]) < OLDEST_SETUPTOOLS:
        sys.exit(
            f"retina_ops: the build needs setuptools {OLDEST_SETUPTOOLS} or newer, found {setuptools.__version__}: "
            f"pip install 'setuptools>={OLDEST_SETUPTOOLS}', or build without --no-build-isolation"
        )


# setup.py imports torch. setuptools' own hooks would run it before torch can be found, so these do without it.


def get_requires_for_build_wheel(config_settings=None):
    return _requires_torch()


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    _use_torch()
    return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None):
    _use_torch()
    return build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _use_torch()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _use_torch()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    _use_torch()
    return build_meta.build_sdist(sdist_directory, config_settings)
