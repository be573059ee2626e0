"""What the machines install, as wheels: raftfs from this checkout, a second version of it, and all that both need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import raftfs
from raftfs.testing.nemesis.machine import CannotRun
from tests.system.other_release import NEXT, make_release

ROOT: Final = Path(__file__).parents[2]
SECOND_VERSION: Final = f"{raftfs.__version__}.post1"
MACHINES_PYTHON: Final = (3, 11)
"""That of the machines' Debian. Wheels are made with the same one, as some hold compiled code."""

_MAKE_S_MAX: Final = 600.0


@dataclass(frozen=True)
class Wheels:
    """``house`` holds everything that ``first`` and ``second`` need."""

    first: Path
    second: Path
    house: Path


def make(folder: Path) -> Wheels:
    """Raises CannotRun where they cannot be made."""
    if sys.version_info[:2] != MACHINES_PYTHON:
        wanted = ".".join(map(str, MACHINES_PYTHON))
        raise CannotRun(
            f"the machines have Python {wanted}, and wheels for it are made with it: make PYTHON=python{wanted}"
        )
    house = folder / "wheelhouse"
    _pip("wheel", "--no-deps", f"--wheel-dir={folder / 'first'}", str(ROOT))
    first = _only(folder / "first")
    _pip("wheel", f"--wheel-dir={house}", str(first))
    _pip("wheel", "--no-deps", f"--wheel-dir={folder / 'second'}", str(_second_source(folder / "source")))
    return Wheels(first, _only(folder / "second"), house)


def _second_source(folder: Path) -> Path:
    """The next release: a newer format and something new behind it, as the tests of upgrades have it."""
    version = ("__init__.py", f'__version__ = "{raftfs.__version__}"', f'__version__ = "{SECOND_VERSION}"')
    make_release(folder, *NEXT, version)
    (folder / "raftfs_cli").rename(folder / "cli")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MAKE_S_MAX, check=False)
    if done.returncode:
        raise CannotRun(f"{' '.join(command)}: {done.stderr.strip()}")


def _only(folder: Path) -> Path:
    (found,) = folder.glob("raftfs-*.whl")
    return found
