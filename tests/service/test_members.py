"""Members that come and go, over the shipped fakes: what is refused, and what is waited for."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from raftfs import limits
from raftfs.consensus import MemberRecord
from raftfs.errors import Conflict, InvalidRequest, NotFound, NotLeader, Unavailable

from .trio import Trio, pieces, trio

BIG = b"b" * 5_000_000


def addresses(name: str) -> tuple[str, str]:
    return f"{name}.example:1", f"http://{name}.example:2"


def let_listen(cluster: Trio, name: str, uuid: str) -> None:
    """A new member, which came with this data directory."""
    record = MemberRecord(name, *addresses(name), uuid=uuid, voter=False)
    cluster.log.configuration = cluster.log.configuration.with_member(record)


async def test_a_new_member_listens_until_it_has_every_chunk(tmp_path: Path) -> None:
    async with trio(tmp_path, 4) as cluster:
        let_listen(cluster, "n4", "u4")
        async with cluster.without("n4"):
            await cluster.put("/big", pieces(BIG), size=len(BIG))
        cluster.log.catch_up("n4")
        members = cluster.leader.members
        await members.round()
        assert "n4" not in cluster.log.configuration.voters, "it has the log, and not the chunks"
        await cluster.backfill("n4")
        await members.round()
        assert "n4" in cluster.log.configuration.voters


async def test_a_member_that_lags_does_not_vote_yet(tmp_path: Path) -> None:
    async with trio(tmp_path, 4) as cluster:
        let_listen(cluster, "n4", "u4")
        cluster.log.slow.add("n4")
        await cluster.put("/small", b"small")
        await cluster.backfill("n4")
        await cluster.leader.members.round()
        assert "n4" not in cluster.log.configuration.voters


async def test_nobody_goes_while_the_others_lack_chunks(tmp_path: Path) -> None:
    async with trio(tmp_path, request_deadline_s=1.0) as cluster:
        async with cluster.without("n3"):
            await cluster.put("/big", pieces(BIG), size=len(BIG))
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


def bind(cluster: Trio, name: str, uuid: str) -> None:
    """As a leader does when a directory comes under an unbound name."""
    record = cluster.log.configuration.get(name)
    assert record is not None
    cluster.log.configuration = cluster.log.configuration.with_member(msgspec.structs.replace(record, uuid=uuid))


async def test_a_replacement_that_is_asked_for_twice_leaves_the_new_machine_alone(tmp_path: Path) -> None:
    """Through two doors, because the first answer was lost; the second request is carried out when the new machine
    has come, and is just away."""
    async with trio(tmp_path) as cluster:
        members = cluster.leader.members
        await cluster.backfill("n2")
        bind(cluster, "n3", "lost")
        cluster.network.down.add("n3")
        await members.replace("n3", uuid="lost")
        await members.replace("n3", uuid="lost")
        bind(cluster, "n3", "new")
        came = cluster.log.configuration
        with pytest.raises(Conflict, match=r"another one now \(uuid new\) than .* \(lost\)"):
            await members.replace("n3", uuid="lost", force=True)
        cluster.network.down.discard("n3")
        await members.replace("n3", uuid="lost")  # it is there: done already
        assert cluster.log.configuration == came
        with pytest.raises(Conflict, match="another one now"):
            await members.replace("n3", *addresses("elsewhere"), uuid="lost")


async def test_nothing_is_called_done_that_may_be_lost(tmp_path: Path) -> None:
    """The leader's log has the change; whether that is committed, it cannot know without the others."""
    async with trio(tmp_path) as cluster:
        members = cluster.leader.members
        assert await members.add("n4", *addresses("n4"))
        for name in ("n2", "n3"):
            cluster.network.down.add(name)
        with pytest.raises(Unavailable):
            await members.add("n4", *addresses("n4"))
        with pytest.raises(Unavailable):
            await members.replace("n4")
        with pytest.raises(Unavailable):
            await members.remove("n5")
        cluster.network.down.clear()
        assert not await members.add("n4", *addresses("n4"))
        with pytest.raises(NotFound, match="n5"):
            await members.remove("n5")


async def test_what_waits_while_another_request_does_the_same_leaves_the_new_machine_alone(tmp_path: Path) -> None:
    """Neither names a directory. Both looked at the same member, and wait until its vote may be taken away."""
    async with trio(tmp_path) as cluster:
        members = cluster.leader.members
        bind(cluster, "n3", "lost")
        cluster.network.down.add("n3")
        await cluster.put("/big", pieces(BIG), size=len(BIG))
        await cluster.backfill("n1")
        first = asyncio.create_task(members.replace("n3"))
        await asyncio.sleep(limits.MEMBERS_POLL_S / 2)
        second = asyncio.create_task(members.replace("n3"))
        await asyncio.sleep(0)
        await cluster.backfill("n2")
        await first
        bind(cluster, "n3", "new")
        with suppress(Conflict):  # or done, if it looked before the new machine came
            await second
        record = cluster.log.configuration.get("n3")
        assert record is not None
        assert record.uuid == "new"


async def test_who_was_replaced_while_it_was_asked_does_not_vote(tmp_path: Path) -> None:
    """What the old directory has says nothing of the new one."""
    async with trio(tmp_path, 4) as cluster:
        let_listen(cluster, "n4", "old")
        await cluster.put("/small", b"small")
        await cluster.backfill("n4")
        cluster.network.hold("n2", "status")  # the round waits for it
        promoting = asyncio.create_task(cluster.leader.members.round())
        await asyncio.sleep(0.05)
        bind(cluster, "n4", "new")
        cluster.network.release("n2", "status")
        await promoting
        assert "n4" not in cluster.log.configuration.voters
        await cluster.leader.members.round()
        assert "n4" in cluster.log.configuration.voters


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
