"""Two releases in one cluster of real processes: the rolling upgrade under traffic, the way back before the switch, the
old release refused after it, and what happens if a leader switches too early."""

from __future__ import annotations

import http.client
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raftfs.errors import Unavailable, UnknownOutcome
from raftfs.testing import LocalCluster
from raftfs.testing.processes import raftfs_command, raftfs_environment
from raftfs.versions import FORMAT_VERSION
from raftfs_cli import exitcodes

from .clusters import CALM, level, running, wait_until
from .ledger import Attempt, Ledger, Outcome, Writers, fetcher
from .other_release import HASTY, NEXT, NEXT_FORMAT, Release, make_release
from .web import ask, sha256, status_of

LOG_LINES = 400


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("release"), *NEXT)


class LibraryClients:
    """Clients of the library beside the raw writers: each file is created once, under a name of its own, with
    ``if_absent``. A repetition that the cluster took for a new request would be answered with a refusal."""

    def __init__(self, cluster: LocalCluster, ledger: Ledger, clients: int = 2) -> None:
        self._cluster, self._ledger = cluster, ledger
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(clients)]

    def _run(self, number: int) -> None:
        try:
            with self._cluster.client() as client:
                count = 0
                while not self._stop.is_set():
                    count += 1
                    outcome: Outcome
                    path, data = f"/library-{number}-{count}", secrets.token_bytes(500)
                    try:
                        client.write(path, data, if_absent=True)
                        outcome, detail = "acknowledged", "library"
                    except (Unavailable, UnknownOutcome) as error:
                        outcome, detail = "refused" if error.outcome == "not_applied" else "unknown", repr(error)
                    self._ledger.note(path, Attempt(sha256(data), len(data), outcome, detail))
        except BaseException as error:
            self._failed.append(error)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not self._failed, self._failed
        assert not any(thread.is_alive() for thread in self._threads)


@contextmanager
def traffic(cluster: LocalCluster, ledger: Ledger) -> Iterator[Callable[[], None]]:
    """Writes without pause; the function that is given waits for many more to be acknowledged."""

    def more() -> None:
        goal = ledger.acknowledged + 60
        wait_until("more acknowledged writes", lambda: ledger.acknowledged >= goal)

    library = LibraryClients(cluster, ledger)
    with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=3, large=False):
        library.start()
        try:
            more()
            yield more
        finally:
            library.stop()


def formats(cluster: LocalCluster) -> dict[str, int | None]:
    """The format that is active on each node; None for one that does not answer."""
    found: dict[str, int | None] = {}
    for node, url in cluster.node_urls.items():
        try:
            found[node] = status_of(url)["format"]
        except (OSError, http.client.HTTPException):
            found[node] = None
    return found


def newest_formats(url: str) -> dict[str, int | None]:
    """The newest format of each member, as this node knows it; None for one that it is not connected with."""
    members = status_of(url)["members"]
    return {member["id"]: member["formats"] and member["formats"]["max"] for member in members}


def everywhere(cluster: LocalCluster, number: int) -> dict[str, int | None]:
    return dict.fromkeys(cluster.nodes, number)


def replace(cluster: LocalCluster, node: str, release: Release | None) -> None:
    """Stop a node in order, and start it with the code of ``release``, or with this one."""
    cluster.stop(node)
    cluster.start(node, program=release and release.program)


