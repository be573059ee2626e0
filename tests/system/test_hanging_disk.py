"""A leader whose disk hangs: no error, no answer, and heartbeats that go on.

Needs the right to mount a small file system and to freeze it; where that is missing the test is skipped, and says so.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .clusters import running, settle, wait_until
from .ledger import Ledger, Writers, fetcher
from .machine import MIB

DISK_BYTES = 192 * MIB


def _run(*command: str) -> str | None:
    """None, or why it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip() or f"code {done.returncode}" if done.returncode else None


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Path]:
    """A directory for a cluster whose nodes n1 to n3 have a file system each, which can be frozen."""
    mounted: list[Path] = []
    try:
        for node in ("n1", "n2", "n3"):
            image, target = tmp_path / f"{node}.img", tmp_path / "cluster" / node / "data"
            target.mkdir(parents=True)
            with image.open("wb") as file:
                file.truncate(DISK_BYTES)
            why = _run("mkfs.ext4", "-q", "-F", str(image)) or _run("mount", "-o", "loop", str(image), str(target))
            if why:
                pytest.skip(f"NOT SHOWN: hanging disks; no file system can be mounted here: {why}")
            mounted.append(target)
            target.chmod(0o700)
        yield tmp_path / "cluster"
    finally:
        for target in mounted:
            subprocess.run(["umount", str(target)], check=True)


@contextmanager
def _hanging(disk: Path) -> Iterator[None]:
    why = _run("fsfreeze", "--freeze", str(disk))
    if why:
        pytest.skip(f"NOT SHOWN: hanging disks; no file system can be frozen here: {why}")
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)


def test_a_leader_whose_disk_hangs_is_replaced_and_loses_nothing(disks: Path) -> None:
    with running(disks) as cluster:
        ledger = Ledger()
        leader = cluster.leader()
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4):
            wait_until("the first writes", lambda: ledger.acknowledged >= 20)
            with _hanging(cluster.data_dir(leader)):
                ledger.forget_pauses()
                goal = ledger.acknowledged + 60
                wait_until("writes while the disk hangs", lambda: ledger.acknowledged >= goal)
            goal = ledger.acknowledged + 20
            wait_until("writes after that", lambda: ledger.acknowledged >= goal)
        print(f"the disk of {leader} hung; the longest time without an acknowledgement: {ledger.longest_pause_s:.2f} s")
        settle(cluster)
        for name, url in {"frontend": cluster.url, **cluster.node_urls}.items():
            complaints = ledger.check(fetcher(url))
            assert not complaints, f"through {name}: {complaints}"
