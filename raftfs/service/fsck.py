"""Looking through a stopped node's data directory, and making one that is damaged fit to rejoin its cluster.

``examine`` reads everything with the product's own readers and changes nothing. ``repair`` first writes a durable mark
that this member rejoins (see ``consensus.rejoin``: it takes no part until it holds again what it promised), then moves
what is damaged into a folder beside it and begins the log anew where the state ends; the rest comes from the other
members after the next start. Each step may be interrupted: the mark comes first, and whoever repairs again goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from raftfs import fsync
from raftfs.chunks import hash_chunk
from raftfs.config import NodeConfig
from raftfs.consensus import NO_OP, Journal, RejoinFile, Stage, TermFile, decode_configuration
from raftfs.errors import ConfigError, CorruptData
from raftfs.service.datadir import Identity, read_identity, write_identity
from raftfs.service.snapshots import check_fetched
from raftfs.state import Applied, StateMachine, check_state

Found = TypeVar("Found")
Part = Literal["identity", "mark", "term", "journal", "state", "snapshot", "chunk"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One damage. ``detail`` names file and offset."""

    part: Part
    detail: str
    path: Path | None = None
    """of a damaged chunk"""


@dataclass(slots=True)
class Report:
    """What was found. ``log``: (first, last) index; ``applied``: what the state holds; None where it cannot be read."""

    data_dir: Path
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    log: tuple[int, int] | None = None
    applied: Applied | None = None
    chunks: int | None = None
    """how many were read"""

    def has(self, part: Part) -> bool:
        return any(finding.part == part for finding in self.findings)


def examine(data_dir: Path, *, chunks: bool = False) -> Report:
    """Look through the data directory of a stopped node (blocking). ``chunks``: through the bytes of all chunks, too.

    Raises OSError if something cannot be read, DataTooNew or DataTooOld.
    """
    report = Report(data_dir)
    _look(report, "identity", lambda: read_identity(data_dir))
    mark = _look(report, "mark", lambda: RejoinFile(data_dir))
    if mark is not None and mark.content is not None:
        report.notes.append(f"this member rejoins since its data were damaged: {'; '.join(mark.content.damaged)}")
    waits = _look(report, "snapshot", lambda: check_fetched(data_dir))
    _look(report, "term", lambda: _check_term(report))
    _check_log_and_state(report, snapshot_waits=bool(waits), marked=mark is None or mark.content is not None)
    if chunks:
        _check_chunks(report)
    return report


def _look(report: Report, part: Part, look: Callable[[], Found]) -> Found | None:
    try:
        return look()
    except CorruptData as error:
        report.findings.append(Finding(part, error.detail))
        return None


def _check_term(report: Report) -> None:
    folder = report.data_dir / "journal"
    fresh = not (report.data_dir / "node.json").exists() and not any(folder.glob("*.segment"))
    term = TermFile(folder / "term", may_begin=fresh, look=True)
    term.close()
    for offset in term.damaged_offsets:
        report.notes.append(
            f"{folder / 'term'}: the copy at offset {offset} cannot be read; the other one says as much, and the next "
            "start mends it"
        )


def _check_log_and_state(report: Report, *, snapshot_waits: bool, marked: bool) -> None:
    state = report.data_dir / "state.db"
    there = state.exists()
    if there:
        report.applied = _look(report, "state", lambda: check_state(state))
        if report.applied is None and not report.has("state"):
            report.notes.append(f"{state}-wal lost its end, which the database holds; the next start mends it")
    log = _look(report, "journal", lambda: _read_log(report.data_dir, None))
    if log is None:
        return
    report.log = log
    if not there and log[1] > 1 and not marked:
        report.findings.append(Finding("state", f"{state} is missing, from offset 0 on, beside a log"))
    elif (report.applied is not None or not there) and not snapshot_waits:
        applied = 0 if report.applied is None else report.applied.index
        _look(report, "journal", lambda: _read_log(report.data_dir, applied))


def _read_log(data_dir: Path, commit_floor: int | None) -> tuple[int, int]:
    journal = Journal(data_dir / "journal", commit_floor=commit_floor, look=True)
    try:
        return journal.first_index, journal.last_index
    finally:
        journal.close()


def _check_chunks(report: Report) -> None:
    report.chunks = 0
    for path in _chunk_files(report.data_dir / "chunks"):
        report.chunks += 1
        if hash_chunk(path.read_bytes()).hex() != path.name:
            detail = f"{path} does not have the digest that it is named by (from offset 0 to {path.stat().st_size})"
            report.findings.append(Finding("chunk", detail, path))


def _chunk_files(root: Path) -> Iterator[Path]:
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]")):
        yield from sorted(folder.iterdir())


# --- repairing -------------------------------------------------------------------------------------------------------


