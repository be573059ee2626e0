"""What a stopped node has, what of it is not known to be committed, and what it lacks: the ground for a decision.

Everything is read from one data directory; what other members had cannot be seen from here. To know what the files will
be, the entries of the log that are not applied yet are applied to a copy of the state.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from raftfs import limits
from raftfs.chunks import is_whole
from raftfs.consensus import Configuration, Entry, Journal, decode_configuration, decode_entry
from raftfs.errors import ConfigError, Conflict
from raftfs.service.datadir import Identity
from raftfs.state import (
    Code,
    CommitFile,
    Copy,
    Envelope,
    Holder,
    MakeDirectory,
    Reader,
    Remove,
    Rename,
    Result,
    SetMetadata,
    StateMachine,
    SwitchVersion,
    UploadBegin,
    UploadChunk,
    copy_database,
    decode_envelope,
)


class SurveyMember(msgspec.Struct, frozen=True):
    """A member as this node's log has it."""

    id: str
    peer: str
    url: str
    uuid: str
    voter: bool


class OpenChange(msgspec.Struct, frozen=True):
    """A change in an entry that is not known to be committed. ``result``: what comes of it; ``time_ms`` by the clock of
    the leader that proposed it, None for a change of the members."""

    index: int
    term: int
    kind: str
    paths: list[str]
    text: str
    time_ms: int | None
    result: str


class Lost(msgspec.Struct, frozen=True):
    """A file, an old version of one (as of ``revision``), or an unfinished upload of which this node lacks bytes."""

    path: str
    size: int
    revision: int
    missing_chunks: int
    missing_bytes: int


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """One stopped node. Sizes in bytes, times in milliseconds since the epoch; ``last_entry_ms`` is the time of the
    newest command in log and state, None if there is none. ``revision`` is that of what is applied, ``revision_after``
    and ``lost_*`` are what comes of all entries of the log. ``term_runs``: first index and term of each run of entries
    with one term."""

    id: str
    cluster_id: str
    uuid: str
    data_dir: str
    role: Literal["voter", "learner", "removed"]
    members: list[SurveyMember]
    members_index: int
    term: int
    first_index: int
    last_index: int
    last_term: int
    term_runs: list[tuple[int, int]]
    applied_index: int
    applied_term: int
    revision: int
    revision_after: int
    last_entry_ms: int | None
    open_entries: int
    open_changes: list[OpenChange]
    chunks_read: bool
    missing_chunks: int
    missing_bytes: int
    lost_files: list[Lost]
    lost_versions: list[Lost]
    lost_uploads: list[Lost]

    @property
    def rank(self) -> tuple[int, int]:
        """The order in which votes are given."""
        return self.last_term, self.last_index

    def has_applied(self, other: Survey) -> bool:
        """Whether this node has every entry of which the other one knows that it was committed."""
        index = other.applied_index
        if index <= self.applied_index:
            return True
        before = [term for first, term in self.term_runs if first <= index]
        return index <= self.last_index and bool(before) and before[-1] == other.applied_term

    @property
    def voters(self) -> list[str]:
        return [member.id for member in self.members if member.voter]

    @property
    def mine(self) -> SurveyMember | None:
        return next((member for member in self.members if member.id == self.id), None)

    @property
    def is_alone(self) -> bool:
        """Whether this node needs nobody else to lead."""
        return self.voters == [self.id] and self.mine is not None and self.mine.uuid == self.uuid


def take_survey(data_dir: Path, identity: Identity, *, read_chunks: bool) -> Survey:
    """Look at the data directory of a stopped node, which the caller has locked. ``read_chunks``: compare the bytes of
    every chunk with its digest, not only its length. Changes nothing that a node's start would not change.

    Raises CorruptData, DataTooNew, DataTooOld, ConfigError (nothing was ever written), StorageFull (no room for the
    copy of the state).
    """
    with closing(StateMachine(data_dir / "state.db")) as state:  # looks through all of it
        applied, applied_term, revision = state.applied_index, state.applied_term, state.revision
    with closing(Journal(data_dir / "journal", commit_floor=applied)) as journal:
        index, configuration = _newest_configuration(data_dir, journal)
        open_entries = range(applied + 1, journal.last_index + 1)
        with _state_after(data_dir, journal, open_entries) as (reader, changes):
            missing = _missing(reader, data_dir / "chunks", read_chunks)
            holders = reader.holders(missing.keys()) if missing else []
            revision_after, clock_ms = reader.applied().revision, reader.clock_ms()
        return Survey(
            id=identity.id,
            cluster_id=identity.cluster_id,
            uuid=identity.uuid,
            data_dir=str(data_dir),
            role=_role(configuration, identity.id),
            members=[SurveyMember(m.id, m.peer, m.url, m.uuid, m.voter) for m in configuration.members],
            members_index=index,
            term=journal.getCurrentTerm(),
            first_index=journal.first_index,
            last_index=journal.last_index,
            last_term=journal.last_term,
            term_runs=journal.term_runs,
            applied_index=applied,
            applied_term=applied_term,
            revision=revision,
            revision_after=revision_after,
            last_entry_ms=clock_ms or None,
            open_entries=len(open_entries),
            open_changes=changes,
            chunks_read=read_chunks,
            missing_chunks=len(missing),
            missing_bytes=sum(missing.values()),
            lost_files=_lost(holders, "file"),
            lost_versions=_lost(holders, "version"),
            lost_uploads=_lost(holders, "upload"),
        )


