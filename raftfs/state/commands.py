"""The commands of the replicated state machine and their results: plain data, and its one encoding (msgpack).

Every field that decides an outcome travels inside the command, time included, so that all nodes compute the same.
Paths are in the normal form of ``raftfs.paths``. A command's encoding is an array tagged with its class name; new
fields are added at the end with a default. A new command or field raises ``FORMAT_VERSION`` and is entered in
``raftfs.state.versions``.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class _Data(msgspec.Struct, frozen=True, array_like=True):
    """Base of everything that is encoded."""


class _Command(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of the commands."""


class MakeDirectory(_Command, frozen=True):
    """Make a directory. ``parents``: missing ancestors too. ``exist_ok``: an existing directory is no error."""

    path: str
    parents: bool = False
    exist_ok: bool = False


class Remove(_Command, frozen=True):
    """Remove what is at ``path``: ``kind`` "file", "directory" or "any". A directory with entries needs
    ``recursive``. The root cannot be removed."""

    path: str
    kind: str = "any"
    recursive: bool = False
    if_match: int | None = None


class ChunkRef(_Data, frozen=True):
    """A chunk of a file: BLAKE3 digest (32 bytes) and length in bytes."""

    digest: bytes
    length: int


class CommitFile(_Command, frozen=True):
    """Make a new version of the file at ``path`` visible.

    Content: ``data`` (inline, at most INLINE_BYTES_MAX) if ``upload`` is None, otherwise the chunks of that upload,
    which must cover exactly ``size`` bytes; the upload ends with the commit. ``if_match``: the revision the present
    file must have. ``if_absent``: nothing may be there. ``parents``: missing directories are made.
    """

    path: str
    size: int
    data: bytes | None = None
    upload: int | None = None
    content_type: str = "application/octet-stream"
    metadata: dict[str, str] = {}
    if_match: int | None = None
    if_absent: bool = False
    parents: bool = False


class Rename(_Command, frozen=True):
    """Move a file or directory, in O(1) whatever its size. ``replace``: what is at ``target`` goes (a directory only
    if ``source`` is a directory, with all that is in it; a file only if ``source`` is a file)."""

    source: str
    target: str
    replace: bool = False
    parents: bool = False
    if_match: int | None = None


class Copy(_Command, frozen=True):
    """Copy a file or a whole directory (of at most COPY_ENTRIES_MAX entries) without moving bytes. ``replace`` as in
    Rename. Each copied file gets a revision of its own."""

    source: str
    target: str
    replace: bool = False
    parents: bool = False
    if_match: int | None = None


class SetMetadata(_Command, frozen=True):
    """Change a file's or directory's metadata: a None value removes the key; ``content_type`` None leaves it."""

    path: str
    metadata: dict[str, str | None] = {}
    content_type: str | None = None
    if_match: int | None = None


class UploadBegin(_Command, frozen=True):
    """Begin an upload; the result's ``upload`` carries its id. It expires ``expires_ms`` after its last new chunk, or
    after this command if it has none."""

    path: str
    expires_ms: int


class UploadChunk(_Command, frozen=True):
    """Add a chunk that is durable on a majority. ``offset`` must equal the bytes the upload holds already; the same
    chunk again at an earlier offset (a retry) is OK and changes nothing."""

    upload: int
    offset: int
    chunk: ChunkRef


class UploadAbort(_Command, frozen=True):
    """Drop an upload and its hold on its chunks."""

    upload: int


class UploadExpire(_Command, frozen=True):
    """Drop every upload that expired before this command's time."""


class SwitchVersion(_Command, frozen=True):
    """From here on, the log is judged by format ``version``. Refused if the format is not ``present`` (0: none was
    chosen yet), or not older. A node that does not understand ``version`` stops."""

    present: int
    version: int


Command = (
    MakeDirectory | Remove | CommitFile | Rename | Copy | SetMetadata
    | UploadBegin | UploadChunk | UploadAbort | UploadExpire | SwitchVersion
)  # fmt: skip


class Envelope(_Data, frozen=True):
    """What is proposed: a command, the leader's clock, and the idempotency key with the fingerprint of its request.

    ``time_ms`` is made monotonic by the state machine. A key that was seen with another fingerprint gives KEY_REUSED;
    with the same one, the stored result is given again and nothing changes. ``format``: the format version in which the
    command means what it says; under an older one it is INVALID, also for code that does not know why.
    """

    command: Command
    time_ms: int
    key: str | None = None
    fingerprint: bytes = b""
    format: int = 1


class Code(IntEnum):
    """Result codes. Below 100: done. They are stored, so numbers never change."""

    OK = 0
    CREATED = 1
    REPLACED = 2
    NOT_FOUND = 100
    ALREADY_EXISTS = 101
    NOT_A_DIRECTORY = 102
    IS_A_DIRECTORY = 103
    NOT_EMPTY = 104
    PRECONDITION_FAILED = 105
    INVALID = 106
    UPLOAD_NOT_FOUND = 107
    OFFSET_MISMATCH = 108
    KEY_REUSED = 109
    INTO_ITSELF = 110


class Stat(_Data, frozen=True):
    """A file or directory as it is at one revision. ``revision``: that of its last change (content or metadata)."""

    path: str
    is_directory: bool
    inode: int
    size: int
    revision: int
    created_ms: int
    modified_ms: int
    content_type: str | None = None
    metadata: dict[str, str] = {}


class UploadState(_Data, frozen=True):
    """An upload: ``offset`` is the number of bytes it durably holds."""

    id: int
    path: str
    offset: int
    expires_at_ms: int


class Result(_Data, frozen=True):
    """What a command did. ``revision``: the namespace's after it. ``detail``: for people, names the path and why."""

    code: Code
    revision: int
    stat: Stat | None = None
    upload: UploadState | None = None
    detail: str = ""
    replayed: bool = False


class FileVersion(_Data, frozen=True):
    """A file to be read: its stat and either its inline bytes or its chunks in order."""

    stat: Stat
    data: bytes | None
    chunks: list[ChunkRef]


class Page(_Data, frozen=True):
    """Part of a list: ``next`` is an opaque cursor, None at the end; ``revision`` is what all its pages show."""

    entries: list[Stat]
    next: str | None
    revision: int


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_envelope_decoder = msgspec.msgpack.Decoder(Envelope)
_result_decoder = msgspec.msgpack.Decoder(Result)


def encode(value: Envelope | Result) -> bytes:
    """The one encoding, the same on every node."""
    return _encoder.encode(value)


def hashed(result: Result) -> bytes:
    """What the state hash covers of a result: its fields as of format 1, named one by one, because code that knows
    more fields runs beside code that does not; and without ``detail``, whose words change from release to release."""
    stat, upload = result.stat, result.upload
    return _encoder.encode(
        (
            result.code,
            result.revision,
            result.replayed,
            stat and (
                stat.path, stat.is_directory, stat.inode, stat.size, stat.revision, stat.created_ms, stat.modified_ms,
                stat.content_type, stat.metadata,
            ),
            upload and (upload.id, upload.path, upload.offset, upload.expires_at_ms),
        )
    )  # fmt: skip


def decode_envelope(data: bytes) -> Envelope:
    """Raises msgspec.DecodeError or msgspec.ValidationError if ``data`` is not an envelope of this format."""
    return _envelope_decoder.decode(data)


def decode_result(data: bytes) -> Result:
    """As decode_envelope, for results."""
    return _result_decoder.decode(data)
