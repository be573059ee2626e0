"""Members that come and go, over the shipped fakes: what is refused, and what is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftfs.consensus import MemberRecord
from raftfs.errors import Conflict, InvalidRequest, NotFound, NotLeader, Unavailable

from .trio import pieces, trio

BIG = b"b" * 5_000_000


def addresses(name: str) -> tuple[str, str]:
    return f"{name}.example:1", f"http://{name}.example:2"


async def test_a_new_member_listens_until_it_has_every_chunk(tmp_path: Path) -> None:
    async with trio(tmp_path, 4) as cluster:
        outsider = MemberRecord("n4", *addresses("n4"), uuid="u4", voter=False)
        cluster.log.configuration = cluster.log.configuration.with_member(outsider)
        cluster.network.down.add("n4")
        await cluster.put("/big", pieces(BIG), size=len(BIG))
        cluster.network.down.discard("n4")
        cluster.log.catch_up("n4")
        members = cluster.leader.members
        await members.round()
        assert "n4" not in cluster.log.configuration.voters, "it has the log, and not the chunks"
        await cluster.backfill("n4")
        await members.round()
        assert "n4" in cluster.log.configuration.voters


async def test_a_member_that_lags_does_not_vote_yet(tmp_path: Path) -> None:
    async with trio(tmp_path, 4) as cluster:
        cluster.log.configuration = cluster.log.configuration.with_member(
            MemberRecord("n4", *addresses("n4"), uuid="u4", voter=False)
        )
        cluster.log.slow.add("n4")
        await cluster.put("/small", b"small")
        await cluster.backfill("n4")
        await cluster.leader.members.round()
        assert "n4" not in cluster.log.configuration.voters


async def test_nobody_goes_while_the_others_lack_chunks(tmp_path: Path) -> None:
    async with trio(tmp_path, request_deadline_s=1.0) as cluster:
        cluster.network.down.add("n3")
        await cluster.put("/big", pieces(BIG), size=len(BIG))
        cluster.network.down.discard("n3")
        cluster.log.catch_up("n3")
        await cluster.backfill("n1")
        with pytest.raises(Unavailable, match="complete n1"):
            await cluster.leader.members.remove("n2", timeout_s=0.3)
        await cluster.backfill("n3")
        await cluster.leader.members.remove("n2", timeout_s=0.3)
        assert cluster.log.configuration.voters == {"n1", "n3"}


async def test_nobody_goes_if_the_rest_would_be_without_a_quorum(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        await cluster.backfill("n1")
        cluster.network.down.add("n3")
        for force in (False, True):
            with pytest.raises(Unavailable, match="reachable are n1"):
                await cluster.leader.members.remove("n2", force=force, timeout_s=0.3)


async def test_a_lost_member_is_replaced_once(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        members = cluster.leader.members
        for name in ("n1", "n2"):
            await cluster.backfill(name)
        with pytest.raises(Conflict, match="is alive"):
            await members.replace("n3")
        cluster.network.down.add("n3")
        await members.replace("n3", *addresses("new"))
        replaced = cluster.log.configuration.get("n3")
        assert replaced == MemberRecord("n3", *addresses("new"), voter=False)
        await members.replace("n3", *addresses("new"))
        assert cluster.log.configuration.get("n3") == replaced


async def test_a_member_that_is_too_busy_to_answer_is_not_replaced(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        before = cluster.log.configuration
        cluster.network.hold("n3", "status")
        with pytest.raises(Conflict, match="is alive"):
            await cluster.leader.members.replace("n3", force=True)
        assert cluster.log.configuration == before
        cluster.network.release("n3", "status")


async def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        members = cluster.leader.members
        with pytest.raises(NotFound, match="members are n1, n2, n3"):
            await members.remove("n9")
        with pytest.raises(InvalidRequest, match="host:port"):
            await members.add("n4", "nowhere", "http://n4.example")
        with pytest.raises(Conflict, match="n2 is a member already"):
            await members.add("n4", cluster.log.configuration.members[1].peer, "http://n4.example")
        assert await members.add("n4", *addresses("n4"))
        assert not await members.add("n4", *addresses("n4")), "a repetition"
        with pytest.raises(Conflict, match="does not vote"):
            await members.transfer("n4")
        with pytest.raises(NotLeader):
            await cluster.services["n2"].members.remove("n3")


async def test_a_leader_that_is_removed_hands_over_first(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        with pytest.raises(NotLeader):
            await cluster.leader.members.remove("n1")
        assert cluster.log.leader != "n1"
        assert "n1" in cluster.log.configuration.voters, "the new leader is asked next"
