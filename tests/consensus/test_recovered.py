"""A member that was recovered into a cluster of one, and the members that it had before: they never talk again.

Together the old ones are a majority of the old cluster, and may go on as that; so nothing of theirs may reach the
recovered one, and nothing of its may reach them.
"""

from __future__ import annotations

import asyncio

import pytest

from raftfs.consensus import Configuration, MemberRecord, PeerTransport, Roster
from raftfs.consensus.peers import Callbacks

from .ports import free_address


class Peer:
    """The peer port of a node, and whom it is connected to, in either direction."""

    def __init__(self, me: str, uuid: str, members: Configuration, index: int, listen: str) -> None:
        roster = Roster(me=me, uuid=uuid, configuration=members, index=index)
        self.roster, self.heard = roster, set[str]()
        self.port = PeerTransport(roster=roster, cluster_id="c", listen=listen)
        self.port.on = Callbacks(connected=self.heard.add, message=lambda peer, _message: self.heard.add(peer))


async def meet(recovered: tuple[str, Configuration], old: Configuration, at: dict[str, str]) -> list[Peer]:
    """The old members n1 and n2, and n3 as it is now, all at their addresses; who heard whom."""
    peers = [Peer(name, f"uuid-{name[1]}", old, 2, at[name]) for name in ("n1", "n2")]
    peers.append(Peer("n3", recovered[0], recovered[1], 20, at["n3"]))
    for peer in peers:
        await peer.port.start()
    try:
        async with asyncio.timeout(60):
            while not all(peer.port.connected(other) for peer, other in ((peers[0], "n2"), (peers[1], "n1"))):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for peer in peers[:2]:
                while not (peer.port.refusal("n3") or peer.port.connected("n3")):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # for whatever must not come
    finally:
        for peer in peers:
            await peer.port.stop()
    return peers


def placed(*members: tuple[str, str, str, bool]) -> Configuration:
    """Members: name, address, UUID, whether it votes."""
    return Configuration(
        tuple(MemberRecord(name, at, f"http://{at}", uuid, votes) for name, at, uuid, votes in members)
    )


@pytest.fixture
def at() -> dict[str, str]:
    return {name: free_address() for name in ("n1", "n2", "n3")}


async def test_old_members_and_the_recovered_one_refuse_each_other(at: dict[str, str]) -> None:
    old = placed(*((name, at[name], f"uuid-{name[1]}", True) for name in at))
    n1, n2, n3 = await meet(("new", placed(("n3", at["n3"], "new", True))), old, at)
    assert (n1.heard, n2.heard, n3.heard) == ({"n2"}, {"n1"}, set())
    for peer in (n1, n2):
        assert "not a member of this cluster" in str(peer.port.refusal("n3"))


async def test_not_even_where_new_members_have_their_names_and_addresses(at: dict[str, str]) -> None:
    """n1 and n2 were added anew, but the machines were started with their old data: the recovered node dials them."""
    old = placed(*((name, at[name], f"uuid-{name[1]}", True) for name in at))
    grown = placed(("n3", at["n3"], "new", True), ("n1", at["n1"], "new-1", True), ("n2", at["n2"], "", False))
    n1, n2, n3 = await meet(("new", grown), old, at)
    assert (n1.heard, n2.heard, n3.heard) == ({"n2"}, {"n1"}, set())
    for name in ("n1", "n2"):
        assert "another data directory" in str(n3.port.refusal(name))
    assert n3.roster.configuration == grown
    assert n1.roster.configuration == old
    assert (n1.roster.book["n3"].uuid, n3.roster.book["n1"].uuid) == ("uuid-3", "new-1"), "nobody learned anything"


async def test_with_the_old_uuid_the_old_members_would_take_it_for_theirs(at: dict[str, str]) -> None:
    """What the new UUID is for: with the old one, they listen to the recovered node as soon as it has cause to dial."""
    old = placed(*((name, at[name], f"uuid-{name[1]}", True) for name in at))
    grown = placed(("n3", at["n3"], "uuid-3", True), ("n1", at["n1"], "new-1", True), ("n2", at["n2"], "", False))
    n1, _, _ = await meet(("uuid-3", grown), old, at)
    hello = n1.roster.admit("n3", "uuid-3", fresh=False)
    assert hello is None
    assert n1.roster.admit("n3", "new", fresh=False) is not None