def run_old(cluster: LocalCluster, node: str) -> subprocess.CompletedProcess[str]:
    """Run a node's server with this code until it ends by itself."""
    command = [*raftfs_command(), "node", "run", "--config", str(cluster.dir / node / "raftfs.toml")]
    return subprocess.run(
        command,
        env=raftfs_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def make_directory(cluster: LocalCluster, path: str) -> Any:
    return ask(cluster.url, "PUT", f"/v1/dirs{path}")


def check(cluster: LocalCluster, ledger: Ledger) -> None:
    level(cluster)
    print(ledger)
    for name, url in {"frontend": cluster.url, **cluster.node_urls}.items():
        complaints = ledger.check(fetcher(url))
        assert not complaints, f"through {name}: {complaints}"


def test_a_rolling_upgrade_under_traffic(release: Release) -> None:
    ledger = Ledger()
    with running(**CALM) as cluster:
        assert formats(cluster) == everywhere(cluster, FORMAT_VERSION)
        leader = cluster.leader()
        first, second = (node for node in cluster.nodes if node != leader)
        with traffic(cluster, ledger) as more:
            replace(cluster, first, release)
            more()
            known = {first: NEXT_FORMAT, second: FORMAT_VERSION, leader: FORMAT_VERSION}
            wait_until("the leader to have heard of all", lambda: newest_formats(cluster.node_urls[leader]) == known)
            _check_that_the_new_leads_the_old(cluster, first, more)
            more()
            replace(cluster, first, None)  # the way back is open
            more()
            leader = cluster.leader()
            first, second = (node for node in cluster.nodes if node != leader)
            for node in (first, second):
                replace(cluster, node, release)
                more()
            assert formats(cluster) == everywhere(cluster, FORMAT_VERSION), "switched before the last one ran it"
            cluster.stop(leader)
            more()
            # One of the new ones leads. The last one is away, and might come back with either code.
            assert formats(cluster) == {**everywhere(cluster, FORMAT_VERSION), leader: None}
            early = make_directory(cluster, "/early-labelled")
            assert (early.status, early.code, early.outcome) == (409, "upgrade_unfinished", "not_applied"), str(early)
            cluster.start(leader, program=release.program)
            wait_until("the switch", lambda: formats(cluster) == everywhere(cluster, NEXT_FORMAT))
            more()
            for path in ("/late-labelled", "/late-stamped"):
                made = make_directory(cluster, path)
                assert made.status == 201, str(made)
            more()
        assert not ledger.noticed()
        check(cluster, ledger)
        entries = [entry for entry in ask(cluster.url, "GET", "/v1/dirs/").json["entries"] if "label" in entry["path"]]
        assert [(entry["path"], entry["metadata"]) for entry in entries] == [("/late-labelled", {"label": "new"})]
        _check_the_way_back_is_closed(cluster, release)


def _check_that_the_new_leads_the_old(cluster: LocalCluster, new: str, more: Callable[[], None]) -> None:
    """What it writes into the log, the others understand; what they would not, it refuses."""
    _hand_over_to(cluster, new)
    more()
    early = make_directory(cluster, "/early-labelled")
    assert (early.status, early.code, early.outcome) == (409, "upgrade_unfinished", "not_applied"), str(early)
    assert make_directory(cluster, "/plain").status == 201
    again = make_directory(cluster, "/plain")
    assert again.status in (200, 409), str(again)
    assert cluster.leader() == new


def _check_the_way_back_is_closed(cluster: LocalCluster, release: Release) -> None:
    node = next(node for node in cluster.nodes if node != cluster.leader())
    cluster.stop(node)
    refused = run_old(cluster, node)
    print(refused.stderr[-600:])
    assert refused.returncode == exitcodes.OTHER_VERSION
    assert f"has format {NEXT_FORMAT}, this raftfs understands up to {FORMAT_VERSION}: install" in refused.stderr
    cluster.start(node, program=release.program)
    level(cluster)


def test_a_new_cluster_of_two_releases_begins_with_the_older_format(release: Release) -> None:
    ledger = Ledger()
    with running(**CALM) as cluster:
        for node in cluster.nodes:
            cluster.stop(node)
        for node in cluster.nodes:
            shutil.rmtree(cluster.data_dir(node))
        for node, program in zip(cluster.nodes, (release.program, None, release.program), strict=True):
            cluster.start(node, program=program, wait=False)
        cluster.wait_ready()
        with traffic(cluster, ledger):
            assert formats(cluster) == everywhere(cluster, FORMAT_VERSION)
        check(cluster, ledger)


def test_a_leader_that_switches_too_early_stops_the_others_and_loses_nothing(release: Release, tmp_path: Path) -> None:
    """The planted bug: the new release's leader does not wait for the members that run the old one."""
    hasty = make_release(tmp_path / "hasty", *NEXT, HASTY)
    ledger = Ledger()
    with running(**CALM) as cluster:
        upgraded = next(node for node in cluster.nodes if node != cluster.leader())
        old = [node for node in cluster.nodes if node != upgraded]
        with traffic(cluster, ledger):
            replace(cluster, upgraded, hasty)
            _hand_over_to(cluster, upgraded)
            # One that has not heard yet that the switch is committed may be turned away before it would stop.
            for node in old:
                wait_until(f"{node} to say why it stops", lambda node=node: _stopped_or_refused(cluster, node))
        for node in old:
            if cluster.process(node) is None:
                assert f"the cluster switches to format {NEXT_FORMAT}, this raftfs understands" in _log(cluster, node)
            else:
                cluster.stop(node)
            # However often it is started: it stops again, or is refused, and never goes on as if nothing had been.
            cluster.start(node, wait=False)
        for node in old:
            wait_until(f"{node} to say why it does not go on", lambda node=node: _stopped_or_refused(cluster, node))
        for node in old:
            if cluster.process(node) is not None:
                cluster.stop(node)
            cluster.start(node, program=release.program, wait=False)
        wait_until("all to follow", lambda: formats(cluster) == everywhere(cluster, NEXT_FORMAT))
        check(cluster, ledger)


def _hand_over_to(cluster: LocalCluster, wanted: str) -> None:
    """A member that is behind does not take over in time; then it is asked again."""
    with cluster.client() as client:

        def leads() -> bool:
            try:
                client.cluster_transfer(wanted)
            except (Unavailable, UnknownOutcome):
                return False
            return True

        wait_until(f"{wanted} to lead", leads)


def _log(cluster: LocalCluster, node: str) -> str:
    return cluster.log_tail(node, LOG_LINES)


def _stopped_or_refused(cluster: LocalCluster, node: str) -> bool:
    if cluster.process(node) is None:
        return True
    try:
        refusals = [member["refused"] or "" for member in status_of(cluster.node_urls[node])["members"]]
    except (OSError, http.client.HTTPException):
        return False
    switched = f"the cluster has switched to format {NEXT_FORMAT}, and the raftfs of {node} understands"
    return any(switched in refusal for refusal in refusals)
