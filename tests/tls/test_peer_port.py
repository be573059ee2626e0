"""The peer port attacked over real sockets: only who has a certificate that names the member it says to be is heard.

The attacks are shown to work on ports that leave out what is checked.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from raftfs import certificates
from raftfs.config import PeerTLS
from raftfs.consensus import Configuration, MemberRecord, PeerTransport, Roster
from raftfs.consensus import messages as m
from raftfs.consensus.frames import Connection
from raftfs.consensus.peers import Callbacks, Hello
from raftfs.tls import Contexts, Made, peer_credentials, server_context
from tests.consensus.ports import free_address

from .authority import attacker, forge, issued
from .greeting import greet, greeting


class Nameless(PeerTransport):
    """The planted fault: it does not compare the certificate with the name."""

    def _check_hello(self, hello: Hello, connection: Connection) -> str | None:
        tls, self._tls = self._tls, None
        try:
            return super()._check_hello(hello, connection)
        finally:
            self._tls = tls


@asynccontextmanager
async def member(
    name: str, tls: Contexts, others: dict[str, str], kind: type[PeerTransport] = PeerTransport
) -> AsyncIterator[tuple[PeerTransport, str]]:
    address = others.pop(name, free_address())
    records = [MemberRecord(each, where, f"https://{where}") for each, where in {**others, name: address}.items()]
    roster = Roster(me=name, uuid="", configuration=Configuration(tuple(records)))
    transport = kind(roster=roster, cluster_id="c", listen=address, tls=tls)
    await transport.start()
    try:
        yield transport, address
    finally:
        await transport.stop()


def nobody() -> dict[str, str]:
    """Member n2 is known, and does not run."""
    return {"n2": free_address()}


Attack = Callable[[Path, Path], ssl.SSLContext | None]

ATTACKS: dict[str, tuple[Attack, str]] = {
    "plain TCP": (lambda ca, there: None, "closed"),
    "no certificate": (lambda ca, there: attacker(), "handshake: TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    "another CA": (lambda ca, there: attacker(issued(there / "other", "n2")), "handshake: TLSV1_ALERT_UNKNOWN_CA"),
    "expired": (
        lambda ca, there: attacker(forge(ca, there, "n2", start_days=-2, end_days=-1)),
        "handshake: SSLV3_ALERT_CERTIFICATE_EXPIRED",
    ),
    "not yet valid": (
        lambda ca, there: attacker(forge(ca, there, "n2", start_days=1, end_days=2)),
        "handshake: SSLV3_ALERT_BAD_CERTIFICATE",
    ),
    "another member's": (lambda ca, there: attacker(issued(ca, "n3")), "refused: the certificate does not name 'n2'"),
    "a frontend's": (lambda ca, there: attacker(issued(ca, "frontend")), "refused: the certificate does not name 'n2'"),
    "the name in other letters": (
        lambda ca, there: attacker(issued(ca, "N2")),
        "refused: the certificate does not name 'n2'",
    ),
    "TLS 1.2": (
        lambda ca, there: attacker(issued(ca, "n2"), version=ssl.TLSVersion.TLSv1_2),
        "handshake: TLSV1_ALERT_PROTOCOL_VERSION",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_on_the_peer_port_is_not_heard(tmp_path: Path, name: str) -> None:
    ca = tmp_path / "ca"
    files = issued(ca, "n1")
    attack, outcome = ATTACKS[name]
    context = attack(ca, tmp_path)
    async with member("n1", peer_credentials(files), nobody()) as (_, address):
        assert await asyncio.to_thread(greet, address, greeting("c", "n2", "n1"), context) == outcome
        honest = attacker(issued(ca, "n2"))
        assert await asyncio.to_thread(greet, address, greeting("c", "n2", "n1"), honest) == "welcome"
        assert (
            await asyncio.to_thread(greet, address, greeting("c", "n9", "n1"), attacker(issued(ca, "n9")))
        ).startswith("refused: 'n9' is not a member")


async def test_a_port_that_does_not_compare_names_would_be_noticed(tmp_path: Path) -> None:
    files = issued(tmp_path, "n1")
    async with member("n1", peer_credentials(files), nobody(), Nameless) as (_, address):
        for whose in ("n3", "frontend"):
            context = attacker(issued(tmp_path, whose))
            assert await asyncio.to_thread(greet, address, greeting("c", "n2", "n1"), context) == "welcome"


async def test_a_port_that_does_not_verify_certificates_would_be_noticed(tmp_path: Path) -> None:
    files, other = issued(tmp_path / "ca", "n1"), issued(tmp_path / "other", "n2")
    credulous = Made(server_context(files.cert, files.key), peer_credentials(files).client, None)
    async with member("n1", credulous, nobody(), Nameless) as (_, address):  # type: ignore[arg-type]
        for context in (attacker(), attacker(other)):
            assert await asyncio.to_thread(greet, address, greeting("c", "n2", "n1"), context) == "welcome"


@pytest.mark.parametrize(
    ("presented", "reason"),
    [
        ("mallory", "certificate is not accepted: Hostname mismatch"),
        ("N2", "does not name 'n2'"),  # OpenSSL takes it for n2
        ("expired", "certificate is not accepted: certificate has expired"),
        ("another CA", "certificate is not accepted: unable to get local issuer certificate"),
    ],
)
async def test_a_dialer_does_not_trust_an_impostor(tmp_path: Path, presented: str, reason: str) -> None:
    """The impostor listens at n2's address, and would be content with anybody."""
    ca = tmp_path / "ca"
    mine = issued(ca, "n1")
    impostor: PeerTLS = {
        "mallory": lambda: issued(ca, "mallory"),
        "N2": lambda: issued(ca, "N2"),
        "expired": lambda: forge(ca, tmp_path, "n2", start_days=-2, end_days=-1),
        "another CA": lambda: issued(tmp_path / "other", "n2"),
    }[presented]()
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=server_context(impostor.cert, impostor.key))
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with member("n1", peer_credentials(mine), {"n2": f"127.0.0.1:{port}"}) as (transport, _):
            async with asyncio.timeout(60):
                while transport.refusal("n2") is None:  # noqa: ASYNC110 - the transport sets no event
                    await asyncio.sleep(0.01)
            assert reason in str(transport.refusal("n2"))
            assert not transport.connected("n2")
    assert not any(heard), "the greeting, which names the cluster, was told to an impostor"


