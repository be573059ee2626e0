"""Real inputs, from the real encoders: ``python -m tests.fuzz.seeds`` writes them into the corpus (``real-*``)."""

from __future__ import annotations

import json
import struct
import tempfile
from contextlib import closing
from pathlib import Path

import msgspec
from blake3 import blake3

from raftfs.chunks import hash_chunk
from raftfs.consensus import messages as m
from raftfs.consensus.compatibility import our_versions
from raftfs.consensus.guard import NO_OP
from raftfs.consensus.journal import Journal
from raftfs.consensus.peers import Hello
from raftfs.consensus.proposals import encode_batch
from raftfs.consensus.rejoinfile import Content, RejoinFile
from raftfs.consensus.termfile import TermFile
from raftfs.service.datadir import Identity, write_identity
from raftfs.service.recovery import Recovery, SurveyMember, encode_recovery
from raftfs.service.snapshots import announce
from raftfs.state import StateMachine, copy_database
from raftfs.state.commands import (
    ChunkRef,
    Command,
    CommitFile,
    Copy,
    Envelope,
    MakeDirectory,
    Remove,
    Rename,
    SetMetadata,
    UploadAbort,
    UploadBegin,
    UploadChunk,
    UploadExpire,
    encode,
)
from raftfs.state.listing import Query, encode_cursor
from raftfs.versions import FORMAT_VERSION

from .mutate import CORPUS

