"""What ``make`` says to somebody whose Python cannot run raftfs. (That it works: tests/system/test_make_run.py.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "environment.py"

PRETEND = {
    "old": ("sys.version_info = (3, 8, 10)", "is Python 3.8; raftfs needs 3.11 or newer"),
    "without venv": (
        "import importlib.util; importlib.util.find_spec = lambda name: None",
        "cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv",
    ),
}


@pytest.mark.parametrize(("pretend", "words"), PRETEND.values(), ids=PRETEND)
def test_unfit_python_is_told_what_to_do(pretend: str, words: str, tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    program = f"import runpy, sys; {pretend}; sys.argv = ['', {str(folder)!r}, '--', 'x']; "
    program += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists()
