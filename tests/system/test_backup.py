"""Backups of real processes: under writes, through the death of leaders, into full disks, interrupted and continued.

The tests of what a backup holds, of damage and of what a restore refuses are in ``tests/backup``; these are about what
only real clusters, processes and disks can do to one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from raftfs import backup, errors
from raftfs.client import AsyncClient, Client, Progress
from raftfs.testing import LocalCluster
from raftfs_cli import exitcodes

from .clusters import WAIT_S_MAX, running, wait_until

MIB = 1024 * 1024
WRITERS = 3


def fill(client: Client, *, large: int, small: int) -> None:
    dice = random.Random(1)
    for number in range(large):
        client.write(f"/large/{number}", dice.randbytes(4 * MIB), parents=True)
    for number in range(small):
        client.write(f"/small/{number % 10}/{number}", dice.randbytes(2_000), parents=True)


def tree(client: Client, revision: int | None = None) -> dict[str, Any]:
    """All that a restore brings back."""
    found: dict[str, Any] = {}
    for entry in client.list("/", recursive=True, revision=revision):
        data = client.read(entry.path, revision=revision) if entry.type == "file" else None
        found[entry.path] = (entry.type, data, entry.content_type, entry.metadata)
    return found


def command(cluster: LocalCluster, *arguments: object, check: bool = True, **options: Any) -> Any:
    done = subprocess.run(
        _words(arguments),
        env=_environment(cluster),
        capture_output=True,
        timeout=WAIT_S_MAX * 4,
        check=False,
        **options,
    )
    if check:
        assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def _words(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "raftfs_cli", "backup", *map(str, arguments)]


def _environment(cluster: LocalCluster) -> dict[str, str]:
    return {**os.environ, "RAFTFS_ENDPOINTS": cluster.url}


def restored(source: Path, expected: dict[str, Any]) -> None:
    """Restore into a new cluster, which then has to hold exactly what is expected."""
    with running() as other, closing(other.client()) as client:
        said = json.loads(command(other, "restore", source, "--json").stdout)
        assert tree(client) == expected
        assert said["revision"] == client.list_page("/").revision


def whole(source: Path) -> None:
    with closing(backup.open_source(source)) as opened:
        report = backup.verify(opened)
    assert not report.findings, report.findings


class Writers:
    """Clients that write without a pause until they are stopped, and keep some things equal at every revision.

    ``/pair/x/0`` and ``/pair/x/1`` always have the same bytes: both are written aside, and the directory is renamed
    over the old one. Counters only grow. Some directories are renamed to and fro with all that is in them.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self._stop = threading.Event()
        self._cluster = cluster
        self.failed: list[BaseException] = []
        self.rounds = [0] * WRITERS
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(WRITERS)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        wait_until("each writer to have written", lambda: min(self.rounds) > 2 or self.failed)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.failed, self.failed

    def _run(self, number: int) -> None:
        try:
            with closing(self._cluster.client(deadline_s=WAIT_S_MAX)) as client:
                while not self._stop.is_set():
                    self._round(client, number)
                    self.rounds[number] += 1
        except BaseException as error:
            self.failed.append(error)

    def _round(self, client: Client, number: int) -> None:
        count = self.rounds[number]
        # Above and below what is kept within the database.
        body = f"{number} {count} ".encode() * (10 if count % 2 else 5_000)
        for half in (0, 1):
            client.write(f"/new/{number}/{half}", body, parents=True)
        client.rename(f"/new/{number}", f"/pair/{number}", replace=True, parents=True)
        client.write(f"/counter/{number}", str(count).encode(), parents=True)
        client.write(f"/dir/{number}/{'ab'[count % 2]}/file", b"to and fro", parents=True)
        client.rename(f"/dir/{number}/{'ab'[count % 2]}", f"/dir/{number}/there", replace=True)


def keeps_the_invariant(found: dict[str, Any]) -> None:
    for number in range(WRITERS):
        pair = [found[f"/pair/{number}/{half}"][1] for half in (0, 1)]
        assert pair[0] == pair[1], f"pair {number} is of two revisions"
        count = int(pair[0].split()[1])
        assert int(found[f"/counter/{number}"][1]) in (count, count - 1)