JOURNAL_ENTRIES = {
    index: (1 + index // 4, NO_OP if index % 4 == 0 else b"\x10" + bytes([index]) * (3 * index))
    for index in range(1, 13)
}
VOTE = (7, "n3")
KEPT_CHUNK = b"a chunk that is there"
RECOVERY = Recovery(
    time_ms=1_700_000_000_000, id="n1", cluster_id="c", peer="127.0.0.1:7411", url="http://127.0.0.1:7401", uuid="new",
    old_uuid="old", index=12, term=1_000_003, last_term=3,
    former=[SurveyMember("n1", "127.0.0.1:7411", "http://127.0.0.1:7401", "old", voter=True)],
)  # fmt: skip
REJOINS = [
    Content("terms", 1_700_000_000_000, ["journal/term: both copies are damaged"]),
    Content("log", 1_700_000_000_001, ["journal/000000000001.segment: damaged record at offset 32"]),
    Content("state", 1_700_000_000_002, []),
]
COPY_INDEX_TERM = (4, 1)
_COMMANDS: list[Command] = [
    MakeDirectory("/d/e", parents=True, exist_ok=True),
    CommitFile("/d/f", 3, data=b"abc", metadata={"a": "b"}, parents=True, if_absent=True),
    CommitFile("/g", 0, data=b"", content_type="text/plain", if_match=3),
    Copy("/d", "/copy", replace=True),
    Rename("/d/f", "/h", parents=True, if_match=2),
    SetMetadata("/h", {"a": None, "c": "d"}, "text/html"),
    UploadBegin("/u", 60_000),
    UploadChunk(1, 0, ChunkRef(bytes(range(32)), 1000)),
    CommitFile("/u", 1000, upload=1),
    UploadAbort(2),
    UploadExpire(),
    Remove("/copy", "directory", recursive=True),
]
_HELLOS = [
    Hello("c", "b", "a", "raft", our_versions(), "ub", False),
    Hello("c", "b", "a", "bulk", our_versions(), "ub", True),
    Hello("c", "b", "a", "raft", our_versions(), "another", True),
    Hello("c", "x", "a", "raft", our_versions(), "ux", False),
    Hello("another", "b", "n1", "raft", our_versions(7), "ub", False),
]
FURNITURE = [
    encode(Envelope(CommitFile(f"/{name}", 1, data=b"x", parents=True), 1)) for name in ("a/b", "a/c", "d", "e")
]


def journal_files() -> dict[str, bytes]:
    """Two segments and the term, of a log with JOURNAL_ENTRIES."""
    global _journal
    if not _journal:
        with tempfile.TemporaryDirectory() as folder:
            with closing(Journal(Path(folder), segment_bytes=400)) as journal:
                for index, (term, data) in JOURNAL_ENTRIES.items():
                    journal.add(data, index, term)
                    if index % 2:
                        journal.flush()
                journal.flush()
            _journal = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return dict(_journal)


_journal: dict[str, bytes] = {}


def _copy_of_state() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "state.db", Path(folder) / "copy.db"
        with closing(StateMachine(source, version=FORMAT_VERSION)) as machine:
            for index, entry in enumerate(FURNITURE, 1):
                machine.apply(index, 1, [entry])
            copy_database(source, target)
        return target.read_bytes()


COPY = _copy_of_state()


def _messages() -> list[m.Message]:
    entries = [m.WireEntry(1, NO_OP), m.WireEntry(2, b"\x10" + encode_batch([b"one", b"two"]))]
    return [
        m.Append(1, 9, 4, 1, 4, []), m.Append(2, 1, 5, 1, 5, entries), m.Append(1, 3, 1, 1, 2, entries[:1]),
        m.Behind(1, 4), m.AppendAck(1, 1, 4, False), m.AppendAck(1, 1, 2, True), m.VoteRequest(2, 9, 1),
        m.VoteRequest(2, 9, 1, True), m.PreVote(2, 9, 1), m.PreVoteGrant(2), m.TimeoutNow(1), m.VoteGrant(1),
        m.StaleTerm(3), m.Probe(1, 7), m.ProbeAck(1, 7), m.ReadIndexRequest(1, 7), m.ReadIndexAnswer(1, 7, None),
        m.ReadIndexAnswer(1, 7, 3),
    ]  # fmt: skip


def _term() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with closing(TermFile(Path(folder) / "term")) as file:
            file.set(*VOTE)
        return (Path(folder) / "term").read_bytes()


def _identity() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_identity(Path(folder), Identity("6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "n1", "c"))
        return (Path(folder) / "node.json").read_bytes()


def _mark(content: Content) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        RejoinFile(Path(folder)).add(content.stage, content.damaged, now_ms=content.since_ms)
        return (Path(folder) / "rejoin.json").read_bytes()


def _ready() -> bytes:
    index, term = COPY_INDEX_TERM
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ready.json"
        announce(path, index, term, blake3(COPY).digest())
        return path.read_bytes()


def _bulk(header: list[object], payload: bytes) -> bytes:
    packed = msgspec.msgpack.encode(header)
    return struct.pack(">H", len(packed)) + packed + payload


_ENTRY = {
    "path": "/f", "name": "f", "type": "file", "size": 1, "revision": 7, "created_ms": 1, "modified_ms": 2,
    "content_type": None, "metadata": {"a": "b"},
}  # fmt: skip
_PROBLEM = {
    "type": "about:blank",
    "title": "t",
    "status": 503,
    "detail": "d",
    "code": "unavailable",
    "outcome": "unknown",
}
_CLUSTER = {
    "cluster_id": "c", "revision": 1, "term": 2, "leader": None, "quorum": False,
    "members": [{"id": "n1", "url": "http://a", "peer": "a:1", "role": "leader", "reachable": True, "applied_index": 1,
                 "lag": 0, "missing_chunks": 0}],
}  # fmt: skip
_REQUESTS = [
    "GET /v1/files/a/b?consistency=stale&revision=1 HTTP/1.1\r\nHost: test\r\nRange: bytes=0-3\r\n\r\n",
    "HEAD /v1/files/a HTTP/1.1\r\nHost: test\r\nIf-None-Match: \"r1\"\r\n\r\n",
    "GET /v1/dirs/?limit=2&recursive=true&glob=%2A.py&cursor=abc HTTP/1.1\r\nHost: test\r\n\r\n",
    "PUT /v1/files/n%C3%A4me?parents=true&ack=quorum HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n"
    "Idempotency-Key: k1\r\nRaftfs-Meta-A: b%20c\r\nIf-Match: \"r1\"\r\nRaftfs-Timeout: 2\r\n\r\nhello",
    "PUT /v1/files/c HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "PUT /v1/files/d HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n"
    "Repr-Digest: sha-256=:LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=:\r\n\r\nx",
    "POST /v1/rename HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n"
    '{"from": "/a", "to":"/b"}',
    "PATCH /v1/files/a HTTP/1.1\r\nHost: test\r\nContent-Length: 24\r\n\r\n" '{"metadata": {"a": null}}'[:24],
    "DELETE /v1/dirs/a?recursive=true HTTP/1.1\r\nHost: test\r\nOrigin: http://test\r\n\r\n",
    "GET /v1/cluster HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
    "GET /readyz?verbose HTTP/1.0\r\n\r\n",
]  # fmt: skip
_ANSWERS = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"r5\"\r\nRaftfs-Revision: 9\r\n\r\nhello",
    f"HTTP/1.1 201 Created\r\nETag: \"r7\"\r\nContent-Length: {len(json.dumps(_ENTRY))}\r\n\r\n{json.dumps(_ENTRY)}",
    f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRaftfs-Error: unavailable\r\n"
    f"Raftfs-Outcome: not_applied\r\nRetry-After: 1\r\nContent-Length: {len(json.dumps(_PROBLEM))}\r\n\r\n"
    f"{json.dumps(_PROBLEM)}",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
]  # fmt: skip


def real() -> dict[str, list[bytes]]:
    """Target to inputs. What a first byte chooses is told by the target."""
    stream = b"".join(struct.pack(">I", size) + bytes(size) for size in (0, 1, 5, 1000, 3))
    raft = [m.encode(message) for message in _messages()]
    lists = [(b"\0\0", Query("/", False, None), ["a"]), (b"\0\xff", Query("/", True, None), ["a", "b"])]
    page = {"entries": [_ENTRY], "next": None, "revision": 3}
    texts = [json.dumps(value).encode() for value in (_ENTRY, _PROBLEM, _CLUSTER, page)]
    segments = [content for name, content in sorted(journal_files().items()) if name.endswith(".segment")]
    return {
        "frames": [stream, struct.pack(">I", 2001) + bytes(2001), stream[:-1]],
        "bulk": [
            _bulk([1, "echo"], b"payload"),
            _bulk([1, None, ""], b"answer"),
            _bulk([1, "unavailable", "why"], b""),
            _bulk([1, "not_found", "x"], b""),
        ],
        "greetings": [msgspec.msgpack.encode(hello) for hello in _HELLOS],
        "handlers": [
            b"\0" + bytes(32),
            b"\1" + bytes(32) + b"chunk",
            b"\2" + bytes(64),
            b"\3" + msgspec.msgpack.encode([1, 0]),
            b"\0" + hash_chunk(KEPT_CHUNK),
            b"\1" + hash_chunk(b"another") + b"another",
        ],
        "messages": [bytes([way]) + raw for raw in raft for way in (0, 1, 3)],
        "journal": [bytes([number]) + content for number, content in enumerate(segments)],
        "term": [_term()],
        "identity": [_identity()],
        "rejoin": [_mark(content) for content in REJOINS],
        "recovery": [encode_recovery(RECOVERY)],
        "snapshot": [_ready()],
        "commands": [encode(Envelope(c, 5, f"k{n}", b"f")) for n, c in enumerate(_COMMANDS)],
        "cursors": [prefix + _cursor(query, last) for prefix, query, last in lists],
        "bodies": [b"\xc8\0" + text for text in texts],
        "http": [request.encode() for request in _REQUESTS],
        "answers": [answer.encode() for answer in _ANSWERS],
    }


def _cursor(query: Query, last: list[str]) -> bytes:
    import base64

    text = encode_cursor(query, 4, last)
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def write() -> None:
    """Write them anew; what was found before stays."""
    for target, values in real().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("real-*"):
            old.unlink()
        for number, value in enumerate(values):
            (folder / f"real-{number:02}.bin").write_bytes(value)


if __name__ == "__main__":
    write()
