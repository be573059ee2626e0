"""One file written and read through different nodes at once: a single order must explain all that anybody saw."""

from __future__ import annotations

import http.client
import secrets
import threading
import time
from collections.abc import Callable

import pytest

from raftfs.http import names
from raftfs.testing import LocalCluster
from raftfs.testing import history as h
from raftfs.testing.history import NEVER, Operation
from raftfs.testing.linearizability import check, revision_faults

from .clusters import running, wait_until
from .ledger import classify
from .web import Answer, get, put


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
        call, begin = h.Write(self._path, secrets.token_hex(8)), time.monotonic()
        try:
            answer = put(url, self._path, call.value.encode())
        except ConnectionRefusedError:
            return None
        except (OSError, http.client.HTTPException):
            return Operation(call, None, begin, NEVER, door)
        outcome = classify(answer)[0]
        if outcome == "refused":
            return None  # if its value is read nevertheless, no order explains that
        if outcome == "unknown":
            return Operation(call, None, begin, NEVER, door)
        result = h.CREATED if answer.status == 201 else h.REPLACED
        return Operation(call, result, begin, time.monotonic(), door, _revision(answer))

    def _read(self, door: str, url: str) -> Operation | None:
        begin = time.monotonic()
        try:
            answer = get(url, self._path)
        except (OSError, http.client.HTTPException):
            return None
        if answer.status not in (200, 404):
            assert answer.status in (503, 504), str(answer)
            return None
        result = answer.body.decode() if answer.status == 200 else h.MISSING
        return Operation(h.Read(self._path), result, begin, time.monotonic(), door, _revision(answer))


def _revision(answer: Answer) -> int | None:
    text = answer.headers.get(names.REVISION.lower())
    return None if text is None else int(text)


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
    reads = [one for one in history if isinstance(one.call, h.Read)]
    unknown = sum(not one.known for one in history)
    print(
        f"{len(history)} operations, {len(reads)} of them reads, {unknown} of unknown outcome: an order explains them"
    )
    assert reads
    verdict = check(history)
    assert verdict.linearizable, "\n".join(map(str, verdict.violations))
    assert not revision_faults(history)
    assert check(_with_a_stale_read(history)).violations, "the checker does not see a planted stale read"


def _with_a_stale_read(history: list[Operation]) -> list[Operation]:
    """The history with two more operations, long after: a write, and then a read that sees what the first write wrote
    long before."""
    first = min((one for one in history if isinstance(one.call, h.Write) and one.known), key=lambda one: one.end)
    assert isinstance(first.call, h.Write)
    later = max(one.begin for one in history) + 1000
    last = Operation(h.Write(first.call.path, "the-last-one"), h.REPLACED, later, later + 1)
    return [*history, last, Operation(h.Read(first.call.path), first.call.value, later + 2, later + 3)]
