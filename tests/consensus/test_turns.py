"""When a member looks at everything: it sleeps until something happens or is due, and misses nothing by that."""

from __future__ import annotations

import asyncio
import random

from raftfs.config import RaftTimes
from raftfs.consensus import messages as m
from raftfs.consensus.elections import Elections
from raftfs.consensus.turns import Turns
from raftfs.testing.simulation.loop import VirtualLoop

TIMES = RaftTimes(heartbeat_ms=100, election_timeout_ms_min=300, election_timeout_ms_max=1000)
NEVER = float("inf")


class Voter:
    term, is_leader, leader_id, leader_heard_s, last_entry = 1, False, "b", 0.0, (1, 1)

    def begin_election(self) -> None:
        raise AssertionError("nobody granted anything")


def elections(voter: Voter, now: list[float], sent: list[m.Message]) -> Elections:
    return Elections(
        me="a", peers=frozenset("bc"), voter=voter, times=TIMES, emit=lambda _peer, message: sent.append(message),
        clock=lambda: now[0], rng=random.Random(1),
    )  # fmt: skip


def test_an_election_is_not_due_before_it_is_and_not_later() -> None:
    now, sent = [0.0], list[m.Message]()
    one = elections(Voter(), now, sent)
    due_s = one.due_s
    assert 0.3 <= due_s <= 1.0
    now[0] = due_s - 1e-6
    one.tick()
    assert not sent
    now[0] = due_s + 1e-6
    one.tick()
    assert [type(message) for message in sent] == [m.PreVote, m.PreVote]
    assert one.due_s > due_s


def test_what_was_put_off_is_due_when_the_leader_has_been_silent_for_the_shortest_timeout() -> None:
    now, sent = [0.0], list[m.Message]()
    one = elections(Voter(), now, sent)
    one.receive_pre_vote("c", m.PreVote(2, 1, 1))
    assert one.due_s == 0.3
    now[0] = 0.3
    one.tick()
    assert sent == [m.PreVoteGrant(2)]


def test_a_lost_leader_makes_it_due_soon_and_a_leader_has_nothing_due() -> None:
    now, voter = [0.0], Voter()
    one = elections(voter, now, [])
    one.lost("b")
    assert one.due_s < 0.01
    voter.is_leader = True
    assert one.due_s == NEVER


def run(turns_due_s: list[float], seconds: float) -> list[float]:
    """When turns came, in seconds, if each one asks for the next of ``turns_due_s`` (in seconds from the beginning)."""
    loop = VirtualLoop()
    came: list[float] = []
    due = list(turns_due_s)

    def turn() -> None:
        came.append(round(loop.time() - 1000, 6))
        if due:
            turns.due(1000 + due.pop(0))

    turns = Turns(turn, loop.time)

    async def main() -> None:
        turns.ask()
        turns.ask()
        await asyncio.sleep(seconds)
        turns.stop()
        turns.ask()
        await asyncio.sleep(seconds)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    return came


def test_turns_come_when_they_are_due_and_none_after_the_end() -> None:
    assert run([0.5, 0.6], 1.0) == [0.0, 0.5, 0.6]


def test_a_deadline_that_moved_away_costs_a_turn_and_one_that_came_closer_is_kept() -> None:
    loop = VirtualLoop()
    came: list[float] = []

    async def main() -> None:
        turns = Turns(lambda: came.append(round(loop.time() - 1000, 6)), loop.time)
        turns.due(1000.5)
        turns.due(1000.9)
        turns.due(1000.2)
        await asyncio.sleep(1)
        turns.due(loop.time() - 5)  # overdue: soon, and not in a circle
        await asyncio.sleep(1)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert came == [0.2, 1.001]
