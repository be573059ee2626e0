"""One cluster of real processes for the tests of the command, and ways to run the command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from raftfs.testing import LocalCluster
from raftfs.testing.processes import raftfs_command, raftfs_environment
from raftfs_cli.main import run
from tests.system.clusters import CALM


@dataclass(frozen=True)
class Done:
    """What a command line left: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Raftfs = Callable[..., Done]


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=3, **CALM) as cluster:
        yield cluster


@pytest.fixture
def home(cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and the cluster as what the environment names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAFTFS_ENDPOINTS", cluster.url)
    return tmp_path


@pytest.fixture
def raftfs(home: Path, capfd: pytest.CaptureFixture[str]) -> Raftfs:
    """Run a command line in this process: quick, and with the code and the output of a real one."""

    def call(*words: str) -> Done:
        capfd.readouterr()
        code = run(list(words))
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return call


@pytest.fixture
def process(home: Path) -> Callable[..., Done]:
    """Run a command line in a process of its own, with standard input."""

    def call(*words: str, stdin: str = "") -> Done:
        done = subprocess.run(
            [*raftfs_command(), *words],
            input=stdin,
            env=raftfs_environment() | {"RAFTFS_ENDPOINTS": os.environ["RAFTFS_ENDPOINTS"]},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call
