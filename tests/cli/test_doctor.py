"""``raftfs doctor`` against real clusters with something really wrong, and its judgement on answers that none gives."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any, NoReturn

import pytest

from raftfs import limits
from raftfs.client.doctor import Finding, View, examine
from raftfs.models import ClusterStatus
from raftfs.testing import LocalCluster
from raftfs.testing.nemesis import clock
from raftfs.testing.nemesis.machine import CannotRun, faketime
from raftfs.testing.processes import raftfs_command, raftfs_environment
from raftfs_cli import exitcodes
from tests.system.clusters import level, running, wait_until
from tests.system.web import status_of


def doctor(cluster: LocalCluster) -> tuple[int, dict[str, Any]]:
    """Its exit code and its JSON, asked through the frontend."""
    ca = [] if cluster.ca is None else ["--ca", str(cluster.ca)]
    done = subprocess.run(
        [*raftfs_command(), "-e", cluster.url, *ca, "doctor", "--json"],
        env=raftfs_environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def found_nothing(done: tuple[int, dict[str, Any]]) -> dict[str, Any] | None:
    code, answer = done
    assert (code == exitcodes.OK) == answer["ok"]
    return answer if answer["ok"] else None


def found(answer: dict[str, Any], about: str) -> list[dict[str, Any]]:
    assert all(finding["what"] and finding["do"] for finding in answer["findings"])
    return [finding for finding in answer["findings"] if finding["about"] == about]


def follower(cluster: LocalCluster) -> str:
    return next(node for node in cluster.nodes if node != cluster.leader())


def wait_for(cluster: LocalCluster, about: str, where: list[str]) -> dict[str, Any]:
    """The doctor's answer as soon as its findings about one thing are at these places: a busy machine may be late."""

    def good() -> dict[str, Any] | None:
        code, answer = doctor(cluster)
        assert code == (exitcodes.OK if answer["ok"] else exitcodes.FAILURE)
        return answer if sorted(finding["where"] for finding in found(answer, about)) == sorted(where) else None

    return wait_until(f"findings about {about} at {where}", good, timeout_s=180)


