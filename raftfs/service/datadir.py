"""Whose data directory it is: one process at a time, one member for ever."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import google_crc32c
import msgspec

from raftfs import fsync
from raftfs.config import NodeConfig
from raftfs.consensus import TermFile
from raftfs.decoding import UNDECODABLE
from raftfs.errors import ConfigError, CorruptData

_IDENTITY: Final = "node.json"


class Identity(msgspec.Struct, frozen=True):
    """``node.json``: whose data this is. ``uuid`` is made at the first start; only a recovery changes it."""

    uuid: str
    id: str
    cluster_id: str


class _Stored(msgspec.Struct, frozen=True):
    """As it lies on the disk. ``crc``: CRC32C of the other fields, for a digit of a UUID that has changed is a digit
    still."""

    uuid: str
    id: str
    cluster_id: str
    crc: int

    @classmethod
    def of(cls, identity: Identity) -> _Stored:
        fields = identity.uuid, identity.id, identity.cluster_id
        return cls(*fields, google_crc32c.value(msgspec.json.encode(fields)))


def lock(data_dir: Path) -> int:
    """A data directory belongs to one process, until the descriptor is closed. Raises ConfigError if another has it."""
    try:
        if not (data_dir / _IDENTITY).exists():
            fsync.make_directory(data_dir)  # what is in it is safe only if its own name is
        fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot use data_dir {data_dir}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise ConfigError(f"data_dir {data_dir} is in use by another process; stop that node first") from None
    return fd


def read_identity(data_dir: Path) -> Identity | None:
    """None if no node was ever started on it. Raises CorruptData."""
    path = data_dir / _IDENTITY
    if not path.exists():
        if any((data_dir / "journal").glob("*.segment")):
            raise CorruptData(f"{path} is missing, and there is a log: nobody can say whose it is")
        return None
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
    except UNDECODABLE as error:
        raise CorruptData(f"{path} is damaged: {error}") from error
    identity = Identity(stored.uuid, stored.id, stored.cluster_id)
    if stored != _Stored.of(identity):
        raise CorruptData(f"{path} is damaged: its checksum differs")
    return identity


def write_identity(data_dir: Path, identity: Identity) -> None:
    """Durable on return."""
    fsync.write_durably(data_dir / _IDENTITY, msgspec.json.encode(_Stored.of(identity)))


def check_identity(config: NodeConfig, make: Callable[[], uuid.UUID] = uuid.uuid4) -> str:
    """The UUID of the data directory, made by ``make`` if it is a new one. Raises ConfigError if it is another
    member's, CorruptData if its votes are lost."""
    identity, term = read_identity(config.data_dir), config.data_dir / "journal" / "term"
    if identity is not None:
        TermFile(term, may_begin=False).close()  # whoever has a name may have voted
    else:
        fsync.make_directory(term.parent)
        TermFile.create(term)
        identity = Identity(str(make()), config.id, config.cluster_id)
        write_identity(config.data_dir, identity)
    if (identity.id, identity.cluster_id) != (config.id, config.cluster_id):
        raise ConfigError(
            f"data_dir {config.data_dir} belongs to member {identity.id!r} of cluster {identity.cluster_id!r}, "
            f"not to {config.id!r} of {config.cluster_id!r}"
        )
    return identity.uuid
