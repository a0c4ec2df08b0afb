"""The PEP 517 backend: setuptools, with the torch that the environment already has.

Build isolation hides the torch of the environment, and a build requirement would download it again. This backend adds
the site-packages that contain torch to sys.path. Where there is no torch, it requires one.
"""

import glob
import os
import sys
import sysconfig

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def _environment_site_packages() -> str | None:
    """The site-packages of the environment that runs pip or uv, where they contain torch."""
    prefixes = [sys.prefix, os.environ.get("VIRTUAL_ENV", ""), os.environ.get("CONDA_PREFIX", "")]
    paths = [sysconfig.get_path("purelib")]
    for prefix in prefixes:
        paths += glob.glob(os.path.join(prefix, "lib", "python*", "site-packages")) if prefix else []
    for path in paths:
        if os.path.isfile(os.path.join(path, "torch", "__init__.py")):
            return path
    return None


def _requires_torch() -> list[str]:
    return [] if _environment_site_packages() else ["torch>=2.10"]


def _use_torch() -> None:
    path = _environment_site_packages()
    if path and path not in sys.path:
        sys.path.append(path)


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
