"""How fast a state machine applies and looks up, without a network, a log or durability.

usage: python bench/state.py [entries]        (default 200 entries of 100 commits of 4 KiB each)
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from raftfs.state import CommitFile, Envelope, MakeDirectory, Reader, StateMachine, encode
from raftfs.versions import FORMAT_VERSION

BATCH = 100
FILE_BYTES = 4096
DIRECTORIES = 10
LOOKUPS = 20_000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        machine, reader = (
            StateMachine(Path(folder) / "state.db", version=FORMAT_VERSION),
            Reader(Path(folder) / "state.db"),
        )
        directories = [MakeDirectory(f"/a/b{number}", parents=True) for number in range(DIRECTORIES)]
        machine.apply(1, 1, [encode(Envelope(command, 1)) for command in directories])
        entries = [[commit(entry * BATCH + number) for number in range(BATCH)] for entry in range(count)]
        wall, cpu = time.perf_counter(), time.process_time()
        for index, entry in enumerate(entries, 2):
            machine.apply(index, 1, entry)
        show("apply, per file", count * BATCH, wall, cpu)
        targets = [path_of(number * 7919 % (count * BATCH)) for number in range(LOOKUPS)]
        for name, read in (("stat", reader.stat), ("open", reader.open)):
            wall, cpu = time.perf_counter(), time.process_time()
            for path in targets:
                read(path)
            show(name, LOOKUPS, wall, cpu)
        reader.close()
        machine.close()
        megabytes = (Path(folder) / "state.db").stat().st_size / 1e6
        wall = time.perf_counter()
        machine = StateMachine(Path(folder) / "state.db")
        print(f"open: {time.perf_counter() - wall:.2f} s for {megabytes:,.0f} MB, each page compared with its checksum")
        machine.close()


def path_of(number: int) -> str:
    return f"/a/b{number % DIRECTORIES}/file-{number}"


def commit(number: int) -> bytes:
    command = CommitFile(path_of(number), FILE_BYTES, data=os.urandom(FILE_BYTES))
    return encode(Envelope(command, number, os.urandom(16).hex(), os.urandom(16)))


def show(what: str, count: int, wall: float, cpu: float) -> None:
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what}: {count / wall:,.0f}/s; {wall / count * 1e6:.1f} us, of which processor {cpu / count * 1e6:.1f} us")


if __name__ == "__main__":
    main()