async def test_a_wrong_certificate_of_ours_is_said_by_its_reason(tmp_path: Path) -> None:
    """The one who is refused has to hear why: in TLS 1.3 its own side of the handshake is over by then."""
    ca = tmp_path / "ca"
    old = forge(ca, tmp_path, "n1", start_days=-2, end_days=-1) if issued(ca, "n2") else None
    assert old is not None
    other = free_address()
    async with (
        member("n2", peer_credentials(issued(ca, "n2")), {"n2": other, "n1": free_address()}),
        member("n1", peer_credentials(old), {"n2": other}) as (transport, _),
    ):
        async with asyncio.timeout(60):
            while transport.refusal("n2") is None:  # noqa: ASYNC110 - the transport sets no event
                await asyncio.sleep(0.01)
        assert "does not accept our certificate" in str(transport.refusal("n2"))
        assert "certificate expired" in str(transport.refusal("n2"))


async def test_a_dropped_ca_is_not_accepted_and_what_stands_lives_on(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    live = tmp_path / "live"
    live.mkdir()
    files = PeerTLS(cert=live / "n1.crt", key=live / "n1.key", ca=live / "ca.crt")

    def install(source: Path, *cas: Path) -> None:
        made = issued(source, "n1")
        files.cert.write_bytes(made.cert.read_bytes())
        files.key.write_bytes(made.key.read_bytes())
        files.ca.write_bytes(b"".join((ca / "ca.crt").read_bytes() for ca in cas))

    for folder in (old, new):
        certificates.make_ca(folder, subject=folder.name)
    install(old, old)
    credentials = peer_credentials(files)
    async with member("n1", credentials, nobody()) as (_, address):

        async def outcome(source: Path) -> str:
            context = attacker(issued(source, "n2"))
            return await asyncio.to_thread(greet, address, greeting("c", "n2", "n1"), context)

        reader, writer = await asyncio.open_connection(
            *address.split(":"), ssl=attacker(issued(old, "n2")), server_hostname="n1"
        )
        assert (await outcome(old), await outcome(new)) == ("welcome", "handshake: TLSV1_ALERT_UNKNOWN_CA")
        install(old, old, new)
        assert credentials.reload()
        assert (await outcome(old), await outcome(new)) == ("welcome", "welcome")
        install(new, new)
        assert credentials.reload()
        assert (await outcome(old), await outcome(new)) == ("handshake: TLSV1_ALERT_UNKNOWN_CA", "welcome")
        assert not reader.at_eof(), "a connection that stood was closed"
        writer.close()


async def test_what_stands_outlives_its_certificate_and_nobody_new_comes_in_with_it(tmp_path: Path) -> None:
    """As a certificate that expires at night must not stop a cluster that works."""
    ca = tmp_path / "ca"
    files = issued(ca, "n1")
    heard: list[tuple[str, m.Message]] = []
    async with member("n1", peer_credentials(files), nobody()) as (transport, address):
        transport.on = Callbacks(message=lambda peer, message: heard.append((peer, message)))
        host, port = address.split(":")
        hello = msgspec.msgpack.encode(msgspec.structs.replace(greeting("c", "n2", "n1"), channel="raft"))
        for valid_s in (2, 8, 32):  # a slow machine may need more than the first of them for its handshake
            expires_s = time.time() + valid_s
            expiring = attacker(forge(ca, tmp_path, "n2", start_days=-1, end_days=valid_s / 86_400))
            reader, writer = await asyncio.open_connection(host, port, ssl=expiring, server_hostname="n1")
            writer.write(struct.pack(">I", len(hello)) + hello)
            try:
                await reader.readexactly(4)
                break
            except (OSError, asyncio.IncompleteReadError):
                writer.close()
        else:
            pytest.fail("no handshake in 32 s")
        await asyncio.sleep(max(0.0, expires_s + 1.5 - time.time()))  # certificates count whole seconds
        said = await asyncio.to_thread(greet, address, greeting("c", "n2", "n1"), expiring)
        assert said == "handshake: SSLV3_ALERT_CERTIFICATE_EXPIRED"
        probe = m.encode(m.Probe(1, 1))
        writer.write(struct.pack(">I", len(probe)) + probe)
        async with asyncio.timeout(60):
            while not heard:  # noqa: ASYNC110 - the transport sets no event
                await asyncio.sleep(0.01)
        assert heard == [("n2", m.Probe(1, 1))]
        writer.close()
