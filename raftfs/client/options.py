"""What a client is made of: its endpoints and its times. Plain data, so a client can be pickled and forked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from yarl import URL

from raftfs import limits
from raftfs.errors import ConfigError

ENDPOINTS_VARIABLE = "RAFTFS_ENDPOINTS"
CA_VARIABLE = "RAFTFS_CA"
CERT_VARIABLE = "RAFTFS_CERT"
KEY_VARIABLE = "RAFTFS_KEY"
StrPath: TypeAlias = str | os.PathLike[str]
ENDPOINT_DEFAULT = "http://127.0.0.1:7400"


@dataclass(frozen=True, slots=True)
class Options:
    """Configuration of a client. Times in seconds.

    ``deadline_s`` bounds one call with all its retries; for a transfer it bounds the time in which nothing moves.
    ``attempt_s`` bounds one attempt in the same way. ``ca``, ``cert`` and ``key``: PEM files for https endpoints.
    Raises ConfigError naming the value that is wrong.
    """

    endpoints: tuple[str, ...]
    deadline_s: float = limits.CLIENT_DEADLINE_S_DEFAULT
    attempt_s: float = limits.CLIENT_ATTEMPT_S_DEFAULT
    connect_s: float = limits.CLIENT_CONNECT_S_DEFAULT
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.cert is None:
            raise ConfigError("key is given without cert: whose key is it?")
        for name in ("deadline_s", "attempt_s", "connect_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above zero, not {getattr(self, name)!r}")


def make_options(
    endpoints: str | Iterable[str] | None, deadline_s: float, attempt_s: float, connect_s: float,
    ca: StrPath | None, cert: StrPath | None, key: StrPath | None,
) -> Options:  # fmt: skip
    """What is None comes from the environment; the key never without the certificate that it belongs to."""
    if ca is None:
        ca = os.environ.get(CA_VARIABLE) or None
    if cert is None and key is None:
        cert, key = os.environ.get(CERT_VARIABLE) or None, os.environ.get(KEY_VARIABLE) or None
    files = (None if path is None else os.path.abspath(path) for path in (ca, cert, key))
    return Options(resolve_endpoints(endpoints), deadline_s, attempt_s, connect_s, *files)


def resolve_endpoints(endpoints: str | Iterable[str] | None) -> tuple[str, ...]:
    """URLs from an argument, else from RAFTFS_ENDPOINTS (comma separated), else the local frontend.

    Raises ConfigError for what is not an ``http://`` or ``https://`` URL of a server.
    """
    if endpoints is None:
        endpoints = os.environ.get(ENDPOINTS_VARIABLE) or ENDPOINT_DEFAULT
    if isinstance(endpoints, str):
        endpoints = [part for part in endpoints.split(",") if part.strip()]
    found = tuple(dict.fromkeys(_check(endpoint.strip()) for endpoint in endpoints))
    if not found:
        raise ConfigError("no endpoint is given: name at least one URL, such as http://127.0.0.1:7400")
    return found


def _check(endpoint: str) -> str:
    try:
        url = URL(endpoint)
        port = url.port
    except ValueError as error:
        raise ConfigError(f"endpoint {endpoint!r} is not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or port is None:
        raise ConfigError(f"endpoint {endpoint!r} must look like http://host:port")
    if url.user or url.password or url.raw_query_string or url.raw_fragment:
        raise ConfigError(f"endpoint {endpoint!r} must be a plain URL: no user, query or fragment")
    return str(url).rstrip("/")