def test_a_backup_during_writes_is_of_exactly_one_revision(tmp_path: Path) -> None:
    with running() as cluster, closing(cluster.client()) as client:
        fill(client, large=3, small=50)
        with Writers(cluster) as writers:
            before = list(writers.rounds)
            said = [json.loads(command(cluster, "create", tmp_path / "b", "--json").stdout) for _ in range(3)]
            command(cluster, "create", tmp_path / "one.tar")
            assert all(after > once for once, after in zip(before, writers.rounds, strict=True))
        revisions = [one["revision"] for one in said]
        assert revisions == sorted(set(revisions))
        expected = [tree(client, revision) for revision in revisions]
        for one in expected:
            keeps_the_invariant(one)
        whole(tmp_path / "b")
        whole(tmp_path / "one.tar")
        assert said[1]["new_bytes"] < 4 * MIB, "what the first one brought is not fetched again"
        with pytest.raises(AssertionError, match="two revisions"):
            keeps_the_invariant({**expected[0], "/pair/1/0": expected[-1]["/pair/1/0"]})  # the check can fail
    with running() as other, closing(other.client()) as client:
        command(other, "restore", tmp_path / "b", "--backup", said[1]["name"])
        assert tree(client) == expected[1]
    restored(tmp_path / "b", expected[2])


class KillsTheLeader:
    """A report that kills the leader when so many bytes are done. Its node is started again at the end."""

    def __init__(self, cluster: LocalCluster, at_bytes: int) -> None:
        self._cluster, self._at = cluster, at_bytes
        self._thread: threading.Thread | None = None
        self.killed: str | None = None

    def __call__(self, now: Progress) -> None:
        if self._thread is None and now.done_bytes >= self._at:
            self._thread = threading.Thread(target=self._kill)
            self._thread.start()

    def _kill(self) -> None:
        leader = self._cluster.leader()
        assert leader is not None
        self._cluster.kill(leader)
        self.killed = leader

    def revive(self) -> None:
        assert self._thread is not None, "it was over too soon for the leader to be killed"
        self._thread.join()
        assert self.killed is not None
        self._cluster.start(self.killed)


def session(cluster: LocalCluster, work: Callable[[AsyncClient], Any]) -> Any:
    async def run() -> Any:
        async with AsyncClient(cluster.url, deadline_s=WAIT_S_MAX) as client:
            return await work(client)

    return asyncio.run(run())


def test_leaders_die_during_a_backup_and_during_a_restore(tmp_path: Path) -> None:
    with running() as cluster, closing(cluster.client()) as client:
        fill(client, large=4, small=0)
        # A page for the large ones and pages behind it, so that the leader dies between them.
        dice = random.Random(2)
        for number in range(200):
            client.write(f"/many/{number:03}", dice.randbytes(32 * 1024), parents=True)
        report = KillsTheLeader(cluster, 1)
        done = session(cluster, lambda c: backup.create(c, tmp_path / "b", report=report, concurrency=1))
        report.revive()
        expected = tree(client, done.backup.revision)
        whole(tmp_path / "b")
    with running() as other, closing(other.client()) as client, closing(backup.open_source(tmp_path / "b")) as source:
        report = KillsTheLeader(other, 6 * MIB)
        session(other, lambda c: backup.restore(c, source, report=report))
        report.revive()
        assert tree(client) == expected


