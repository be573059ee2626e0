"""After the quorum was lost for good: one survivor becomes a cluster of one. Works on the data of a stopped node.

Nothing is taken out of the log: whatever this node has becomes the history, committed or not, because what may have
been acknowledged cannot be told from what was not. The survivor gets a new term with its own vote in it, and behind its
log an entry that makes it the only member, as a leader of that term would have appended it. The term is far ahead, so
that whoever looks for the newest leader does not find one of the old cluster. It also gets a new UUID:
the members of the old cluster know it, bound to its name, under the old one, so they refuse it as it refuses them, and
no majority of the old cluster that comes to life again can mix with the new one.

The steps are told to the disk before the first of them is done (``recovery.json``), each may be repeated, and the last
one makes of that file the record of what was done (``recovered.json``). A crash in between is finished by the next
``recover`` or the node's next start.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import google_crc32c
import msgspec

from raftfs import fsync, limits
from raftfs.config import NodeConfig
from raftfs.consensus import Configuration, Journal, MemberRecord, encode_configuration
from raftfs.consensus.rejoinfile import NAME as REJOIN
from raftfs.decoding import UNDECODABLE
from raftfs.errors import ConfigError, Conflict, CorruptData, NotFound
from raftfs.service.datadir import Identity, check_identity, lock, read_identity, write_identity
from raftfs.service.snapshots import install
from raftfs.service.survey import Lost, OpenChange, Survey, SurveyMember, choose, take_survey

__all__ = ["Lost", "OpenChange", "Recovery", "Survey", "SurveyMember", "Survivor", "choose", "finish", "survivor"]

_MARK: Final = "recovery.json"
_RECORD: Final = "recovered.json"


class Recovery(msgspec.Struct, frozen=True):
    """A recovery: to be done (``recovery.json``) or done (``recovered.json``). The entry of ``index`` and ``term``
    follows one of ``last_term``; it says that the only member is ``id`` at ``peer`` and ``url``, with the data
    directory ``uuid``, which was ``old_uuid`` before. ``former``: the members until then. ``time_ms``: when it was
    decided, since the epoch."""

    time_ms: int
    id: str
    cluster_id: str
    peer: str
    url: str
    uuid: str
    old_uuid: str
    index: int
    term: int
    last_term: int
    former: list[SurveyMember]

    @property
    def entry(self) -> bytes:
        return encode_configuration(Configuration((MemberRecord(self.id, self.peer, self.url, self.uuid),)))


class _Stored(msgspec.Struct, frozen=True):
    """As it lies on the disk. ``crc``: CRC32C of the recovery's JSON."""

    recovery: Recovery
    crc: int

    @classmethod
    def of(cls, recovery: Recovery) -> _Stored:
        return cls(recovery, google_crc32c.value(msgspec.json.encode(recovery)))


def encode_recovery(recovery: Recovery) -> bytes:
    """As it lies on the disk."""
    return msgspec.json.format(msgspec.json.encode(_Stored.of(recovery)))


class Survivor:
    """The data directory of a stopped node, locked. ``begun``: a recovery that was interrupted; all that can be done
    then is to ``resume`` it. ``last``: the last one that was done."""

    def __init__(self, data_dir: Path, identity: Identity, config: NodeConfig | None) -> None:
        self._data_dir, self.identity, self._config = data_dir, identity, config
        self.begun = _read(data_dir / _MARK)
        self.last = _read(data_dir / _RECORD)

    def survey(self, *, read_chunks: bool = False) -> Survey:
        """See ``take_survey``."""
        return take_survey(self._data_dir, self.identity, read_chunks=read_chunks)

    def recover(self, survey: Survey) -> Recovery:
        """Make this node, as it was just surveyed, a cluster of one, durably. Raises Conflict if it is one already,
        ConfigError if nothing says where it listens."""
        if survey.is_alone:
            raise Conflict(f"{survey.id} is the only voting member of its cluster already: start it")
        peer, url = self._addresses(survey)
        decided = Recovery(
            time_ms=int(time.time() * 1000),
            id=survey.id,
            cluster_id=survey.cluster_id,
            peer=peer,
            url=url,
            uuid=str(uuid.uuid4()),
            old_uuid=survey.uuid,
            index=survey.last_index + 1,
            term=survey.term + limits.RECOVERY_TERMS,
            last_term=survey.last_term,
            former=survey.members,
        )
        fsync.write_durably(self._data_dir / _MARK, encode_recovery(decided))
        return self.resume()

    def resume(self) -> Recovery:
        """Go on with a recovery that was begun."""
        done = finish(self._data_dir)
        assert done is not None
        return done

    def _addresses(self, survey: Survey) -> tuple[str, str]:
        """Where new members will find this one."""
        if self._config is not None:
            return self._config.me.peer, self._config.me.url
        if survey.mine is None:
            raise ConfigError(f"the log does not say where {survey.id} listens: give its configuration file")
        return survey.mine.peer, survey.mine.url


