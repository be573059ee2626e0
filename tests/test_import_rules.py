"""Each import contract of pyproject.toml is broken by the import that it is there to forbid, and by no lawful one.

The contracts are run over a skeleton of the package that holds one planted import.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "backup", "chunks", "client", "consensus", "frontend", "http", "service", "state", "testing")
SERVICE = ("service/datadir", "service/node", "service/recovery")
MODULES = (
    "certificates",
    "config",
    "errors",
    "fsync",
    "limits",
    "listener",
    "models",
    "paths",
    "tls",
    "versions",
    "consensus/engine",
    *SERVICE,
)

FORBIDDEN = [
    ("raftfs/service/x.py", "import raftfs.api", "layers"),
    ("raftfs/paths.py", "from raftfs import state", "layers"),
    ("raftfs/chunks/x.py", "from raftfs.state import y", "layers"),
    ("raftfs/consensus/x.py", "import raftfs.chunks", "layers"),
    ("raftfs/service/x.py", "import pysyncobj", "engine"),
    ("cli/x.py", "from pysyncobj import SyncObj", "engine"),
    ("raftfs/state/x.py", "import time", "state-is-pure"),
    ("raftfs/state/x.py", "from random import randrange", "state-is-pure"),
    ("raftfs/state/x.py", "import asyncio", "state-is-pure"),
    ("raftfs/state/x.py", "from raftfs.models import Entry", "state-is-pure"),
    ("raftfs/client/x.py", "from raftfs.state import commands", "client"),
    ("raftfs/client/x.py", "from raftfs.service import Files", "client"),
    ("raftfs/backup/x.py", "from raftfs.state import Reader", "client"),
    ("raftfs/frontend/x.py", "import raftfs.service", "frontend"),
    ("raftfs/frontend/x.py", "import raftfs.api", "frontend"),
    ("cli/x.py", "from raftfs.service import Files", "command-line"),
    ("cli/x.py", "import raftfs.state", "command-line"),
    ("cli/x.py", "from raftfs.service.datadir import lock", "command-line"),
    ("raftfs/testing/x.py", "import raftfs_cli", "no-command-line"),
]

LAWFUL = [
    ("raftfs/api/x.py", "import raftfs.service, raftfs.frontend, raftfs.state"),
    ("raftfs/service/node.py", "import raftfs.api, raftfs.frontend"),
    ("raftfs/state/x.py", "import raftfs.paths, raftfs.errors, sqlite3"),
    ("raftfs/client/x.py", "import raftfs.models, asyncio, time"),
    ("raftfs/backup/x.py", "import raftfs.client, raftfs.fsync, sqlite3"),
    ("cli/x.py", "from raftfs.service.node import Node"),
    ("cli/x.py", "from raftfs.service.recovery import survivor"),
]


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for package in ("raftfs", "cli", *(f"raftfs/{name}" for name in PACKAGES)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    for module in MODULES:
        (tmp_path / "raftfs" / f"{module}.py").touch()
    (tmp_path / "raftfs/models.py").write_text("import pydantic\n")
    (tmp_path / "raftfs/consensus/engine.py").write_text("import pysyncobj\n")
    (tmp_path / "raftfs_cli").symlink_to("cli")
    return tmp_path


def lint_imports(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "line", "contract"), FORBIDDEN)
def test_forbidden_import_breaks_its_contract(skeleton: Path, name: str, line: str, contract: str) -> None:
    (skeleton / name).write_text(line + "\n")
    code, output = lint_imports(skeleton, "--contract", contract)
    assert code == 1, output
    assert "0 kept, 1 broken" in output


@pytest.mark.parametrize(("name", "line"), LAWFUL)
def test_lawful_import_breaks_none(skeleton: Path, name: str, line: str) -> None:
    (skeleton / name).write_text(line + "\n")
    code, output = lint_imports(skeleton)
    assert code == 0, output


def test_work_tree_keeps_all_contracts() -> None:
    code, output = lint_imports(ROOT)
    assert code == 0, output
