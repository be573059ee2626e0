"""Configuration of a node and of a frontend: TOML files or keyword arguments, checked before anything starts.

Times are seconds unless the name says otherwise. Nothing here opens a file of the store or a socket.
"""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from raftfs import limits
from raftfs.errors import ConfigError


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file. Raises ConfigError naming the file, the key and what is wrong with it."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"configuration {path} is not valid TOML: {error}") from error
        try:
            return cls(**values)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"configuration {path}: {problems}") from None


class MemberConfig(_Config):
    """One member of the cluster: its id, its peer address ``host:port`` and the URL of its HTTP API."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    peer: str
    url: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        split_address(self.peer)
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url {self.url!r} must start with http:// or https://")
        return self


class PeerTLS(_Config):
    """Files (PEM) for mutual TLS on the peer port. The certificate must name the member's id (DNS name)."""

    cert: Path
    key: Path
    ca: Path


class ClientTLS(_Config):
    """Files (PEM) for TLS on a node's client port. The certificate must name the host in this member's ``url``. ``ca``
    verifies the other nodes' client ports when this node forwards, and clients, if ``require_client_cert``."""

    cert: Path
    key: Path
    ca: Path
    require_client_cert: bool = False


class FrontendTLS(_Config):
    """Files (PEM) for TLS on a frontend's port. ``ca`` is what clients are verified by, if ``require_client_cert``."""

    cert: Path
    key: Path
    ca: Path | None = None
    require_client_cert: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.require_client_cert and self.ca is None:
            raise ValueError("require_client_cert needs ca: whose certificates are good?")
        return self


class NodesTLS(_Config):
    """Files (PEM) with which a frontend dials nodes: the CA that verifies them and, for nodes that demand one, its own
    certificate."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        return self


class RaftTimes(_Config):
    """Election timeouts are drawn between min and max; a leader without a quorum's answers for max steps down."""

    heartbeat_ms: int = Field(default=50, ge=5, le=5_000)
    election_timeout_ms_min: int = Field(default=400, ge=20, le=60_000)
    election_timeout_ms_max: int = Field(default=800, ge=30, le=120_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.heartbeat_ms * 3 <= self.election_timeout_ms_min < self.election_timeout_ms_max:
            raise ValueError("need 3 * heartbeat_ms <= election_timeout_ms_min < election_timeout_ms_max")
        return self


class NodeConfig(_Config):
    """One server. ``members`` lists the whole cluster, this node among them."""

    id: str
    cluster_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    data_dir: Path
    members: list[MemberConfig] = Field(min_length=1, max_length=limits.MEMBERS_MAX)
    client_listen: str | None = None
    peer_listen: str | None = None
    peer_tls: PeerTLS | None = None
    client_tls: ClientTLS | None = None
    insecure: bool = False
    times: RaftTimes = RaftTimes()
    request_deadline_s: float = Field(default=limits.REQUEST_DEADLINE_S_DEFAULT, gt=0, le=limits.REQUEST_DEADLINE_S_MAX)
    chunk_grace_s: float = Field(default=limits.CHUNK_GRACE_S_DEFAULT, gt=0)
    upload_expiry_s: float = Field(default=limits.UPLOAD_EXPIRY_S_DEFAULT, gt=0)
    collect_period_s: float = Field(default=limits.COLLECT_PERIOD_S_DEFAULT, gt=0)
    backfill_period_s: float = Field(default=limits.BACKFILL_PERIOD_S_DEFAULT, gt=0)
    journal_segment_bytes: int = Field(default=limits.JOURNAL_SEGMENT_BYTES, ge=4096, le=2**30)
    journal_segments_kept: int = Field(default=limits.JOURNAL_SEGMENTS_KEPT, ge=2, le=1000)
    auto_switch: bool = True
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @model_validator(mode="after")
    def _check(self) -> Self:
        ids = [member.id for member in self.members]
        peers = [member.peer for member in self.members]
        urls = [member.url for member in self.members]
        for what, values in (("id", ids), ("peer", peers), ("url", urls)):
            if len(set(values)) != len(values):
                raise ValueError(f"two members have the same {what}: {sorted(values)}")
        if self.id not in ids:
            raise ValueError(f"id {self.id!r} is not among the members {ids}")
        self._check_tls()
        return self

    def _check_tls(self) -> None:
        https = self.me.url.startswith("https://")
        if self.client_tls is not None and not https:
            raise ValueError(f"url {self.me.url} of {self.id} must begin with https://, because [client_tls] is set")
        if self.client_tls is None and https and self.client_listen is None:
            raise ValueError(
                f"url {self.me.url} of {self.id} needs [client_tls] (or client_listen, if a proxy in front speaks TLS)"
            )
        if self.insecure:
            return
        if self.peer_tls is None and not is_loopback(self.peer_address):
            raise ValueError(
                f"peer address {self.peer_address} is not loopback: set [peer_tls], or insecure = true "
                "if the network is yours alone"
            )
        if self.client_tls is None and not is_loopback(self.client_address):
            raise ValueError(
                f"client address {self.client_address} is not loopback: set [client_tls], or insecure = true "
                "if the network is yours alone"
            )
        for member in self.members:
            _check_target(member.url)

    @property
    def me(self) -> MemberConfig:
        return next(member for member in self.members if member.id == self.id)

    @property
    def client_address(self) -> str:
        """``host:port`` on which the HTTP API listens."""
        return self.client_listen or _address(self.me.url)

    @property
    def peer_address(self) -> str:
        """``host:port`` on which the peer port listens."""
        return self.peer_listen or self.me.peer


class FrontendConfig(_Config):
    """A stateless frontend. ``nodes`` are URLs of any members; the leader is found through them."""

    listen: str
    nodes: list[str] = Field(min_length=1)
    tls: FrontendTLS | None = None
    nodes_tls: NodesTLS | None = None
    insecure: bool = False
    request_deadline_s: float = Field(default=limits.REQUEST_DEADLINE_S_DEFAULT, gt=0, le=limits.REQUEST_DEADLINE_S_MAX)
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for url in self.nodes:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"url {url!r} must start with http:// or https://")
        if self.insecure:
            return self
        if self.tls is None and not is_loopback(self.listen):
            raise ValueError(
                f"listen address {self.listen} is not loopback: set [tls], or insecure = true "
                "if the network is yours alone"
            )
        for url in self.nodes:
            _check_target(url)
        return self


def _address(url: str) -> str:
    return url.split("://", 1)[1].split("/", 1)[0]


def in_the_clear(url: str) -> bool:
    """Whether a request to ``url`` could be read on a network."""
    return not url.startswith("https://") and not _names_this_machine(urlsplit(url).hostname or "")


def _check_target(url: str) -> None:
    """What is forwarded must not cross a network in the clear, either."""
    if in_the_clear(url):
        raise ValueError(f"url {url} is not loopback: use https://, or insecure = true if the network is yours alone")


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as (host, port). Raises ValueError saying what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"address {address!r} is not host:port with a port from 1 to 65535")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether a ``host:port`` names this machine alone."""
    return _names_this_machine(split_address(address)[0])


def _names_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