def repair(report: Report, config: NodeConfig | None) -> list[str]:
    """Make the directory of ``report`` fit to rejoin; returns what was done, in words. The caller holds its lock.

    Raises ConfigError if that takes another member and there is none, or a configuration and none was given.
    """
    return _Repair(report, config).run()


class _Repair:
    def __init__(self, report: Report, config: NodeConfig | None) -> None:
        self._report, self._config = report, config
        self._dir = report.data_dir
        self._aside = self._dir / time.strftime("damaged-%Y%m%dT%H%M%SZ", time.gmtime())
        self._done: list[str] = []

    def run(self) -> list[str]:
        report = self._report
        identity = self._found_identity() if report.has("identity") else None
        stage = self._stage()
        if stage in ("terms", "log") and self._config is not None and len(self._config.members) == 1:
            raise ConfigError("this node is the only member of its cluster: there is nobody to get its data from")
        if stage is not None:
            self._write_mark(stage)
        if report.has("snapshot") or stage is not None:
            self._move([self._dir / "snapshot"])
        if identity is not None:
            self._move([self._dir / "node.json"])
            write_identity(self._dir, identity)
        if report.has("term"):
            self._move([self._dir / "journal" / "term"])
            fsync.make_directory(self._dir / "journal")
            TermFile.create(self._dir / "journal" / "term")
        if self._renews_log():
            self._move(sorted((self._dir / "journal").glob("*.segment")))
        if report.has("state"):
            # The companions last: without its checksums, the database would be trusted. Without it, they are deleted.
            self._move([self._dir / f"state.db{suffix}" for suffix in ("", "-wal", "-shm", "-sums")])
        elif self._renews_log():
            self._begin_log()
        self._move([finding.path for finding in report.findings if finding.path is not None])
        return self._done

    def _stage(self) -> Stage | None:
        report = self._report
        if report.has("term") or report.has("mark"):
            return "terms"
        if self._renews_log():
            return "log"
        return "state" if report.has("state") else None

    def _renews_log(self) -> bool:
        """Whether the log is damaged, or does not reach back to where an empty state begins."""
        report = self._report
        cut = report.log is not None and report.log[0] > 1
        return report.has("journal") or (report.has("state") and cut)

    def _write_mark(self, stage: Stage) -> None:
        if self._report.has("mark"):
            self._move([self._dir / "rejoin.json"])
        words = [finding.detail for finding in self._report.findings]
        RejoinFile(self._dir).add(stage, words, now_ms=time.time_ns() // 1_000_000)
        self._done.append(f"wrote {self._dir / 'rejoin.json'}: this member takes no part until it has its data back")

    def _begin_log(self) -> None:
        """The state is whole: the log goes on from its end, once it is durable."""
        state = StateMachine(self._dir / "state.db")
        try:
            state.checkpoint()
            index, term = state.applied_index, state.applied_term
        finally:
            state.close()
        if index > 0:
            Journal.begin_at(self._dir / "journal", index, term, NO_OP)
            self._done.append(f"began the log anew at index {index}, where the state ends")

    def _move(self, paths: list[Path]) -> None:
        for path in paths:
            if not path.exists():
                continue
            self._aside.mkdir(mode=0o700, exist_ok=True)
            os.replace(path, self._aside / path.name)
            fsync.sync_directory(self._aside)
            fsync.sync_directory(path.parent)
            self._done.append(f"moved {path} to {self._aside}")
        if self._aside.exists():
            fsync.sync_directory(self._dir)

    def _found_identity(self) -> Identity:
        """The identity that the damaged file held: id and cluster from the configuration, and the UUID under which the
        other members know this directory, from what is left of log and state."""
        config = self._config
        if config is None:
            raise ConfigError("node.json is damaged: name the node's configuration with --config")
        for raw in self._configurations():
            record = decode_configuration(raw).get(config.id)
            if record is not None and record.uuid:
                return Identity(record.uuid, config.id, config.cluster_id)
        raise ConfigError(
            f"{self._dir / 'node.json'} is damaged, and nothing here says under which uuid the others know this node: "
            f"replace it (on another member: raftfs cluster replace {config.id})"
        )

    def _configurations(self) -> Iterator[bytes]:
        with suppress(CorruptData):
            journal = Journal(self._dir / "journal", commit_floor=None, look=True)
            newest = journal.configuration
            journal.close()
            if newest is not None:
                yield newest[1]
        if self._report.applied is not None:
            state = StateMachine(self._dir / "state.db")
            stored = state.configuration
            state.close()
            if stored is not None:
                yield stored[1]


def as_json(report: Report, done: list[str]) -> dict[str, object]:
    """For ``--json``."""
    return {
        "data_dir": str(report.data_dir),
        "damaged": [{"part": finding.part, "detail": finding.detail} for finding in report.findings],
        "notes": report.notes,
        "log": None if report.log is None else {"first": report.log[0], "last": report.log[1]},
        "applied_index": None if report.applied is None else report.applied.index,
        "chunks": report.chunks,
        "done": done,
    }
