"""Readers in threads beside the writer: each sees whole entries, in order, and never waits or fails."""

from __future__ import annotations

import threading
from pathlib import Path

from raftfs.state import CommitFile, Envelope, Reader, StateMachine, encode
from raftfs.versions import FORMAT_VERSION

ENTRIES = 300


def read_until_the_end(path: Path, failures: list[str], seen: list[int]) -> None:
    reader = Reader(path)
    try:
        revision = -1
        while revision < 2 * ENTRIES:
            with reader.snapshot():
                applied = reader.applied()
                first, second = reader.open("/one"), reader.open("/two")
            if applied.revision < revision:
                failures.append(f"went back from {revision} to {applied.revision}")
            revision = applied.revision
            contents = {file.data if file else None for file in (first, second)}
            expected = None if applied.index == 0 else b"%d" % applied.index
            if contents != {expected}:
                failures.append(f"at entry {applied.index}: {contents}")
            page = reader.list("/", limit=10)
            if len(page.entries) != (2 if page.revision else 0):
                failures.append(f"half an entry in {page}")
            seen.append(applied.index)
    except Exception as error:
        failures.append(repr(error))
    finally:
        reader.close()


def test_two_readers_beside_the_writer(tmp_path: Path) -> None:
    machine = StateMachine(tmp_path / "state.db", version=FORMAT_VERSION)
    failures: list[str] = []
    seen: list[list[int]] = [[], []]
    threads = [threading.Thread(target=read_until_the_end, args=(tmp_path / "state.db", failures, s)) for s in seen]
    for thread in threads:
        thread.start()
    for index in range(1, ENTRIES + 1):
        data = b"%d" % index
        commands = [encode(Envelope(CommitFile(path, len(data), data=data), index)) for path in ("/one", "/two")]
        machine.apply(index, 1, commands)
        if index % 100 == 0:
            machine.checkpoint()
    for thread in threads:
        thread.join()
    machine.close()
    assert failures == []
    assert all(indexes[-1] == ENTRIES for indexes in seen)
