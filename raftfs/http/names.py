"""Names of our headers and routes, and the ETag, in one place for server and frontend."""

from __future__ import annotations

from typing import Final

REVISION: Final = "Raftfs-Revision"
STALE: Final = "Raftfs-Stale"
AGE_MS: Final = "Raftfs-Age-Ms"
TIMEOUT: Final = "Raftfs-Timeout"
FORWARDED: Final = "Raftfs-Forwarded"
LEADER: Final = "Raftfs-Leader"
ERROR: Final = "Raftfs-Error"
OUTCOME: Final = "Raftfs-Outcome"
ENTRY_TYPE: Final = "Raftfs-Type"
CREATED_MS: Final = "Raftfs-Created-Ms"
MODIFIED_MS: Final = "Raftfs-Modified-Ms"
META_PREFIX: Final = "Raftfs-Meta-"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
REPR_DIGEST: Final = "Repr-Digest"

RETRY_AFTER_MS: Final = "Raftfs-Retry-After-Ms"  # finer than Retry-After, which knows whole seconds only

HOPS_MAX: Final = 3  # a frontend may stand behind a frontend; more is a loop

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that speak of one connection and are never passed on (RFC 9110, 7.6.1)."""

END_TO_END: Final = frozenset({"if-match", "if-none-match", "idempotency-key", "repr-digest", "range", "if-range",
                               "content-type"})  # fmt: skip
"""Headers that decide what is done or answered: passed on whatever ``Connection`` says."""

ONCE: Final = ("Idempotency-Key", "If-Match", "If-None-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since",
               "Range", "Repr-Digest", "Content-Encoding", "Raftfs-Timeout", "Raftfs-Forwarded")  # fmt: skip
"""Headers that decide what is done. Of two of them one would be ignored, so two are refused."""

METHODS: Final[dict[str, tuple[str, ...]]] = {
    "files": ("GET", "HEAD", "PUT", "PATCH", "DELETE"),
    "dirs": ("GET", "HEAD", "PUT", "DELETE"),
    "export": ("GET", "HEAD"),
    "rename": ("POST",),
    "copy": ("POST",),
    "cluster": ("GET", "HEAD"),
    "cluster/leader": ("GET", "HEAD", "POST"),
    "cluster/members": ("GET", "HEAD", "POST"),
    "cluster/member": ("DELETE",),
    "cluster/replace": ("POST",),
    "livez": ("GET", "HEAD"),
    "readyz": ("GET", "HEAD"),
    "metrics": ("GET", "HEAD"),
    "page": ("GET", "HEAD"),
}
"""Routes, by the name under which they are counted, and the methods that each answers."""

WRITES: Final = frozenset({"PUT", "POST", "PATCH", "DELETE"})


def etag(revision: int) -> str:
    """Strong ETag of a file version: the same on every node, unlike one made of a local file's times."""
    return f'"r{revision}"'
