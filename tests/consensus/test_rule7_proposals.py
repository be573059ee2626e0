"""Rule 7: a proposal always ends: applied, refused, or "outcome unknown" at its deadline. And it ends truthfully."""

from __future__ import annotations

from typing import Any

import pytest
from pysyncobj import FAIL_REASON

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
