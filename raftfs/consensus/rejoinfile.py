"""The durable mark of a member that rejoins: ``rejoin.json`` in its data directory.

It is written before the first damaged part is moved away, and removed after the last promise is kept again, so that
every start in between knows that this member must not vote.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import google_crc32c
import msgspec

from raftfs import fsync
from raftfs.consensus.rejoin import STAGES, Mark, Stage
from raftfs.decoding import UNDECODABLE
from raftfs.errors import CorruptData

log = logging.getLogger(__name__)

NAME: Final = "rejoin.json"
_NEXT: Final[dict[Stage | None, str]] = {
    "terms": "the terms of the others are needed",
    "log": "the log is to be got back",
    "state": "the log is whole, and this member takes part again; its state is to follow",
    None: "done, this member is whole again",
}


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``since_ms``: milliseconds since the epoch. ``damaged``: what was found, for people."""

    stage: Stage
    since_ms: int
    damaged: list[str]


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As it lies on the disk. ``crc``: CRC32C of the content's JSON: a later stage would let a member take part too
    early."""

    content: Content
    crc: int

    @classmethod
    def of(cls, content: Content) -> _Stored:
        return cls(content, google_crc32c.value(msgspec.json.encode(content)))


class RejoinFile(Mark):
    """The mark in ``data_dir``, which need not be there. Raises CorruptData if it cannot be read."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / NAME
        self.content: Content | None = None
        if self._path.exists():
            try:
                stored = msgspec.json.decode(self._path.read_bytes(), type=_Stored)
            except UNDECODABLE as error:
                raise CorruptData(f"{self._path} is damaged at offset 0: {error}") from error
            if stored != _Stored.of(stored.content):
                raise CorruptData(f"{self._path} is damaged at offset 0: its checksum differs")
            self.content = stored.content
        super().__init__(None if self.content is None else self.content.stage)

    def add(self, stage: Stage, damaged: list[str], *, now_ms: int) -> None:
        """Mark the member, or what was damaged since it was marked; an earlier stage stays."""
        old = self.content
        if old is not None:
            stage = min(stage, old.stage, key=STAGES.index)
            damaged = [*old.damaged, *(text for text in damaged if text not in old.damaged)]
        self._write(Content(stage, now_ms if old is None else old.since_ms, damaged))

    def keep(self, stage: Stage | None) -> None:
        """See Mark."""
        assert self.content is not None
        log.info("rejoining: %s", _NEXT[stage])
        if stage is not None:
            self._write(msgspec.structs.replace(self.content, stage=stage))
            return
        self._path.unlink(missing_ok=True)
        fsync.sync_directory(self._path.parent)
        self.content = self.stage = None

    def _write(self, content: Content) -> None:
        fsync.write_durably(self._path, msgspec.json.format(msgspec.json.encode(_Stored.of(content))))
        self.content, self.stage = content, content.stage