@pytest.mark.system
def test_nothing_is_wrong_until_nodes_freeze_and_die() -> None:
    with running() as cluster:
        answer = wait_until("nothing to be wrong", lambda: found_nothing(doctor(cluster)))
        assert [member["id"] for member in answer["members"]] == ["n1", "n2", "n3"]
        assert all(member["answers"] and member["node"]["total_bytes"] > 0 for member in answer["members"])

        frozen = follower(cluster)
        cluster.kill(frozen, SIGSTOP)
        answer = wait_for(cluster, "member", [frozen])
        [finding] = found(answer, "member")
        assert finding["severity"] == "warning"
        assert "no other one may fail" in finding["what"]
        cluster.kill(frozen, SIGCONT)
        wait_until("nothing to be wrong", lambda: found_nothing(doctor(cluster)))

        # The leader last: before, the two that are left could elect the third, which would lead for a moment more.
        leader = cluster.leader()
        left, other = (node for node in cluster.nodes if node != leader)
        dead = [other, leader]
        for node in dead:
            cluster.kill(node)
        wait_until("the third to be without a leader", lambda: not status_of(cluster.node_urls[left])["quorum"])
        answer = wait_for(cluster, "member", dead)
        assert answer["findings"][0]["severity"] == "critical"
        assert "1 of 3 voting members" in found(answer, "quorum")[0]["what"]
        assert found(answer, "leader")

        cluster.kill(left)
        done = subprocess.run(
            [*raftfs_command(), "-e", cluster.url, "--timeout", "3", "doctor"],
            env=raftfs_environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (exitcodes.UNAVAILABLE, "")


@pytest.mark.system
def test_nothing_is_wrong_while_files_are_written() -> None:
    with running() as cluster:
        wait_until("nothing to be wrong", lambda: found_nothing(doctor(cluster)))
        stop = threading.Event()
        with ThreadPoolExecutor() as pool:
            writer = pool.submit(write_files, cluster, stop)
            try:
                wait_until("chunks that lack somewhere", lambda: lacking(cluster))
                wait_until("nothing to be wrong", lambda: found_nothing(doctor(cluster)))
            finally:
                stop.set()
            assert writer.result() > 0


def write_files(cluster: LocalCluster, stop: threading.Event) -> int:
    """Write files with a chunk of their own each until ``stop``. Returns how many."""
    count = 0
    with cluster.client() as client:
        while not stop.is_set():
            client.write(f"/f{count % 8}", os.urandom(limits.INLINE_BYTES_MAX + 1))
            count += 1
    return count


def lacking(cluster: LocalCluster) -> bool:
    with cluster.client() as client:
        return any(member.missing_chunks for member in client.cluster_status().members)


@pytest.mark.system
def test_members_that_speak_tls_are_asked_too() -> None:
    with running(tls=True) as cluster:
        answer = wait_until("nothing to be wrong", lambda: found_nothing(doctor(cluster)))
        for member in answer["members"]:
            assert {certificate["name"] for certificate in member["node"]["certificates"]} == {"client", "peer"}
            assert all(certificate["expires_ms"] > SOON_MS for certificate in member["node"]["certificates"])


@contextmanager
def small_disk(where: Path, size: int) -> Iterator[None]:
    where.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(where)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT SHOWN: a full disk; this user may not mount a tmpfs: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.system
def test_a_full_disk_is_found(tmp_path: Path) -> None:
    size = 2 * limits.DISK_FREE_BYTES_MIN
    with small_disk(tmp_path / "cluster" / "n2" / "data", size), running(tmp_path / "cluster") as cluster:
        wait_until("nothing to be wrong", lambda: found_nothing(doctor(cluster)))
        with (cluster.data_dir("n2") / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size * 3 // 4)
        [finding] = found(wait_for(cluster, "disk", ["n2"]), "disk")
        assert finding["severity"] == "critical"


def not_shown(what: str) -> NoReturn:
    """Where it has to be shown, RAFTFS_TEST_CLOCKS=1 makes a failure of it."""
    if os.environ.get("RAFTFS_TEST_CLOCKS") == "1":
        pytest.fail(f"NOT SHOWN: {what}")
    pytest.skip(f"NOT SHOWN: {what}")


def own_clock(offset: Path) -> list[str]:
    """What to write before a command so that its clock is off by what the file says."""
    try:
        words = ["unshare", "--mount", *clock.before(faketime(), offset)]
    except CannotRun as error:
        not_shown(f"clocks that are apart; {error}")
    done = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        not_shown(f"clocks that are apart; this user may not: {done.stderr.strip()}")
    return words


@pytest.mark.system
def test_a_clock_that_is_wrong_is_found(tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("-90")
    program = own_clock(offset)
    with running() as cluster:
        level(cluster)
        late = follower(cluster)
        cluster.stop(late)
        cluster.start(late, program=[*program, *raftfs_command()])
        [finding] = found(wait_for(cluster, "clock", [late]), "clock")
        assert "behind" in finding["what"]


# --- the judgement on answers that a healthy cluster does not give ---------------------------------------------------


def status(me: str, **changes: Any) -> ClusterStatus:
    members = [
        {"id": f"n{i}", "url": f"http://n{i}", "peer": f"n{i}:1", "role": "leader" if i == 1 else "follower",
         "reachable": True, "applied_index": 7, "lag": 0, "missing_chunks": 0, "formats": {"min": 1, "max": 1}}
        for i in (1, 2, 3)
    ]  # fmt: skip
    checks = [{"name": "quorum", "ok": True, "text": "fine"}]
    node = {"id": me, "version": "1", "time_ms": 1_000_000, "data_dir": "/d", "free_bytes": 2 * 10**9,
            "total_bytes": 10**10, "checks": checks}  # fmt: skip
    values = {
        "cluster_id": "c", "revision": 1, "term": 3, "leader": {"id": "n1", "url": "http://n1"}, "members": members,
        "quorum": True, "state_hash": "aa", "applied_index": 7, "format": 1, "node": node,
    }  # fmt: skip
    for key, value in changes.items():
        where, _, field = key.partition("__")
        if not field:
            values[where] = value
        elif where == "node":
            node[field] = value
        else:
            next(member for member in members if member["id"] == where)[field] = value
    return ClusterStatus.model_validate(values)


SOON_MS = int(time.time() * 1000) + 86_400_000


def judge(n1: dict[str, Any] | None = None, n2: dict[str, Any] | None = None) -> list[Finding]:
    """Findings about three members that answer, the first two with changes."""
    views = [
        View(name, f"http://{name}", status(name, **changes or {}), "", 999_990.0, 1_000_010.0)
        for name, changes in (("n1", n1), ("n2", n2), ("n3", {}))
    ]
    first = views[0].status
    assert first is not None
    return examine(first, views)


def test_equal_members_have_no_findings() -> None:
    assert judge() == []


@pytest.mark.parametrize(
    ("n1", "n2", "about", "where", "severity"),
    [
        ({"n3__lag": 5000}, {}, "lag", "n3", "warning"),
        ({"n2__missing_chunks": 4}, {}, "chunks", "n2", "warning"),
        ({"n2__role": "learner"}, {}, "learner", "n2", "warning"),
        ({"n3__rejoining": "the log"}, {}, "rejoining", "n3", "warning"),
        ({"n3__refused": "an empty disk"}, {}, "refused", "n3", "warning"),
        ({"n3__reachable": False}, {}, "peer", "n3", "warning"),
        ({"n1__formats": {"min": 1, "max": 2}}, {}, "format", "cluster", "warning"),
        ({"format": 0}, {}, "format", "cluster", "critical"),
        ({}, {"node__version": "2"}, "version", "cluster", "warning"),
        ({}, {"node__time_ms": 1_005_000}, "clock", "n2", "warning"),
        ({}, {"node__free_bytes": 9 * 10**8}, "disk", "n2", "warning"),
        ({}, {"node__free_bytes": 1000}, "disk", "n2", "critical"),
        ({}, {"node__certificates": [{"name": "client", "expires_ms": 1000}]}, "certificate", "n2", "critical"),
        ({}, {"node__certificates": [{"name": "client", "expires_ms": SOON_MS}]}, "certificate", "n2", "warning"),
        ({}, {"node__checks": [{"name": "quorum", "ok": False, "text": "x"}]}, "ready", "n2", "warning"),
        ({}, {"state_hash": "bb"}, "states", "n1,n2,n3", "critical"),
        ({}, {"leader": {"id": "n2", "url": "http://n2"}}, "leader", "cluster", "critical"),
        ({}, {"leader": None}, "leader", "n2", "warning"),
        ({}, {"quorum": False}, "leader", "n2", "warning"),
        ({}, {"term": 2}, "leader", "n2", "warning"),
        ({}, {"cluster_id": "other"}, "member", "n2", "critical"),
        ({}, {"node__id": "n3"}, "member", "n2", "critical"),
    ],
)
def test_each_thing_that_is_wrong_is_found(
    n1: dict[str, Any], n2: dict[str, Any], about: str, where: str, severity: str
) -> None:
    findings = judge(n1, n2)
    assert (about, where, severity) in [(finding.about, finding.where, finding.severity) for finding in findings]
    assert all(finding.what and finding.do for finding in findings)


@pytest.mark.parametrize(
    ("complete", "applied", "goal", "lacks"),
    [
        (7, 9, 7, False),  # all that was there at the first look
        (6, 9, 7, True),
        (9, 9, 7, True),  # it has looked at all there is, and somebody who has them is missing
        (7, 9, None, True),  # the first look
        (None, 9, 7, True),  # of an older release
    ],
)
def test_chunks_that_came_later_are_not_waited_for(complete: int | None, applied: int, goal: int, lacks: bool) -> None:
    changes = {"n2__missing_chunks": 2, "n2__complete_index": complete, "n2__applied_index": applied}
    view = View("n2", "http://n2", status("n2", **changes), "", 999_990.0, 1_000_010.0)
    assert view.status is not None
    assert ("chunks" in [finding.about for finding in examine(view.status, [view], goal)]) is lacks


def test_what_the_way_of_an_answer_explains_is_no_wrong_clock() -> None:
    slow = View("n2", "http://n2", status("n2", node__time_ms=1_003_000), "", 999_000.0, 1_007_000.0)
    quick = [View(name, f"http://{name}", status(name), "", 999_990.0, 1_000_010.0) for name in ("n1", "n3")]
    assert examine(status("n1"), [quick[0], slow, quick[1]]) == []
