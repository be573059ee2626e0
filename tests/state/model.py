"""The namespace as a plain dict from path to entry, with a copy of the dict for every revision.

It is written to be obviously right and slow: a rename rewrites every key, history is a list of dicts. It shares no
code with the state machine but the commands and codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from raftfs.limits import IDEMPOTENCY_KEY_AGE_MS_MAX
from raftfs.state import (
    ChunkRef,
    Code,
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
)

Names = tuple[str, ...]
OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class Node:
    """A file (``content``: bytes or chunks) or directory (None). ``identity`` is what an inode must agree with."""

    identity: int
    revision: int
    created_ms: int
    modified_ms: int
    content: bytes | tuple[ChunkRef, ...] | None = None
    content_type: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def is_directory(self) -> bool:
        return self.content is None

    @property
    def size(self) -> int:
        if isinstance(self.content, tuple):
            return sum(chunk.length for chunk in self.content)
        return len(self.content or b"")


@dataclass(frozen=True)
class Upload:
    path: str
    expires_ms: int
    expires_at_ms: int
    chunks: tuple[ChunkRef, ...] = ()

    @property
    def offset(self) -> int:
        return sum(chunk.length for chunk in self.chunks)


@dataclass(frozen=True)
class Expected:
    """What a result must say. ``upload``: id and offset."""

    code: Code
    revision: int
    path: str | None = None
    node: Node | None = None
    upload: tuple[int, int] | None = None
    replayed: bool = False


class Refuse(Exception):
    def __init__(self, code: Code, upload: tuple[int, int] | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.upload = upload


def split(path: str) -> Names:
    return tuple(path.split("/")[1:]) if path != "/" else ()


def in_order(tree: dict[Names, Node]) -> list[Names]:
    return sorted(tree, key=lambda names: [name.encode() for name in names])


@dataclass
class Model:
    tree: dict[Names, Node] = field(default_factory=lambda: {(): Node(0, 0, 0, 0)})
    history: list[dict[Names, Node]] = field(default_factory=list)
    uploads: dict[int, Upload] = field(default_factory=dict)
    outcomes: dict[str, tuple[bytes, int, Expected]] = field(default_factory=dict)
    chunks_of_files: set[ChunkRef] = field(default_factory=set)
    now_ms: int = 0
    identities: int = 0
    contents: int = 0  # inline contents and uploads are numbered together; an upload's id is its number

    def __post_init__(self) -> None:
        self.history.append(dict(self.tree))

    @property
    def revision(self) -> int:
        return len(self.history) - 1

    def apply(self, envelope: Envelope) -> Expected:
        self.now_ms = max(self.now_ms, envelope.time_ms)
        key = envelope.key
        if key is not None and key in self.outcomes:
            fingerprint, _, expected = self.outcomes[key]
            if fingerprint != envelope.fingerprint:
                return Expected(Code.KEY_REUSED, self.revision)
            return replace(expected, replayed=True)
        handlers: dict[type, Callable[[Any], Expected]] = {
            MakeDirectory: self.make_directory,
            CommitFile: self.commit_file,
            Remove: self.remove,
            Rename: self.rename,
            Copy: self.copy,
            SetMetadata: self.set_metadata,
            UploadBegin: self.upload_begin,
            UploadChunk: self.upload_chunk,
            UploadAbort: self.upload_abort,
            UploadExpire: self.upload_expire,
        }
        try:
            expected = handlers[type(envelope.command)](envelope.command)
        except Refuse as refuse:
            expected = Expected(refuse.code, self.revision, upload=refuse.upload)
        if key is not None and expected.code not in (Code.UPLOAD_NOT_FOUND, Code.OFFSET_MISMATCH):
            self.outcomes[key] = (envelope.fingerprint, self.now_ms, expected)
        return expected

    def end_entry(self) -> None:
        oldest = self.now_ms - IDEMPOTENCY_KEY_AGE_MS_MAX
        self.outcomes = {key: outcome for key, outcome in self.outcomes.items() if outcome[1] >= oldest}

    def held_chunks(self) -> set[ChunkRef]:
        return self.chunks_of_files.union(*(upload.chunks for upload in self.uploads.values()))

    # The parts that commands share.

    def new_identity(self) -> int:
        self.identities += 1
        return self.identities

    def commit(self, count: int = 1) -> int:
        """End a change: nothing of it is seen at the revisions between, if it takes several."""
        self.history += [self.history[-1]] * (count - 1)
        self.history.append(dict(self.tree))
        return self.revision

    def check_parent(self, names: Names, parents: bool) -> None:
        missing = False
        for depth in range(len(names)):
            node = self.tree.get(names[:depth])
            if node is not None and not node.is_directory:
                raise Refuse(Code.NOT_A_DIRECTORY)
            missing = node is None
        if missing and not parents:
            raise Refuse(Code.NOT_FOUND)

    def require(self, names: Names) -> Node:
        self.check_parent(names, parents=False)
        if names not in self.tree:
            raise Refuse(Code.NOT_FOUND)
        return self.tree[names]

    def check_match(self, node: Node | None, if_match: int | None) -> None:
        if if_match is not None and (node is None or node.revision != if_match):
            raise Refuse(Code.PRECONDITION_FAILED)

    def new_directory(self, revision: int) -> Node:
        return Node(self.new_identity(), revision, self.now_ms, self.now_ms)

    def add_parents(self, names: Names, revision: int) -> None:
        for depth in range(1, len(names)):
            self.tree.setdefault(names[:depth], self.new_directory(revision))

    def drop(self, names: Names) -> None:
        self.tree = {path: node for path, node in self.tree.items() if path[: len(names)] != names}

    # The commands.

    def make_directory(self, command: MakeDirectory) -> Expected:
        names = split(command.path)
        self.check_parent(names, command.parents)
        node = self.tree.get(names)
        if node is not None:
            if node.is_directory and command.exist_ok:
                return Expected(Code.OK, self.revision, command.path, node)
            raise Refuse(Code.ALREADY_EXISTS)
        self.add_parents(names, self.revision + 1)
        self.tree[names] = self.new_directory(self.revision + 1)
        return Expected(Code.CREATED, self.commit(), command.path, self.tree[names])

    def commit_file(self, command: CommitFile) -> Expected:
        names = split(command.path)
        if not names:
            raise Refuse(Code.IS_A_DIRECTORY)
        self.check_parent(names, command.parents)
        old = self.tree.get(names)
        if old is not None and old.is_directory:
            raise Refuse(Code.IS_A_DIRECTORY)
        self.check_match(old, command.if_match)
        if command.if_absent and old is not None:
            raise Refuse(Code.PRECONDITION_FAILED)
        content: bytes | tuple[ChunkRef, ...] | None = command.data
        if command.upload is not None:
            upload = self.require_upload(command.upload)
            if upload.offset != command.size:
                raise Refuse(Code.OFFSET_MISMATCH, (command.upload, upload.offset))
            content = upload.chunks
            self.chunks_of_files.update(content)
            del self.uploads[command.upload]
        else:
            self.contents += 1
        self.add_parents(names, self.revision + 1)
        self.tree[names] = Node(
            old.identity if old else self.new_identity(),
            self.revision + 1,
            old.created_ms if old else self.now_ms,
            self.now_ms,
            content,
            command.content_type,
            tuple(sorted(command.metadata.items())),
        )
        code = Code.REPLACED if old else Code.CREATED
        return Expected(code, self.commit(), command.path, self.tree[names])

    def remove(self, command: Remove) -> Expected:
        names = split(command.path)
        if not names:
            raise Refuse(Code.INVALID)
        node = self.require(names)
        if node.is_directory and command.kind == "file":
            raise Refuse(Code.IS_A_DIRECTORY)
        if not node.is_directory and command.kind == "directory":
            raise Refuse(Code.NOT_A_DIRECTORY)
        self.check_match(node, command.if_match)
        if not command.recursive and any(path[:-1] == names for path in self.tree if path):
            raise Refuse(Code.NOT_EMPTY)
        self.drop(names)
        return Expected(Code.OK, self.commit(), command.path, node)

    def check_move(self, command: Rename | Copy) -> tuple[Names, Names, Node]:
        source, target = split(command.source), split(command.target)
        if not source:
            raise Refuse(Code.INTO_ITSELF)
        node = self.require(source)
        self.check_match(node, command.if_match)
        if not target:
            raise Refuse(Code.INTO_ITSELF)
        self.check_parent(target, command.parents)
        if target != source and target[: len(source)] == source:
            raise Refuse(Code.INTO_ITSELF)
        old = self.tree.get(target)
        if old is not None:
            if not command.replace:
                raise Refuse(Code.ALREADY_EXISTS)
            if old.is_directory and not node.is_directory:
                raise Refuse(Code.IS_A_DIRECTORY)
            if not old.is_directory and node.is_directory:
                raise Refuse(Code.NOT_A_DIRECTORY)
            if target != source and source[: len(target)] == target:
                raise Refuse(Code.INTO_ITSELF)
        return source, target, node

    def rename(self, command: Rename) -> Expected:
        source, target, node = self.check_move(command)
        if source == target:
            return Expected(Code.OK, self.revision, command.target, node)
        code = Code.REPLACED if target in self.tree else Code.CREATED
        self.drop(target)
        self.add_parents(target, self.revision + 1)
        moved = {path: entry for path, entry in self.tree.items() if path[: len(source)] == source}
        self.drop(source)
        self.tree.update({target + path[len(source) :]: entry for path, entry in moved.items()})
        return Expected(code, self.commit(), command.target, node)

    def copy(self, command: Copy) -> Expected:
        source, target, node = self.check_move(command)
        if source == target:
            return Expected(Code.OK, self.revision, command.target, node)
        code = Code.REPLACED if target in self.tree else Code.CREATED
        originals = {path: entry for path, entry in self.tree.items() if path[: len(source)] == source}
        files = self.files_in_copying_order(originals, source)
        count = max(1, len(files))
        last = self.revision + count
        old = self.tree.get(target)
        self.drop(target)
        self.add_parents(target, last)
        for path, entry in originals.items():
            number = self.revision + 1 + files.index(path) if path in files else last
            made = replace(
                entry,
                identity=self.new_identity(),
                revision=number,
                created_ms=self.now_ms,
                modified_ms=self.now_ms,
            )
            if old is not None and not old.is_directory:
                made = replace(made, identity=old.identity, created_ms=old.created_ms)
            self.tree[target + path[len(source) :]] = made
        return Expected(code, self.commit(count), command.target, self.tree[target])

    def files_in_copying_order(self, tree: dict[Names, Node], top: Names) -> list[Names]:
        """The files of a directory by name, then its directories, the last one first."""
        if not tree[top].is_directory:
            return [top]
        entries = in_order({path: node for path, node in tree.items() if path[:-1] == top and path != top})
        files = [path for path in entries if not tree[path].is_directory]
        for path in reversed([path for path in entries if tree[path].is_directory]):
            files += self.files_in_copying_order(tree, path)
        return files

    def set_metadata(self, command: SetMetadata) -> Expected:
        names = split(command.path)
        node = self.require(names)
        if command.content_type is not None and node.is_directory:
            raise Refuse(Code.INVALID)
        self.check_match(node, command.if_match)
        merged = {**dict(node.metadata), **command.metadata}
        new = replace(
            node,
            metadata=tuple(sorted((key, value) for key, value in merged.items() if value is not None)),
            content_type=command.content_type or node.content_type,
        )
        if new == node:
            return Expected(Code.OK, self.revision, command.path, node)
        self.tree[names] = replace(new, revision=self.revision + 1, modified_ms=self.now_ms)
        return Expected(Code.OK, self.commit(), command.path, self.tree[names])

    def require_upload(self, upload_id: int) -> Upload:
        if upload_id not in self.uploads:
            raise Refuse(Code.UPLOAD_NOT_FOUND)
        return self.uploads[upload_id]

    def upload_begin(self, command: UploadBegin) -> Expected:
        self.contents += 1
        self.uploads[self.contents] = Upload(command.path, command.expires_ms, self.now_ms + command.expires_ms)
        return Expected(Code.CREATED, self.revision, upload=(self.contents, 0))

    def upload_chunk(self, command: UploadChunk) -> Expected:
        upload = self.require_upload(command.upload)
        if command.offset != upload.offset:
            offset = 0
            for chunk in upload.chunks:
                if (offset, chunk) == (command.offset, command.chunk):
                    return Expected(Code.OK, self.revision, upload=(command.upload, upload.offset))
                offset += chunk.length
            raise Refuse(Code.OFFSET_MISMATCH, (command.upload, upload.offset))
        upload = replace(upload, chunks=(*upload.chunks, command.chunk), expires_at_ms=self.now_ms + upload.expires_ms)
        self.uploads[command.upload] = upload
        return Expected(Code.OK, self.revision, upload=(command.upload, upload.offset))

    def upload_abort(self, command: UploadAbort) -> Expected:
        self.require_upload(command.upload)
        del self.uploads[command.upload]
        return Expected(Code.OK, self.revision)

    def upload_expire(self, command: UploadExpire) -> Expected:
        self.uploads = {number: upload for number, upload in self.uploads.items() if upload.expires_at_ms > self.now_ms}
        return Expected(Code.OK, self.revision)
