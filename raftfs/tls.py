"""TLS contexts made from PEM files, and made anew when the files change.

A context is never changed once it is made: a CA that was loaded into it could not be taken out again, and a client that
it gave a session ticket could come back without its certificate being looked at. So new files make a new context, every
handshake takes the one of its moment, and there are no tickets. Connections that stand are not looked at again. Files
that cannot be used change nothing: the old context stays, loudly.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Final, Protocol

from raftfs.errors import ConfigError
from raftfs.limits import CERTIFICATE_WARNING_S, PEM_BYTES_MAX, TLS_LOOK_S, TLS_WARN_S

if TYPE_CHECKING:
    from raftfs.config import ClientTLS, FrontendTLS, NodesTLS, PeerTLS

log = logging.getLogger(__name__)

_NO_PASSWORD: Final = ""
"""What a key that has a password is opened with: OpenSSL would ask for it on the terminal, and wait there."""

# Alerts about a certificate (RFC 8446, 6.2); they come in a handshake only.
_ALERT = re.compile(
    r"ALERT_(CERTIFICATE_REQUIRED|UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_EXPIRED|CERTIFICATE_UNKNOWN"
    r"|CERTIFICATE_REVOKED|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED|HANDSHAKE_FAILURE)"
)

_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH", "HTTP_REQUEST")


class Contexts(Protocol):
    """What a port needs: the contexts for handshakes that begin now, as server and as client."""

    @property
    def server(self) -> ssl.SSLContext: ...
    @property
    def client(self) -> ssl.SSLContext: ...


@dataclass(frozen=True, slots=True)
class Made:
    """Contexts made from one state of the files. ``expires_ms``: of the own certificate, None without one."""

    server: ssl.SSLContext | None
    client: ssl.SSLContext | None
    expires_ms: int | None


def server_context(
    cert: Path, key: Path, *, ca: Path | None = None, lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> ssl.SSLContext:
    """For accepting. With ``ca``, who dials must show a certificate of it. Raises OSError (ssl.SSLError is one)."""
    context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _ServerSide
    if ca is not None:
        context.load_verify_locations(cafile=ca)
        context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = lowest
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.load_cert_chain(cert, key, password=_NO_PASSWORD)
    return context


def client_context(
    ca: Path | None = None, cert: Path | None = None, key: Path | None = None,
    *, lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
) -> ssl.SSLContext:  # fmt: skip
    """For dialing: the server must show a certificate of ``ca`` (None: of a CA that this machine trusts) that names its
    host. ``cert`` (its key in it, or in ``key``): ours, for servers that ask. Raises OSError (ssl.SSLError is one)."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    context.hostname_checks_common_name = False
    context.minimum_version = lowest
    if cert is not None:
        context.load_cert_chain(cert, key, password=_NO_PASSWORD)
    return context


def explain(error: BaseException) -> str | None:
    """What a failure of a TLS handshake means, in words; None if ``error`` is about something else."""
    causes = list(_causes(error))
    for cause in reversed(causes):  # what wraps an error of OpenSSL says less than that itself
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {getattr(cause, 'verify_message', None) or cause}"
    text = " ".join(map(str, causes))
    if (alert := _alert(text)) is not None:
        return f"it does not accept our certificate, or wants one: {alert}"
    if any(word in text for word in _NO_TLS):
        return "it does not speak TLS there (http:// instead of https://?)"
    reasons = [getattr(cause, "reason", None) or str(cause) for cause in causes if isinstance(cause, ssl.SSLError)]
    return f"no TLS connection: {reasons[-1]}" if reasons else None


