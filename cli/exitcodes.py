"""Exit codes of the ``raftfs`` command: one table, in ``docs/cli.md`` too."""

from __future__ import annotations

from typing import Final

from raftfs import errors
from raftfs.fsync import FSYNC_FAILED_EXIT

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
CONFLICT: Final = 4
UNAVAILABLE: Final = 5
UNKNOWN_OUTCOME: Final = 6
DENIED: Final = 7
OTHER_VERSION: Final = 8
DAMAGED: Final = 9
FSYNC_FAILED: Final = FSYNC_FAILED_EXIT
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

NOT_TO_RESTART: Final = (USAGE, OTHER_VERSION, DAMAGED, FSYNC_FAILED)
"""With these a server ends that would end the same way again, or must not go on: ``RestartPreventExitStatus=``."""

_BY_ERROR: Final[list[tuple[type[Exception], int]]] = [
    (errors.UnknownOutcome, UNKNOWN_OUTCOME),
    (FileNotFoundError, NOT_FOUND),  # NotFound of the store is one, too
    (errors.PreconditionFailed, CONFLICT),
    (errors.AlreadyExists, CONFLICT),
    (errors.NotADirectory, CONFLICT),
    (errors.IsADirectory, CONFLICT),
    (errors.DirectoryNotEmpty, CONFLICT),
    (errors.Conflict, CONFLICT),
    (errors.KeyReused, CONFLICT),
    (errors.Unavailable, UNAVAILABLE),
    (errors.DeadlineExceeded, UNAVAILABLE),
    (errors.UpgradeUnfinished, CONFLICT),
    (errors.Unauthorized, DENIED),
    (errors.Forbidden, DENIED),
    (errors.InvalidRequest, USAGE),
    (errors.ConfigError, USAGE),
    (errors.DataTooNew, OTHER_VERSION),
    (errors.DataTooOld, OTHER_VERSION),
    (errors.CorruptData, DAMAGED),
]


def of_error(error: Exception) -> int:
    """The exit code that reports this error."""
    if getattr(error, "outcome", None) == "unknown":
        return UNKNOWN_OUTCOME
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILURE)
