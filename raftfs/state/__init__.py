"""The replicated state machine: encoded commands in, results and a database out.

The log hands over entries in order; ``StateMachine.apply`` makes each one a single SQLite transaction that holds every
change, the outcomes under their idempotency keys, the applied index and a rolling hash of it all. ``Reader`` looks at
the same file from other threads: the namespace as it is or as it was at any revision, lists page by page, uploads, and
which chunks are still needed. Every node computes the same from the same entries, so nothing here may ask a clock, a
random source, the network or the environment; time and ids come out of the commands and the state. A user's mistake is
a result; an exception means a full or damaged disk, or a bug, and leaves the entry wholly unapplied.
"""

from raftfs.state.commands import (
    ChunkRef,
    Code,
    Command,
    CommitFile,
    Copy,
    Envelope,
    FileVersion,
    MakeDirectory,
    Page,
    Remove,
    Rename,
    Result,
    SetMetadata,
    Stat,
    SwitchVersion,
    UploadAbort,
    UploadBegin,
    UploadChunk,
    UploadExpire,
    UploadState,
    decode_envelope,
    decode_result,
    encode,
)
from raftfs.state.copies import check_copy, check_state, copy_database
from raftfs.state.export import Exported, ExportPage
from raftfs.state.holders import Holder
from raftfs.state.listing import cursor_revision
from raftfs.state.machine import StateMachine
from raftfs.state.reader import Reader
from raftfs.state.schema import Applied, refuse_newer
from raftfs.state.versions import required_version

__all__ = [
    "Applied",
    "ChunkRef",
    "Code",
    "Command",
    "CommitFile",
    "Copy",
    "Envelope",
    "ExportPage",
    "Exported",
    "FileVersion",
    "Holder",
    "MakeDirectory",
    "Page",
    "Reader",
    "Remove",
    "Rename",
    "Result",
    "SetMetadata",
    "Stat",
    "StateMachine",
    "SwitchVersion",
    "UploadAbort",
    "UploadBegin",
    "UploadChunk",
    "UploadExpire",
    "UploadState",
    "check_copy",
    "check_state",
    "copy_database",
    "cursor_revision",
    "decode_envelope",
    "decode_result",
    "encode",
    "refuse_newer",
    "required_version",
]
