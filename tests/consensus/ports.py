"""Free ports for servers in tests."""

from __future__ import annotations

from collections.abc import Mapping

from raftfs.consensus import Configuration, MemberRecord, PeerTransport, Roster
from raftfs.testing.ports import HOST, free_ports
from raftfs.tls import Contexts


def free_address() -> str:
    """A loopback address ``host:port`` that is free."""
    return f"{HOST}:{free_ports(1)[0]}"


def peer_transport(
    me: str, members: Mapping[str, str], *, cluster_id: str = "c", uuid: str = "",
    tls: Contexts | None = None,
) -> PeerTransport:  # fmt: skip
    """A transport among members (id → address) that all vote; without ``uuid``, nobody's identity is checked."""
    records = tuple(MemberRecord(name, address, f"http://{address}") for name, address in members.items())
    roster = Roster(me=me, uuid=uuid, configuration=Configuration(records))
    return PeerTransport(roster=roster, cluster_id=cluster_id, listen=members[me], tls=tls)