@contextmanager
def interrupted(cluster: LocalCluster, *arguments: object, when: Callable[[], object]) -> Iterator[None]:
    """A command that is killed (SIGKILL) when something is so; if it ended before, the test says so."""
    process = subprocess.Popen(
        _words(arguments), env=_environment(cluster), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until("something to interrupt", lambda: when() or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the command had ended before it could be killed"
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def objects(folder: Path) -> list[Path]:
    return [path for path in (folder / "objects").rglob("*") if path.is_file()]


def test_a_killed_backup_is_none_and_the_next_one_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "b"
    with running() as cluster, closing(cluster.client()) as client:
        fill(client, large=24, small=20)
        with interrupted(cluster, "create", target, "--jobs", 1, when=lambda: len(objects(target)) > 2):
            brought = len(objects(target))
            assert backup.list_backups(target) == []
            refused = command(cluster, "restore", target, check=False)
            assert refused.returncode == 3
            assert b"no finished backup" in refused.stderr
            assert command(cluster, "verify", target, check=False).returncode == 1
        said = json.loads(command(cluster, "create", target, "--json").stdout)
        assert said["new_objects"] <= 24 + 2 - brought
        whole(target)
        expected = tree(client)
    restored(target, expected)


def test_a_killed_restore_goes_on(tmp_path: Path) -> None:
    with running() as cluster, closing(cluster.client()) as client:
        fill(client, large=12, small=100)
        command(cluster, "create", tmp_path / "b")
        expected = tree(client)
    with running() as other, closing(other.client()) as client:

        def some() -> bool:
            return client.exists("/large/2")

        with interrupted(other, "restore", tmp_path / "b", "--jobs", 2, when=some):
            there = len(tree(client))
            assert 0 < there < len(expected)
        said = json.loads(command(other, "restore", tmp_path / "b", "--json").stdout)
        assert said["same"] >= there - 2, "what was there was not sent again"
        assert tree(client) == expected


def test_a_stream_through_a_pipe(tmp_path: Path) -> None:
    with running() as cluster, closing(cluster.client()) as client:
        fill(client, large=2, small=20)
        expected = tree(client)
        with (tmp_path / "stream.tar").open("wb") as file:
            subprocess.run(_words(("create", "-")), env=_environment(cluster), stdout=file, check=True)
        command(cluster, "verify", tmp_path / "stream.tar")
        with tarfile.open(tmp_path / "stream.tar") as tar:
            tar.extractall(tmp_path / "unpacked", filter="data")
        command(cluster, "verify", tmp_path / "unpacked")
        # A stream that breaks off is no backup.
        half = tmp_path / "half.tar"
        half.write_bytes((tmp_path / "stream.tar").read_bytes()[:-20_000])
        assert command(cluster, "verify", half, check=False).returncode == 1
        assert command(cluster, "restore", half, check=False).returncode == exitcodes.DAMAGED
    restored(tmp_path / "stream.tar", expected)


def test_a_full_disk_leaves_no_backup_and_room_makes_it_go_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=18m", "raftfs-test", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small tmpfs, so a full disk is not tested here: {done.stderr.strip()}")
    try:
        with running() as cluster, closing(cluster.client()) as client:
            fill(client, large=6, small=10)
            for name in ("b", "one.tar"):
                full = command(cluster, "create", disk / name, "--json", check=False)
                assert json.loads(full.stderr)["code"] == errors.StorageFull.code
            assert backup.list_backups(disk / "b") == []
            assert not list(disk.glob("*.tar*"))
            brought = len(objects(disk / "b"))
            assert brought >= 2
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            said = json.loads(command(cluster, "create", disk / "b", "--json").stdout)
            assert said["new_objects"] <= 6 + 1 - brought
            whole(disk / "b")
            assert tree(client, said["revision"]) == tree(client)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_paths_come_back_while_others_write(tmp_path: Path) -> None:
    with running() as cluster, closing(cluster.client()) as client:
        fill(client, large=2, small=30)
        command(cluster, "create", tmp_path / "b")
        before = tree(client)
        with Writers(cluster):
            client.remove("/small", recursive=True)
            client.write("/large/0", b"changed by mistake")
            assert command(cluster, "restore", tmp_path / "b", "--path", "/large", check=False).returncode == 4
            assert client.read("/large/0") == b"changed by mistake"
            command(cluster, "restore", tmp_path / "b", "--path", "/small", "--path", "/large", "--replace")
        after = tree(client)
    assert {path: after[path] for path in before} == before


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    """Peak memory of ``create`` and ``verify`` for few and for many files; what differs must be far less than the
    files' own metadata would take."""
    peaks = {}
    with running() as cluster, closing(cluster.client()) as client:
        client.write("/t/0/seed", b"a small file", metadata={"note": "x" * 1000}, parents=True)
        for number in range(100):
            client.copy("/t/0/seed", f"/t/0/{number}")
        few = _peak(cluster, "create", tmp_path / "few")
        for number in range(1, 120):
            client.copy("/t/0", f"/t/{number}")
        many = _peak(cluster, "create", tmp_path / "many")
        peaks["create"] = (few, many)
        peaks["verify"] = (_peak(cluster, "verify", tmp_path / "few"), _peak(cluster, "verify", tmp_path / "many"))
        files = backup.list_backups(tmp_path / "many")[0].files
    print(f"peak memory in MiB: {peaks}, for {files} files")
    assert files > 12_000
    # 12,000 entries of over 1 KiB, each many times that as Python objects, are more than this; two pages are less.
    assert peaks["create"][1] - peaks["create"][0] < 60
    assert peaks["verify"][1] - peaks["verify"][0] < 25


def _peak(cluster: LocalCluster, *arguments: object) -> float:
    """Peak resident memory of a command, in MiB."""
    code = (
        "import resource, sys; from raftfs_cli.main import run; code = run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr); sys.exit(code)"
    )
    words = [sys.executable, "-c", code, "backup", *map(str, arguments)]
    done = subprocess.run(words, env=_environment(cluster), capture_output=True, text=True, check=True)
    return float(done.stderr.split()[-1])