def _newest_configuration(data_dir: Path, journal: Journal) -> tuple[int, Configuration]:
    """The configuration that counts in this log, and its index."""
    with closing(Reader(data_dir / "state.db")) as reader:
        applied = reader.configuration()
    found = max((c for c in (applied, journal.configuration) if c is not None), default=None, key=lambda c: c[0])
    if found is None:
        raise ConfigError(
            f"{data_dir} does not say who its members are, so nothing was ever acknowledged with it: there is nothing "
            "to recover. Start a new cluster, with empty data directories"
        )
    return found[0], decode_configuration(found[1])


def _role(configuration: Configuration, name: str) -> Literal["voter", "learner", "removed"]:
    record = configuration.get(name)
    if record is None:
        return "removed"
    return "voter" if record.voter else "learner"


@contextmanager
def _state_after(data_dir: Path, journal: Journal, indices: Sequence[int]) -> Iterator[tuple[Reader, list[OpenChange]]]:
    """The state with these entries applied, and what each of them does. The node's own state stays as it is."""
    if not indices:
        with closing(Reader(data_dir / "state.db")) as reader:
            yield reader, []
        return
    folder = data_dir / "survey"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        copy_database(data_dir / "state.db", folder / "state.db")
        with closing(StateMachine(folder / "state.db")) as state:
            changes = [change for index in indices for change in _apply(state, decode_entry(journal, index))]
            with closing(Reader(folder / "state.db")) as reader:
                yield reader, changes
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _apply(state: StateMachine, entry: Entry) -> list[OpenChange]:
    results = state.apply(entry.index, entry.term, entry.commands, entry.configuration)
    if entry.configuration is not None:
        names = ", ".join(member.id for member in decode_configuration(entry.configuration).members)
        return [OpenChange(entry.index, entry.term, "Configuration", [], f"the members are {names}", None, "ok")]
    pairs = zip(entry.commands, results, strict=True)
    return [_change(entry, command, result) for command, result in pairs]


def _change(entry: Entry, command: bytes, result: Result) -> OpenChange:
    outcome = "repeated, changes nothing" if result.replayed else result.code.name.lower().replace("_", " ")
    try:
        envelope = decode_envelope(command)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return OpenChange(entry.index, entry.term, "", [], "a command that cannot be decoded", None, outcome)
    paths, text = _words(envelope, result)
    kind = type(envelope.command).__name__
    return OpenChange(entry.index, entry.term, kind, paths, text, envelope.time_ms, outcome)


def _words(envelope: Envelope, result: Result) -> tuple[list[str], str]:
    """The paths of a command, and what it does in words."""
    command: Any = envelope.command
    match command:
        case CommitFile(path=path, size=size):
            return [path], f"write {path} ({size} bytes)"
        case MakeDirectory(path=path):
            return [path], f"make directory {path}"
        case Remove(path=path):
            return [path], f"remove {path}"
        case Rename(source=source, target=target):
            return [source, target], f"rename {source} to {target}"
        case Copy(source=source, target=target):
            return [source, target], f"copy {source} to {target}"
        case SetMetadata(path=path):
            return [path], f"change the metadata of {path}"
        case UploadBegin(path=path):
            return [path], f"begin an upload to {path}"
        case UploadChunk(offset=offset, chunk=chunk):
            if result.upload is None or result.code is not Code.OK:
                return [], f"{chunk.length} bytes at offset {offset} of upload {command.upload}"
            return [
                result.upload.path
            ], f"{chunk.length} bytes at offset {offset} of the upload to {result.upload.path}"
        case SwitchVersion(version=version):
            return [], f"switch to format {version}"
    return [], {"UploadAbort": "end an upload", "UploadExpire": "forget expired uploads"}.get(
        type(command).__name__, type(command).__name__
    )


def _missing(reader: Reader, store: Path, read: bool) -> dict[bytes, int]:
    """Digest and length of each chunk that something refers to and that is not there whole."""
    missing: dict[bytes, int] = {}
    after = b""
    while page := reader.chunks(after, limits.BACKFILL_PAGE_CHUNKS):
        missing |= {ref.digest: ref.length for ref in page if not is_whole(store, ref.digest, ref.length, read=read)}
        after = page[-1].digest
    return missing


def _lost(holders: list[Holder], kind: str) -> list[Lost]:
    return [Lost(h.path, h.size, h.revision, h.chunks, h.chunk_bytes) for h in holders if h.kind == kind]


def choose(surveys: Sequence[Survey]) -> Survey:
    """Which of several survivors of one cluster to recover: of those that have every entry that any of them applied,
    the one with the highest (last term, last index), and of equals the one that lacks the fewest bytes.

    What was applied anywhere was committed for certain, and is everywhere the same as far as it goes, so the one that
    applied the most has all of it. The order of (last term, last index) alone would not do: an entry of an old term
    that a later leader committed may be missing in a log that ends with a term between the two (Raft, section 5.4.2).

    Raises ConfigError if they are not of one cluster or one is there twice, Conflict if enough of them are left to go
    on as they are.
    """
    first = surveys[0]
    for other in surveys[1:]:
        if other.cluster_id != first.cluster_id:
            raise ConfigError(f"{other.id} is of cluster {other.cluster_id!r}, {first.id} of {first.cluster_id!r}")
    for kind in ("id", "uuid"):
        if len({getattr(survey, kind) for survey in surveys}) < len(surveys):
            raise ConfigError(f"two of the surveys that are compared have the same {kind}")
    able = [survey for survey in surveys if all(map(survey.has_applied, surveys))]
    best = max(able, key=lambda survey: (survey.rank, -survey.missing_bytes))
    bound = {member.uuid for member in best.members if member.voter}
    here = [survey.id for survey in surveys if survey.uuid in bound]
    if len(surveys) > 1 and len(here) > len(best.voters) // 2:
        raise Conflict(
            f"{', '.join(sorted(here))} are a majority of {', '.join(best.voters)}: start them, and nothing is lost. "
            "There is nothing to recover"
        )
    return best
