"""The cores without torch: built by CMake, tested in C++, as they are and under sanitizers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from requirements import require

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("sanitize", ["OFF", "ON"])
def test_ctest(tmp_path: Path, sanitize: str) -> None:
    folder = Path(sys.executable).parent
    cmake = shutil.which("cmake", path=str(folder)) or shutil.which("cmake")
    require(cmake is not None, "cmake")
    build = str(tmp_path)
    report = tmp_path / "report.xml"
    for command in (
        [cmake, "-S", str(ROOT), "-B", build, f"-DRETINA_OPS_SANITIZE={sanitize}"],
        [cmake, "--build", build, "--parallel", "2"],
        [
            str(Path(cmake).with_name("ctest")),
            "--test-dir",
            build,
            "--output-on-failure",
            "--output-junit",
            str(report),
        ],
    ):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    suite = ElementTree.parse(report).getroot()
    assert int(suite.attrib["tests"]) == len(list((ROOT / "tests/cpp").glob("test_*.cpp")))
    assert suite.attrib["failures"] == "0"
