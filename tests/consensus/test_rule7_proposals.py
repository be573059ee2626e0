"""Rule 7: a proposal always ends: applied, refused, or "outcome unknown" at its deadline. And it ends truthfully."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pysyncobj import FAIL_REASON

from raftfs.consensus import messages as m
from raftfs.consensus.proposals import Proposals
from raftfs.errors import NotLeader, Unavailable, UnknownOutcome

from .guarded_cluster import GuardedMaker
from .members import members
from .plain_cluster import PlainMaker


def test_plain_pysyncobj_never_answers_a_proposal_that_was_on_a_link_when_it_broke(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    forwarded = cluster.put("b", "forwarded")
    cluster.tick("b")
    assert cluster.network.in_flight("b", "a")
    cluster.network.reset("a", "b")
    cluster.network.connect("a", "b")
    cluster.run(120.0)
    assert cluster.put("a", "the cluster works").answers == []
    cluster.run(1.0)
    assert cluster.values("b") == ["the cluster works"]
    assert forwarded.answers == []


def test_plain_pysyncobj_never_answers_a_proposal_while_there_is_no_leader(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.network.isolate("a")
    waiting = cluster.put("a", "waiting")
    cluster.run(120.0)
    assert waiting.answers == []


def test_plain_pysyncobj_says_leader_changed_of_a_write_that_is_applied(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    cluster.network.hold("a", "b")
    write = cluster.put("b", "applied")
    cluster.tick("b")
    cluster.network.drain()
    for _ in range(4):
        cluster.clock.advance(0.2)
        cluster.tick("a")
        cluster.network.drain()
    cluster.crash("a")
    cluster.elect("c")
    cluster.run(1.0)
    assert write.answers == [(None, FAIL_REASON.LEADER_CHANGED)]
    assert cluster.values("b") == cluster.values("c") == ["applied"]


def test_plain_pysyncobj_says_success_of_a_lost_write_when_the_answer_to_another_comes_late(plain: PlainMaker) -> None:
    """Forwarded proposals are numbered from one in each life of a node."""
    cluster = plain()
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)
    cluster.put("b", "of the first life")
    cluster.tick("b")
    network.deliver("b", "a", 10)  # it waits for a's next tick
    cluster.crash("b")
    cluster.restart("b")
    network.hold("b", "c")
    network.hold("c", "b")
    cluster.clock.advance(0.2)
    network.hold("b", "a")
    heartbeat = {"type": "append_entries", "term": cluster.term("a"), "commit_index": 2, "entries": []}
    cluster.inject("a", "b", heartbeat | {"prevLogIdx": 2, "prevLogTerm": cluster.term("a")})
    lost = cluster.put("b", "of the second life")
    cluster.tick("b")
    network.reset("a", "b")
    network.connect("a", "b")
    network.release_all()
    cluster.run(2.0)
    assert lost.acknowledged
    assert cluster.values("a") == cluster.values("b") == ["of the first life"]


def test_plain_pysyncobj_retries_a_raising_method_for_ever_and_takes_the_next_leader_down(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    cluster.nodes["a"].fail(callback=lambda result, reason: None)
    after = cluster.put("a", "after")
    cluster.tick("a")
    cluster.clock.advance(0.2)
    cluster.tick("a")
    cluster.network.drain()
    sent: list[Any] = []
    for _ in range(20):
        cluster.clock.advance(0.2)
        with pytest.raises(ValueError, match="a replicated method that raises"):
            cluster.tick("a")
        sent += cluster.network.in_flight("a", "b")
    assert sent == []  # no heartbeats either
    assert after.answers == []

    for name in "bc":  # the two others lead in turn, and commit it
        cluster.elect(name)
        for _ in range(20):
            cluster.clock.advance(0.02)
            with pytest.raises(ValueError, match="a replicated method that raises"):
                cluster.tick(name)


def test_plain_pysyncobj_applies_twice_on_one_replica_when_a_callback_raises(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    raised: list[bool] = []

    def callback(result: Any, reason: int) -> None:
        raised.append(True)
        raise ValueError("a callback that raises")

    cluster.nodes["a"].put("once", callback=callback)
    cluster.tick("a")
    with pytest.raises(ValueError, match="a callback that raises"):
        cluster.run(1.0)
    cluster.run(1.0)
    assert raised == [True]
    assert cluster.values("a") == ["once", "once"]
    assert cluster.values("b") == ["once"]


async def test_raftfs_answers_a_proposal_that_nobody_can_decide_at_its_deadline(tmp_path: Path) -> None:
    async with members(tmp_path) as group:
        leader = await group.propose(b"before")
        group.wires[leader].set_cut(True)
        with pytest.raises(UnknownOutcome) as refusal:
            await group.nodes[leader].propose(b"undecided", timeout_s=0.3)
        assert refusal.value.outcome == "unknown"


async def test_raftfs_refuses_a_proposal_at_once_where_nobody_leads(tmp_path: Path) -> None:
    async with members(tmp_path, "abc") as group:
        leader = await group.leader()
        follower = next(name for name in group.nodes if name != leader)
        with pytest.raises(NotLeader) as refusal:
            await group.nodes[follower].propose(b"refused", timeout_s=30)
        assert refusal.value.outcome == "not_applied"
        for wire in group.wires.values():
            wire.set_cut(True)
        await group.until(lambda: not group.nodes[leader].is_leader)
        with pytest.raises(NotLeader):
            await group.nodes[leader].propose(b"refused", timeout_s=30)
        with pytest.raises(Unavailable):
            await group.nodes[follower].barrier(timeout_s=0.2)


async def test_raftfs_says_not_applied_only_of_what_can_never_be_applied(tmp_path: Path) -> None:
    async with members(tmp_path) as group:
        leader = await group.leader()
        others = "".join(name for name in group.nodes if name != leader)
        group.wires[leader].set_cut(True)
        loser = asyncio.create_task(group.nodes[leader].propose(b"cut off", timeout_s=30))
        for number in range(5):
            await group.propose(b"%d" % number, among=others)
        assert not loser.done()
        group.wires[leader].set_cut(False)
        with pytest.raises(Unavailable) as refusal:
            await loser
        assert refusal.value.outcome == "not_applied"
        await group.nodes[leader].barrier(timeout_s=30)
        assert group.states[leader].commands == [b"%d" % number for number in range(5)]


async def test_raftfs_stops_a_node_whose_state_machine_raises_instead_of_trying_again(tmp_path: Path) -> None:
    async with members(tmp_path, "a") as group:
        node = group.nodes["a"]
        await group.leader()
        group.states["a"].raises = True
        with pytest.raises(UnknownOutcome):
            await node.propose(b"a command", timeout_s=0.3)
        assert isinstance(await node.failed, ValueError)
        assert group.states["a"].raised == 1


async def test_raftfs_hears_nothing_more_on_a_node_that_must_not_go_on(tmp_path: Path) -> None:
    async with members(tmp_path) as group:
        leader = await group.propose(b"before")
        broken = next(name for name in group.nodes if name != leader)
        group.states[broken].raises = True
        await group.propose(b"after", among=leader)
        await group.nodes[broken].failed
        term = group.nodes[broken].term
        group.wires[broken].on.message(leader, m.VoteRequest(term + 10, 10**6, term + 9))
        assert group.nodes[broken].term == term


def test_raftfs_refuses_no_write_that_it_appends_later(guarded: GuardedMaker) -> None:
    """The process stands still (a paused machine) in the middle of a proposal."""
    for reading in range(1, 8):
        cluster = guarded()
        cluster.elect("a")
        cluster.run(0.5)
        cluster.clock.stall(reading, 0.2)
        write = cluster.put("a", "once")
        cluster.run(0.5)
        assert write.acknowledged is not write.refused
        assert cluster.values("b") == ["once"] * write.acknowledged


async def test_raftfs_forgets_no_proposal_whose_index_is_used_again() -> None:
    """Led, deposed, its log cut, leading again: the next entry has the index of one that is still open."""
    term = 1
    proposals = Proposals(lambda data: (10, term))
    first = asyncio.create_task(proposals.submit(b"first", lambda: None, timeout_s=30))
    await asyncio.sleep(0)
    proposals.pump(0)
    term = 3
    second = asyncio.create_task(proposals.submit(b"second", lambda: None, timeout_s=30))
    await asyncio.sleep(0)
    proposals.pump(0)
    proposals.applied(10, 3, ["done"])
    assert await second == "done"
    await asyncio.sleep(0)
    assert first.done()
    with pytest.raises((Unavailable, UnknownOutcome)):
        await first
