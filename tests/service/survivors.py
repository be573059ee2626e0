"""Data directories of stopped nodes, written by the same parts as a node's."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from raftfs.chunks import ChunkStore, hash_chunk
from raftfs.consensus import NO_OP, Configuration, Journal, MemberRecord, encode_configuration
from raftfs.consensus.guard import COMMANDS
from raftfs.consensus.proposals import encode_batch
from raftfs.service.datadir import Identity, write_identity
from raftfs.state import (
    Command,
    CommitFile,
    Envelope,
    StateMachine,
    SwitchVersion,
    UploadBegin,
    UploadChunk,
    encode,
    required_version,
)
from raftfs.state.commands import ChunkRef
from raftfs.versions import FORMAT_VERSION, UNDECIDED

BIG = [bytes([n]) * 100_000 for n in range(3)]
REFS = [ChunkRef(hash_chunk(data), len(data)) for data in BIG]
BIG_BYTES = sum(map(len, BIG))
MEMBERS = Configuration(
    tuple(
        MemberRecord(f"n{n}", f"127.0.0.1:{7410 + n}", f"http://127.0.0.1:{7400 + n}", f"uuid-{n}") for n in (1, 2, 3)
    )
)
TERM = 4


class Log:
    """The log of a node in the making, and its state."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True)
        self.data_dir, self.now_ms = data_dir, 1_000
        self._journal = Journal(data_dir / "journal")
        self._journal.setCurrentTerm(TERM, "n2")
        self._state = StateMachine(data_dir / "state.db")
        self.chunks = ChunkStore(data_dir / "chunks")

    @property
    def last_index(self) -> int:
        return self._journal.last_index

    def add(self, *commands: Command, configuration: Configuration | None = None, applied: bool = True) -> int:
        """An entry of these commands, of a configuration, or of nothing; its index."""
        self.now_ms += 1
        index, encoded = self.last_index + 1, [self._encode(command) for command in commands]
        members = None if configuration is None else encode_configuration(configuration)
        data = members or (bytes([COMMANDS]) + encode_batch(encoded) if commands else NO_OP)
        self._journal.add(data, index, TERM)
        if applied:
            self._state.apply(index, TERM, encoded, members)
        return index

    def _encode(self, command: Command) -> bytes:
        return encode(Envelope(command, self.now_ms, format=required_version(command)))

    def close(self) -> None:
        self._journal.flush()
        self._journal.close()
        self._state.close()


def begin(data_dir: Path, number: int = 3, members: Configuration = MEMBERS) -> Log:
    """Node n3 of n1, n2 and n3, with a small and a large file, and an unfinished upload."""
    log = Log(data_dir)
    write_identity(data_dir, Identity(f"uuid-{number}", f"n{number}", "c"))
    log.add()
    log.add(configuration=members)
    log.add(SwitchVersion(UNDECIDED, FORMAT_VERSION))
    log.add(CommitFile("/small", 5, data=b"small"))
    log.add(UploadBegin("/big", 1_000_000))
    for number, (data, ref) in enumerate(zip(BIG, REFS, strict=True)):
        log.chunks.put(ref.digest, data)
        log.add(UploadChunk(2, number * ref.length, ref))
    log.add(CommitFile("/big", BIG_BYTES, upload=2))
    log.add(UploadBegin("/unfinished", 1_000_000))
    log.add(UploadChunk(3, 0, REFS[0]))
    return log


def whole(data_dir: Path) -> Path:
    """A survivor whose log is applied to its end."""
    with closing(begin(data_dir)):
        return data_dir


def in_doubt(data_dir: Path) -> Path:
    """A survivor whose log goes on beyond what it knows to be committed."""
    with closing(begin(data_dir)) as log:
        log.add(CommitFile("/small", 3, data=b"new"), CommitFile("/tail", 4, data=b"tail"), applied=False)
        log.add(applied=False)
        return data_dir
