"""Clusters of real processes for one test, and waiting for what they must come to by themselves."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any, TypeVar

from raftfs.testing import LocalCluster

from .machine import check_chunks
from .web import status_of

WAIT_S_MAX = 120.0
"""How long a cluster may take for what it must do on its own. Only a bound for the test, not a measurement."""

_POLL_S = 0.02
_LOG_LINES = 40
_Value = TypeVar("_Value")

QUICK: dict[str, Any] = {"backfill_period_s": 0.3, "collect_period_s": 0.5}
"""Housekeeping that a test can wait for."""

CALM: dict[str, Any] = {
    "times": {"heartbeat_ms": 100, "election_timeout_ms_min": 1500, "election_timeout_ms_max": 2500}
}
"""For tests that are not about elections, and to which one is a lawful reason to fail: on a machine that is busy with
other things none happens by itself."""


@contextmanager
def running(dir: Path | None = None, **options: Any) -> Iterator[LocalCluster]:
    """Three nodes and a frontend. If the test fails, the ends of their logs are printed."""
    with LocalCluster(nodes=3, dir=dir, **{**QUICK, **options}) as cluster:
        try:
            yield cluster
        except BaseException:
            for name in [*cluster.nodes, "frontend"]:
                print(f"--- log of {name} (pid {cluster.pid(name)})\n{cluster.log_tail(name, _LOG_LINES)}")
            raise


def wait_until(what: str, check: Callable[[], _Value], timeout_s: float = WAIT_S_MAX) -> _Value:
    """The first true value of ``check``; AssertionError with the last one if it does not come."""
    deadline = time.monotonic() + timeout_s
    while not (value := check()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}; last seen: {value!r}"
        time.sleep(_POLL_S)
    return value


def settle(cluster: LocalCluster) -> None:
    """Wait until all nodes are level; then each disk must hold, undamaged, what the state refers to."""
    level(cluster)
    numbers = {node: check_chunks(cluster.data_dir(node)) for node in cluster.nodes}
    print(f"settled: equal state hash everywhere, chunks on disk {numbers}")
    assert len(set(numbers.values())) == 1


def level(cluster: LocalCluster) -> None:
    """Wait until every node says that all nodes have applied the same log and lack no chunk. Then their state must be
    one and the same."""
    seen: list[str] = []

    def settled() -> bool:
        views = {node: _view(url) for node, url in cluster.node_urls.items()}
        seen[:] = [f"{node}: {_short(view)}" for node, view in views.items()]
        indices = {view["applied_index"] if view else None for view in views.values()}
        if len(indices) > 1 or not all(view and _is_level(view) for view in views.values()):
            return False
        hashes = {node: view["state_hash"] for node, view in views.items() if view}
        assert len(set(hashes.values())) == 1, f"the states differ at index {indices}: {hashes}"
        return True

    try:
        wait_until("all nodes to be level", settled)
    except AssertionError as error:
        raise AssertionError(f"{error}; {seen}") from None


def _view(url: str) -> dict[str, Any] | None:
    """The cluster as one node sees it; None while that node is still starting."""
    try:
        return status_of(url)
    except (OSError, http.client.HTTPException):
        return None


def _is_level(view: dict[str, Any]) -> bool:
    return all(
        member["reachable"] and member["lag"] == 0 and member["missing_chunks"] == 0 for member in view["members"]
    )


def _short(view: dict[str, Any] | None) -> str:
    keys = ("id", "reachable", "lag", "missing_chunks")
    return (
        "no answer"
        if view is None
        else f"applied {view['applied_index']} " + str([[member[key] for key in keys] for member in view["members"]])
    )


def kill_all(cluster: LocalCluster) -> None:
    """SIGKILL to all nodes, none of which sees another one die first."""
    processes = [process for node in cluster.nodes if (process := cluster.process(node))]
    for process in processes:
        process.send(SIGKILL)
    for process in processes:
        assert process.wait_gone(10)


def start_all(cluster: LocalCluster) -> None:
    for node in cluster.nodes:
        cluster.start(node, wait=False)
    cluster.wait_ready()