@contextmanager
def survivor(data_dir: Path, config: NodeConfig | None = None) -> Iterator[Survivor]:
    """Lock the data directory of a stopped node, which stays as it is but for what its start would do, too: a snapshot
    that waits is installed, an unfinished last write is cut.

    Raises NotFound (no node was ever started on it), ConfigError (it runs, or is another's), Conflict (it waits for
    other members to be whole again), CorruptData.
    """
    if not data_dir.is_dir() or not (data_dir / "journal").is_dir():
        raise NotFound(f"no node was ever started on {data_dir}")
    fd = lock(data_dir)
    try:
        with _damage_explained(data_dir):
            yield _open(data_dir, config)
    finally:
        os.close(fd)


@contextmanager
def _damage_explained(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except CorruptData as error:
        raise CorruptData(
            f"{error.detail.rstrip('.')}. Damaged data are not made the history of a cluster: `raftfs fsck` says what "
            f"else is wrong in {data_dir}; recover another survivor if there is one"
        ) from error


def _open(data_dir: Path, config: NodeConfig | None) -> Survivor:
    if config is not None:
        check_identity(config)
    identity = read_identity(data_dir)
    for name in ("node.json", "state.db", "journal/term"):
        if not (data_dir / name).exists():
            raise CorruptData(f"{data_dir / name} is missing from offset 0 on")
    assert identity is not None
    if (data_dir / REJOIN).exists():
        raise Conflict(
            f"{data_dir / REJOIN} says that this node lost a part of its data and has not got it back from the others: "
            "it may lack what was acknowledged. Recover another survivor"
        )
    if not (data_dir / _MARK).exists():
        install(data_dir)
    return Survivor(data_dir, identity, config)


def finish(data_dir: Path) -> Recovery | None:
    """Do what a recovery that was decided on has not done yet; None if there is none. For a node's start, and nothing
    in the directory may be open. Raises CorruptData if the log is not the one that it was decided for."""
    recovery = _read(data_dir / _MARK)
    if recovery is None:
        return None
    with closing(Journal(data_dir / "journal", commit_floor=None)) as journal:
        _append(journal, recovery, data_dir / _MARK)
    write_identity(data_dir, Identity(recovery.uuid, recovery.id, recovery.cluster_id))
    os.replace(data_dir / _MARK, data_dir / _RECORD)
    fsync.sync_directory(data_dir)
    return recovery


def _append(journal: Journal, recovery: Recovery, mark: Path) -> None:
    if journal.last_index >= recovery.index and journal.data(recovery.index) == recovery.entry:
        return
    if (journal.last_index, journal.last_term) != (recovery.index - 1, recovery.last_term):
        raise CorruptData(
            f"{mark} is for a log that ends at index {recovery.index - 1} of term {recovery.last_term}, this one ends "
            f"at index {journal.last_index} of term {journal.last_term}"
        )
    # The entry is one of a leader of this term, and nobody else may become that: the vote is this node's own.
    journal.setCurrentTerm(recovery.term, recovery.id)
    journal.add(recovery.entry, recovery.index, recovery.term)
    journal.flush()


def _read(path: Path) -> Recovery | None:
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
    except FileNotFoundError:
        return None
    except UNDECODABLE as error:
        raise CorruptData(f"{path} is damaged at offset 0: {error}") from error
    if stored != _Stored.of(stored.recovery):
        raise CorruptData(f"{path} is damaged at offset 0: its checksum differs")
    return stored.recovery
