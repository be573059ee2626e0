"""One file written and read through different nodes at once: a single order must explain all that anybody saw."""

from __future__ import annotations

import http.client
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from raftfs.testing import LocalCluster

from .clusters import running, wait_until
from .ledger import classify
from .linearizability import NEVER, Operation, is_linearizable
from .web import get, put


def _op(kind: str, value: str | None, begin: float, end: float) -> Operation:
    return Operation(kind, value, begin, end)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [_op("write", "a", 0, 1), _op("read", "a", 2, 3)],
        [_op("write", "a", 0, 5), _op("read", None, 1, 2), _op("read", "a", 3, 4)],
        [_op("write", "a", 0, 9), _op("write", "b", 1, 9), _op("read", "b", 2, 3), _op("read", "a", 4, 5)],
        [_op("write", "a", 0, NEVER), _op("read", None, 1, 2), _op("read", "a", 8, 9)],
        [_op("write", "a", 0, NEVER), _op("write", "b", 1, 2), _op("read", "b", 3, 4), _op("read", "a", 5, 6)],
    ],
)
def test_the_checker_accepts_what_an_order_explains(history: list[Operation]) -> None:
    assert is_linearizable(history)


@pytest.mark.parametrize(
    "history",
    [
        [_op("read", "a", 0, 1)],  # nobody wrote it
        [_op("write", "a", 0, 1), _op("read", None, 2, 3)],  # lost
        [_op("write", "a", 0, 1), _op("write", "b", 2, 3), _op("read", "a", 4, 5)],  # stale
        [_op("write", "a", 0, 9), _op("read", "a", 1, 2), _op("read", None, 3, 4)],  # seen, then unseen
        [_op("write", "a", 0, NEVER), _op("read", "a", 1, 2), _op("read", None, 3, 4)],
        [_op("write", "a", 2, 3), _op("read", "a", 0, 1)],  # seen before it was written
    ],
)
def test_the_checker_rejects_what_no_order_explains(history: list[Operation]) -> None:
    assert not is_linearizable(history)


class _Recorder:
    """Clients of one file, each with a door of its own, and what they did and saw."""

    def __init__(self, doors: dict[str, str], path: str) -> None:
        self._doors, self._path = doors, path
        self.history: list[Operation] = []
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._lock = threading.Lock()

    def run(self, operations: int, meanwhile: Callable[[], None]) -> list[Operation]:
        """Two readers and a writer at each door until there are so many operations and ``meanwhile`` has returned."""
        todo = [(self._write, door) for door in self._doors] + [(self._read, door) for door in self._doors] * 2
        threads = [threading.Thread(target=self._repeat, args=one, daemon=True) for one in todo]
        for thread in threads:
            thread.start()
        try:
            meanwhile()
            wait_until("enough operations", lambda: self._failed or len(self.history) >= operations)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)
        assert not self._failed, self._failed
        return self.history

    def _repeat(self, step: Callable[[str, str], Operation | None], door: str) -> None:
        try:
            while not self._stop.is_set():
                operation = step(door, self._doors[door])
                if operation is None:
                    time.sleep(0.02)
                    continue
                with self._lock:
                    self.history.append(operation)
                time.sleep(0.005)
        except BaseException as error:
            self._failed.append(error)

    def _write(self, door: str, url: str) -> Operation | None:
        value, begin = secrets.token_hex(8), time.monotonic()
        try:
            outcome = classify(put(url, self._path, value.encode()))[0]
        except ConnectionRefusedError:
            return None
        except (OSError, http.client.HTTPException):
            outcome = "unknown"
        if outcome == "refused":
            return None  # if its value is read nevertheless, no order explains that
        return Operation("write", value, begin, time.monotonic() if outcome == "acknowledged" else NEVER, door)

    def _read(self, door: str, url: str) -> Operation | None:
        begin = time.monotonic()
        try:
            answer = get(url, self._path)
        except (OSError, http.client.HTTPException):
            return None
        if answer.status not in (200, 404):
            assert answer.status in (503, 504), str(answer)
            return None
        value = answer.body.decode() if answer.status == 200 else None
        return Operation("read", value, begin, time.monotonic(), door)


def _undisturbed(cluster: LocalCluster) -> None:
    pass


def _kill_and_freeze(cluster: LocalCluster) -> None:
    time.sleep(0.5)
    dead = cluster.leader()
    cluster.kill(dead)
    time.sleep(1)
    cluster.start(dead)
    frozen = cluster.leader()
    cluster.pause(frozen)
    time.sleep(1.5)
    cluster.resume(frozen)
    time.sleep(0.5)


@pytest.mark.parametrize("fault", [_undisturbed, _kill_and_freeze], ids=["undisturbed", "kill-and-freeze"])
def test_reads_and_writes_of_one_file_through_all_nodes(fault: Callable[[LocalCluster], None]) -> None:
    with running() as cluster:
        doors = {**cluster.node_urls, "frontend": cluster.url}
        history = _Recorder(doors, "/register").run(400, lambda: fault(cluster))
    reads = [operation for operation in history if operation.kind == "read"]
    unknown = sum(operation.end == NEVER for operation in history)
    print(
        f"{len(history)} operations, {len(reads)} of them reads, {unknown} of unknown outcome: an order explains them"
    )
    assert reads
    assert is_linearizable(history), "\n".join(map(str, sorted(history, key=lambda one: one.begin)))
    stale = _with_a_stale_read(history)
    assert not is_linearizable(stale), "the checker does not see a planted stale read"


def _with_a_stale_read(history: list[Operation]) -> list[Operation]:
    """The history with its last read, moved to the very end, seeing what the first writer wrote long before."""
    first = min((one for one in history if one.kind == "write" and one.end != NEVER), key=lambda one: one.end)
    later = max(one.begin for one in history) + 1000
    last_write = Operation("write", "the last one", later, later + 1)
    return [*history, last_write, replace(first, kind="read", begin=later + 2, end=later + 3)]
