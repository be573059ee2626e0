"""A process of its own for tests: applies entries from a file to a state database.

usage: replay.py STATE ENTRIES [FORMAT]; ENTRIES is msgpack, a list of lists of envelopes, FORMAT the one with which a
new database begins. Each index is printed when its entry is applied, and the state hash at the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from raftfs.state import StateMachine
from raftfs.versions import FORMAT_VERSION


def main() -> None:
    entries = msgspec.msgpack.decode(Path(sys.argv[2]).read_bytes(), type=list[list[bytes]])
    machine = StateMachine(Path(sys.argv[1]), version=int(sys.argv[3]) if len(sys.argv) > 3 else FORMAT_VERSION)
    for index, commands in enumerate(entries, 1):
        if index > machine.applied_index:
            machine.apply(index, 1, commands)
            print(index, flush=True)
    print(machine.state_hash.hex(), flush=True)
    machine.close()


if __name__ == "__main__":
    main()
