"""The commands that change the namespace: what each may do, and the rows it writes.

Every method checks first and writes after: once the first row is written nothing can be refused any more. A method
takes its new revision between the two, so a refused command leaves the revision alone too.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from raftfs import limits, paths
from raftfs.state import namespace
from raftfs.state.commands import Code, CommitFile, MakeDirectory, Remove, Result, SetMetadata
from raftfs.state.namespace import Version
from raftfs.state.refusals import Refused, check_content_type, check_metadata, check_path, check_range
from raftfs.state.schema import ROOT_INODE, Meta
from raftfs.state.uploads import Uploads

_DIRECTORIES_CACHED_MAX = 4096


class Spot(NamedTuple):
    """A place for an entry: the deepest existing directory above it, what is missing between, and what is there.

    ``chain``: the inodes from the root to that directory.
    """

    chain: tuple[int, ...]
    missing: list[str]
    name: str
    present: Version | None

    @property
    def done(self) -> Code:
        """The code of a command that put something here."""
        return Code.CREATED if self.present is None else Code.REPLACED


class Tree:
    """The live namespace, written by one entry at a time. ``meta`` is the working copy of the machine."""

    def __init__(self, db: sqlite3.Connection, meta: Meta, uploads: Uploads) -> None:
        self.db = db
        self.meta = meta
        self._uploads = uploads
        self._directories: dict[str, tuple[int, ...]] = {}  # path of a live directory to the inodes down to it

    def forget(self) -> None:
        """Drop what is cached: a directory's name ended, or the transaction was rolled back."""
        self._directories.clear()

    def make_directory(self, command: MakeDirectory) -> Result:
        check_path(command.path)
        if command.path == paths.ROOT:
            present: Version | None = namespace.version(self.db, ROOT_INODE)
        else:
            spot = self.spot(command.path, command.parents)
            present = spot.present
        if present is not None:
            if not (command.exist_ok and present.is_directory):
                raise Refused(Code.ALREADY_EXISTS, f"{command.path} exists already")
            return Result(Code.OK, self.meta.revision, namespace.to_stat(command.path, present))
        revision = self.meta.next_revision()
        made = self.add_directory(self.make_parents(spot, revision), spot.name, revision)
        return Result(Code.CREATED, revision, namespace.to_stat(command.path, made))

    def commit_file(self, command: CommitFile) -> Result:
        check_path(command.path)
        self._check_content(command)
        if command.path == paths.ROOT:
            raise Refused(Code.IS_A_DIRECTORY, "/ is a directory")
        spot = self.spot(command.path, command.parents)
        old = spot.present
        if old is not None and old.is_directory:
            raise Refused(Code.IS_A_DIRECTORY, f"{command.path} is a directory")
        if command.if_match is not None:
            check_match(command.path, old, command.if_match)
        if command.if_absent and old is not None:
            raise Refused(Code.PRECONDITION_FAILED, f"{command.path} exists already")
        if command.upload is not None:
            self._uploads.check_complete(command.upload, command.size)

        revision = self.meta.next_revision()
        new = Version(
            inode=old.inode if old else self.meta.next_inode(),
            rev_from=revision,
            size=command.size,
            created_ms=old.created_ms if old else self.meta.clock_ms,
            modified_ms=self.meta.clock_ms,
            content=self._take_content(command),
            content_type=command.content_type,
            metadata=namespace.encode_metadata(command.metadata),
        )
        self.put_version(spot, new, revision)
        return Result(spot.done, revision, namespace.to_stat(command.path, new))

    def _check_content(self, command: CommitFile) -> None:
        check_range("size", command.size, 0, limits.FILE_BYTES_MAX)
        check_content_type(command.content_type)
        check_metadata(command.metadata)
        if (command.data is None) == (command.upload is None):
            raise Refused(Code.INVALID, "a file's content is either inline or an upload")
        if command.data is not None:
            check_range("size of inline content", len(command.data), 0, limits.INLINE_BYTES_MAX)
            if len(command.data) != command.size:
                raise Refused(Code.INVALID, f"inline content has {len(command.data)} bytes, not {command.size}")

    def _take_content(self, command: CommitFile) -> int:
        if command.upload is not None:
            return self._uploads.finish(command.upload)
        content = self.meta.next_content()
        self.db.execute("INSERT INTO content VALUES (?, ?)", (content, command.data))
        return content

    def remove(self, command: Remove) -> Result:
        check_path(command.path)
        if command.kind not in ("file", "directory", "any"):
            raise Refused(Code.INVALID, f"kind {command.kind!r} is not file, directory or any")
        if command.path == paths.ROOT:
            raise Refused(Code.INVALID, "the root cannot be removed")
        spot = self.spot(command.path, parents=False)
        present = require(command.path, spot.present)
        if present.is_directory and command.kind == "file":
            raise Refused(Code.IS_A_DIRECTORY, f"{command.path} is a directory")
        if not present.is_directory and command.kind == "directory":
            raise Refused(Code.NOT_A_DIRECTORY, f"{command.path} is a file")
        if command.if_match is not None:
            check_match(command.path, present, command.if_match)
        if present.is_directory and not command.recursive and not namespace.is_empty(self.db, present.inode):
            raise Refused(Code.NOT_EMPTY, f"directory {command.path} is not empty")
        revision = self.meta.next_revision()
        self.end_name(spot, revision)
        return Result(Code.OK, revision, namespace.to_stat(command.path, present))

    def set_metadata(self, command: SetMetadata) -> Result:
        check_path(command.path)
        check_metadata(command.metadata)
        if command.path == paths.ROOT:
            present = namespace.version(self.db, ROOT_INODE)
        else:
            present = require(command.path, self.spot(command.path, parents=False).present)
        content_type = present.content_type
        if command.content_type is not None:
            if present.is_directory:
                raise Refused(Code.INVALID, f"{command.path} is a directory and has no content type")
            check_content_type(command.content_type)
            content_type = command.content_type
        if command.if_match is not None:
            check_match(command.path, present, command.if_match)
        merged = {**namespace.decode_metadata(present.metadata), **command.metadata}
        metadata = {key: value for key, value in merged.items() if value is not None}
        check_metadata(metadata)
        new = present._replace(content_type=content_type, metadata=namespace.encode_metadata(metadata))
        if new == present:
            return Result(Code.OK, self.meta.revision, namespace.to_stat(command.path, present))
        revision = self.meta.next_revision()
        new = new._replace(rev_from=revision, modified_ms=self.meta.clock_ms)
        namespace.replace_version(self.db, new)
        return Result(Code.OK, revision, namespace.to_stat(command.path, new))

    def spot(self, path: str, parents: bool) -> Spot:
        """Where ``path`` (not the root) is or would be. Refuses a file above it, and missing directories above it
        unless they are to be made."""
        parent, name = paths.split(path)
        chain = self._directories.get(parent)
        missing: list[str] = []
        if chain is None:
            chain, missing = self._walk(parent)
            if missing and not parents:
                raise Refused(Code.NOT_FOUND, f"there is no directory {parent}")
        present = None
        if not missing:
            inode = namespace.lookup(self.db, chain[-1], name)
            present = None if inode is None else namespace.version(self.db, inode)
        return Spot(chain, missing, name, present)

    def _walk(self, directory: str) -> tuple[tuple[int, ...], list[str]]:
        names = paths.components(directory)
        chain = [ROOT_INODE]
        for name in names:
            inode = namespace.lookup(self.db, chain[-1], name)
            if inode is None:
                break
            chain.append(inode)
        missing = names[len(chain) - 1 :]
        if not namespace.version(self.db, chain[-1]).is_directory:
            raise Refused(Code.NOT_A_DIRECTORY, f"/{'/'.join(names[: len(chain) - 1])} is a file")
        if not missing:
            if len(self._directories) >= _DIRECTORIES_CACHED_MAX:
                self._directories.clear()
            self._directories[directory] = tuple(chain)
        return tuple(chain), missing

    def make_parents(self, spot: Spot, revision: int) -> int:
        """Make the missing directories of a spot; returns the inode of the entry's parent."""
        parent = spot.chain[-1]
        for name in spot.missing:
            parent = self.add_directory(parent, name, revision).inode
        return parent

    def add_directory(self, parent: int, name: str, revision: int, metadata: bytes | None = None) -> Version:
        now = self.meta.clock_ms
        made = Version(self.meta.next_inode(), revision, 0, now, now, None, None, metadata)
        namespace.add_version(self.db, made)
        namespace.add_name(self.db, parent, name, made.inode, revision)
        return made

    def put_version(self, spot: Spot, new: Version, revision: int) -> None:
        """Make a file's new version what is at the spot: of the file that is there, or of a new one."""
        if spot.present is not None:
            namespace.replace_version(self.db, new)
            return
        parent = self.make_parents(spot, revision)
        namespace.add_version(self.db, new)
        namespace.add_name(self.db, parent, spot.name, new.inode, revision)

    def end_name(self, spot: Spot, revision: int) -> None:
        assert spot.present is not None
        namespace.end_name(self.db, spot.chain[-1], spot.name, revision)
        if spot.present.is_directory:
            self.forget()


def require(path: str, present: Version | None) -> Version:
    if present is None:
        raise Refused(Code.NOT_FOUND, f"nothing is at {path}")
    return present


def check_match(path: str, present: Version | None, revision: int) -> None:
    """Refuse unless what is at ``path`` has ``revision``."""
    if present is None:
        raise Refused(Code.PRECONDITION_FAILED, f"nothing is at {path}, revision {revision} was expected")
    if present.rev_from != revision:
        raise Refused(
            Code.PRECONDITION_FAILED, f"{path} has revision {present.rev_from}, revision {revision} was expected"
        )
