"""The JSON shapes of the HTTP API (field names are stable, more fields may be added).

Sizes in bytes, times in milliseconds since the epoch (``_ms``). Server and client share these models, so that an
answer that does not fit is an error at the boundary and not somewhere behind it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Consistency = Literal["linearizable", "bounded", "stale"]
EntryType = Literal["file", "directory"]
Role = Literal["leader", "follower", "learner"]


class _Answer(BaseModel):
    """What a server sends: unknown fields are ignored, because newer servers may add some."""

    model_config = ConfigDict(extra="ignore")


class _Request(BaseModel):
    """What a client sends: an unknown field is a mistake and is refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Entry(_Answer):
    """A file or directory. ``revision`` is that of its last change; a file's ETag is ``"r<revision>"``."""

    path: str
    name: str
    type: EntryType
    size: int
    revision: int
    created_ms: int
    modified_ms: int
    content_type: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)


class EntryList(_Answer):
    """One page of a list. Pass ``next`` as ``cursor`` for the page after it; all pages show one revision."""

    entries: list[Entry]
    next: str | None
    revision: int


class ExportEntry(Entry):
    """An entry with what it consists of. ``chunks``: (BLAKE3 digest in hexadecimal, length) of each, from byte
    ``offset`` on; the rest comes first on the next page if ``more``. A small file is one chunk; ``data`` are its bytes
    (base64), if they were asked for."""

    offset: int = 0
    more: bool = False
    chunks: list[tuple[str, int]] = Field(default_factory=list)
    data: str | None = None


class ExportPage(_Answer):
    """One page of a path and all below it, the path itself first. As ``EntryList``."""

    entries: list[ExportEntry]
    next: str | None
    revision: int


class LeaderRef(_Answer):
    id: str
    url: str


class FormatRange(_Answer):
    """Format versions, both included."""

    min: int
    max: int


class Member(_Answer):
    """``lag`` is in log entries behind the leader's commit; ``missing_chunks`` counts those, too, that were not looked
    for yet. ``complete_index``: every chunk that was referenced when that much was applied is there; who waits until it
    has reached what was applied once waits for what was missing then. ``formats`` are those that its code understands;
    ``refused`` says why it does not listen to the node that answers; ``rejoining``, how far it is with getting back
    what was damaged (it takes no part until then). ``uuid`` names the data directory that is listened to under this id,
    None before one came. None where this node cannot know."""

    id: str
    url: str
    peer: str
    role: Role
    reachable: bool
    applied_index: int | None
    lag: int | None
    missing_chunks: int | None
    complete_index: int | None = None
    formats: FormatRange | None = None
    refused: str | None = None
    rejoining: str | None = None
    uuid: str | None = None


class MemberRequest(_Request):
    """Body of ``POST /v1/cluster/members``: ``peer`` is ``host:port``, ``url`` that of the member's HTTP API."""

    id: str
    peer: str
    url: str


class MoveMemberRequest(_Request):
    """Body of ``POST /v1/cluster/members/{id}/replace``; what is left out stays as it is. ``uuid``: that of the data
    directory that is lost; a request that names it does nothing to the machine that came after an earlier one."""

    peer: str | None = None
    url: str | None = None
    uuid: str | None = None


class TransferRequest(_Request):
    """Body of ``POST /v1/cluster/leader``. ``to``: the member that is to lead; None: whoever has the newest log."""

    to: str | None = None


class Check(_Answer):
    """One of the things that ``/readyz`` looks at. ``text`` says how it is, good or bad."""

    name: str
    ok: bool
    text: str


class CertificateReport(_Answer):
    """A certificate that a node shows, or dials with. ``name``: of the port. ``expires_ms``: None without one."""

    name: str
    expires_ms: int | None


class NodeReport(_Answer):
    """What the node that answers says of itself. ``version``: of its software. ``time_ms``: its clock. ``total_bytes``:
    of the disk of its data directory; ``free_bytes``: what it may still write there."""

    id: str
    version: str
    time_ms: int
    data_dir: str
    free_bytes: int
    total_bytes: int
    checks: list[Check]
    certificates: list[CertificateReport] = Field(default_factory=list)


class ClusterStatus(_Answer):
    """``format`` is the format version that is active, 0 while the cluster is being formed. ``node``: who answers."""

    cluster_id: str
    revision: int
    term: int
    leader: LeaderRef | None
    members: list[Member]
    quorum: bool
    state_hash: str | None = None
    applied_index: int | None = None
    format: int | None = None
    node: NodeReport | None = None


class Problem(_Answer):
    """RFC 9457 problem. ``code`` is stable; ``outcome`` is present on writes."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    outcome: Literal["applied", "not_applied", "unknown"] | None = None


class MoveRequest(_Request):
    """Body of ``POST /v1/rename`` and ``POST /v1/copy``. ``if_match`` is the revision that ``from`` must have."""

    source: str = Field(alias="from")
    target: str = Field(alias="to")
    replace: bool = False
    parents: bool = False
    if_match: int | None = None


class MetadataPatch(_Request):
    """JSON merge patch (RFC 7396) of a file's metadata: a null removes the key."""

    content_type: str | None = None
    metadata: dict[str, str | None] = Field(default_factory=dict)
