"""Every error that raftfs raises, once, for the server, the client and the command line.

An error knows the stable ``code`` that scripts see, the HTTP ``status`` that carries it, and, where a write was
asked for, its ``outcome``. The server turns an error into an RFC 9457 problem; the client turns the problem's
``code`` back into the same class. Where Python has a word for the situation, the class inherits from it too, so
``except FileNotFoundError`` works.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Outcome = Literal["applied", "not_applied", "unknown"]


class RaftfsError(Exception):
    """Base of all errors. ``detail`` says what was wrong, where, and what to do."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", *, outcome: Outcome | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.outcome: Outcome | None = outcome
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.detail

    def __reduce__(self) -> tuple[object, ...]:
        # OSError's own __reduce__ drops keyword arguments; errors must cross process pools whole.
        return (_rebuild, (type(self), self.detail, self.outcome, self.retry_after_s))


def _rebuild(cls: type[RaftfsError], detail: str, outcome: Outcome | None, retry_after_s: float | None) -> RaftfsError:
    return cls(detail, outcome=outcome, retry_after_s=retry_after_s)


class InvalidRequest(RaftfsError, ValueError):
    code = "invalid_request"
    status = 400
    title = "The request is malformed"


class InvalidPath(InvalidRequest):
    code = "invalid_path"
    title = "The path is not allowed"


class TlsRequired(InvalidRequest):
    code = "tls_required"
    title = "This port speaks TLS: the URL must begin with https://"


class IncompleteBody(InvalidRequest):
    code = "incomplete_body"
    title = "The body ended before its announced length"


class DigestMismatch(InvalidRequest):
    code = "digest_mismatch"
    title = "The body does not match the digest that was sent with it"


class Unauthorized(RaftfsError, PermissionError):
    code = "unauthorized"
    status = 401
    title = "Authentication is needed"


class Forbidden(RaftfsError, PermissionError):
    code = "forbidden"
    status = 403
    title = "Not allowed"


class NotFound(RaftfsError, FileNotFoundError):
    code = "not_found"
    status = 404
    title = "Nothing is at this path"


class NoSuchRoute(RaftfsError):
    code = "no_such_route"
    status = 404
    title = "The API has no such route"


class MethodNotAllowed(RaftfsError):
    code = "method_not_allowed"
    status = 405
    title = "The method is not answered here"


class UploadNotFound(NotFound):
    code = "upload_not_found"
    title = "There is no such upload"


class AlreadyExists(RaftfsError, FileExistsError):
    code = "already_exists"
    status = 409
    title = "Something is at this path already"


class NotADirectory(RaftfsError, NotADirectoryError):
    code = "not_a_directory"
    status = 409
    title = "A component of the path is a file"


class IsADirectory(RaftfsError, IsADirectoryError):
    code = "is_a_directory"
    status = 409
    title = "The path is a directory"


class DirectoryNotEmpty(RaftfsError, OSError):
    code = "directory_not_empty"
    status = 409
    title = "The directory is not empty"


class Conflict(RaftfsError):
    code = "conflict"
    status = 409
    title = "The change conflicts with the present state"


class UpgradeUnfinished(RaftfsError):
    """Some members run older code, so the cluster does not do yet what only the newer code can."""

    code = "upgrade_unfinished"
    status = 409
    title = "The cluster's upgrade is not finished"


class PreconditionFailed(RaftfsError):
    code = "precondition_failed"
    status = 412
    title = "A precondition does not hold"


class TooLarge(RaftfsError):
    code = "too_large"
    status = 413
    title = "The request is over a limit"


class HeadersTooLarge(TooLarge):
    code = "headers_too_large"
    status = 431
    title = "The request line or a header is over a limit"


class RangeNotSatisfiable(RaftfsError, ValueError):
    code = "range_not_satisfiable"
    status = 416
    title = "The range lies outside the file"


class KeyReused(RaftfsError):
    code = "idempotency_key_reused"
    status = 422
    title = "The idempotency key was used for a different request"


class BadAnswer(RaftfsError):
    """Raised by the client: what came back is not raftfs (a wrong URL, a proxy in between, a broken server)."""

    code = "bad_answer"
    status = 502
    title = "The server's answer cannot be understood"


class Unavailable(RaftfsError, ConnectionError):
    code = "unavailable"
    status = 503
    title = "The cluster cannot serve this now"


class NotTrusted(Unavailable):
    """The client found no TLS connection that it, and the server, can trust. Nothing was sent."""

    code = "not_trusted"
    title = "There is no TLS connection that can be trusted"


class NotLeader(Unavailable):
    """Raised inside the server; a forwarding layer sends the request on to the leader."""

    code = "not_leader"
    title = "This node is not the leader"


class Overloaded(Unavailable):
    code = "overloaded"
    title = "Too much is waiting already"


class ChunkUnavailable(Unavailable):
    code = "chunk_unavailable"
    title = "No reachable node holds an undamaged copy of this part of the file"


class DeadlineExceeded(RaftfsError, TimeoutError):
    code = "deadline_exceeded"
    status = 504
    title = "The deadline passed"


class UnknownOutcome(RaftfsError):
    """The write may or may not have been applied. Never retried without an idempotency key."""

    code = "unknown_outcome"
    status = 504
    title = "Whether the write was applied is not known"

    def __init__(
        self, detail: str = "", *, outcome: Outcome | None = "unknown", retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail, outcome=outcome, retry_after_s=retry_after_s)


class StorageFull(RaftfsError, OSError):
    code = "storage_full"
    status = 507
    title = "The disk is full"


class CorruptData(RaftfsError):
    """Damage on this machine's disk: file and offset are in ``detail``. The node refuses to start or to serve."""

    code = "corrupt_data"
    title = "Data on disk is damaged"


class ConfigError(RaftfsError, ValueError):
    code = "config_error"
    title = "The configuration is wrong"


class DataTooNew(RaftfsError):
    code = "data_too_new"
    title = "The data was written by a newer raftfs"


class DataTooOld(RaftfsError):
    code = "data_too_old"
    title = "The data was written by a raftfs that is too old for this one"


def _all(cls: type[RaftfsError]) -> list[type[RaftfsError]]:
    return [cls, *(c for sub in cls.__subclasses__() for c in _all(sub))]


BY_CODE: dict[str, type[RaftfsError]] = {cls.code: cls for cls in _all(RaftfsError)}
"""Stable problem ``code`` to class."""