def refused_by_server(error: BaseException) -> bool:
    """Whether the other side ended a handshake over our certificate. In TLS 1.3 that is seen only after a request has
    been sent; the server never looked at it."""
    return any(_alert(str(cause)) is not None for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _alert(text: str) -> str | None:
    """``certificate required``, of ``[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required``."""
    found = _ALERT.search(text)
    return None if found is None else found[1].lower().replace("_", " ")


class _ServerSide(ssl.SSLObject):
    """asyncio closes a connection whose handshake fails without sending what OpenSSL has to say about it. The error
    takes it along, as ``alert``."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.alert = self.outgoing.read()  # type: ignore[attr-defined]
            raise


class _ServerContext(ssl.SSLContext):
    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, server_side: bool = False,
        server_hostname: str | bytes | None = None, session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:  # fmt: skip
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _ServerSide)
        made.outgoing = outgoing
        return made


class Credentials:
    """The files of one port, or of a dialer, and the contexts made from them. ``name``: in metrics; ``table``: of the
    configuration that names them, in logs and errors.

    Making one raises ConfigError if the files cannot be used. After that, what works is kept.
    """

    def __init__(self, name: str, table: str, files: Sequence[Path | None], make: Callable[[], Made]) -> None:
        self.name = name
        self.table = table
        self.failures = 0
        """how often changed files could not be used"""
        self._files = tuple(path for path in files if path is not None)
        self._make = make
        self._tried = self._seen = self._fingerprint()
        self._made = self._load()
        self._warned_s = float("-inf")
        self.warn()

    @property
    def server(self) -> ssl.SSLContext:
        assert self._made.server is not None
        return self._made.server

    @property
    def client(self) -> ssl.SSLContext:
        assert self._made.client is not None
        return self._made.client

    @property
    def expires_ms(self) -> int | None:
        """When the certificate that is shown now expires, in ms since the epoch; None if none is shown."""
        return self._made.expires_ms

    async def look(self) -> None:
        """Take over files that changed and then stayed the same from one look to the next: certificate and key cannot
        be replaced in one step. Warn, once a day, of a certificate that is about to expire."""
        before, self._seen = self._seen, await asyncio.to_thread(self._fingerprint)
        if self._seen == before and self._seen != self._tried:
            await asyncio.to_thread(self.reload)
        self.warn()

    def warn(self) -> None:
        """Log that the certificate expires soon, or has; at most once in TLS_WARN_S."""
        now_s = time()
        if self.expires_ms is None or now_s - self._warned_s < TLS_WARN_S:
            return
        left_s = self.expires_ms / 1000 - now_s
        if left_s < CERTIFICATE_WARNING_S:
            self._warned_s = now_s
            when = "has expired" if left_s < 0 else f"expires in {left_s / 86_400:.1f} days"
            log.warning("%s: the certificate in %s %s: put a new one in its place", self.table, self._files[0], when)

    def reload(self) -> bool:
        """Take over what the files hold now. False, and an error in the log, if they cannot be used."""
        self._tried = self._fingerprint()
        try:
            self._made = self._load()
        except ConfigError as error:
            self.failures += 1
            log.error("%s; the old ones stay in use", error)
            return False
        self._warned_s = float("-inf")
        log.info("%s: new handshakes use the certificate files as they are now", self.table)
        return True

    def _fingerprint(self) -> bytes:
        """Of what the files hold, or of why they cannot be read."""
        digest = hashlib.sha256()
        for path in self._files:
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.sha256(file.read(PEM_BYTES_MAX)).digest())
            except OSError as error:
                digest.update(f"error {error.errno} ".encode())
        return digest.digest()

    def _load(self) -> Made:
        try:
            for path in self._files:
                with path.open("rb") as file:  # OpenSSL does not say which one it cannot read
                    file.read(1)
            return self._make()
        except FileNotFoundError as error:
            raise ConfigError(f"{self.table}: there is no {error.filename}") from error
        except PermissionError as error:
            raise ConfigError(f"{self.table}: {error.filename} must not be read by this user") from error
        except OSError as error:  # ssl.SSLError is one, too
            files = ", ".join(map(str, self._files))
            raise ConfigError(f"{self.table}: certificate files cannot be used: {error}; check {files}") from error


def peer_credentials(files: PeerTLS) -> Credentials:
    """For the peer port, both ways: TLS 1.3, each side shows a certificate of the same CA."""

    def make() -> Made:
        lowest = ssl.TLSVersion.TLSv1_3
        return Made(
            server_context(files.cert, files.key, ca=files.ca, lowest=lowest),
            client_context(files.ca, files.cert, files.key, lowest=lowest),
            _expiry(files.cert),
        )

    return Credentials("peer", "peer_tls", (files.cert, files.key, files.ca), make)


def node_credentials(files: ClientTLS) -> Credentials:
    """For a node's client port, and for forwarding to the others'."""

    def make() -> Made:
        server = server_context(files.cert, files.key, ca=files.ca if files.require_client_cert else None)
        return Made(server, client_context(files.ca, files.cert, files.key), _expiry(files.cert))

    return Credentials("client", "client_tls", (files.cert, files.key, files.ca), make)


def frontend_credentials(files: FrontendTLS) -> Credentials:
    """For a frontend's port; they have no client context."""

    def make() -> Made:
        ca = files.ca if files.require_client_cert else None
        return Made(server_context(files.cert, files.key, ca=ca), None, _expiry(files.cert))

    return Credentials("frontend", "tls", (files.cert, files.key, files.ca), make)


def dialing_credentials(files: NodesTLS) -> Credentials:
    """For a frontend that dials nodes; they have no server context."""

    def make() -> Made:
        context = client_context(files.ca, files.cert, files.key)
        return Made(None, context, None if files.cert is None else _expiry(files.cert))

    return Credentials("nodes", "nodes_tls", (files.cert or files.ca, files.key, files.ca), make)


def _expiry(cert: Path) -> int:
    from raftfs.certificates import earliest_expiry_ms  # a heavy import, for those who have certificates

    return earliest_expiry_ms(cert)


@asynccontextmanager
async def watching(credentials: Sequence[Credentials], *, period_s: float = TLS_LOOK_S) -> AsyncIterator[None]:
    """While it is entered, look at the files from time to time."""

    async def look_for_ever() -> None:
        while True:
            await asyncio.sleep(period_s)
            for each in credentials:
                try:
                    await each.look()
                except Exception:
                    log.exception("%s: cannot look at the certificate files", each.table)

    task = asyncio.create_task(look_for_ever(), name="certificates")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
