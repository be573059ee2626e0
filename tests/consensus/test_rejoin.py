"""A member that lost a part of its data takes no part until it holds again what it promised. Why each rule is there.

More seeds: ``RAFTFS_SCHEDULES=1000-3000 pytest tests/consensus/test_rejoin.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from raftfs.consensus import messages as m
from raftfs.consensus.barriers import Barriers
from raftfs.consensus.guard import Guard, SafetyViolation
from raftfs.consensus.rejoin import Rejoin
from raftfs.testing.invariants import Violation

from .cluster import ELECTION_S
from .guarded_cluster import GuardedCluster, GuardedMaker, Proposal
from .test_random_schedules import ours, quiet, run_ours

__all__ = ["quiet"]  # a fixture, for every test here


class Votes(Rejoin):
    """Without the rule that a member which rejoins gives no vote."""

    def shuts_out(self, message: m.Message) -> bool:
        return self.stage == "terms" and super().shuts_out(message)


class Hears(Rejoin):
    """Without the rule that nobody is heard before the terms are known."""

    def shuts_out(self, message: m.Message) -> bool:
        return not self.takes_part and isinstance(message, m.VoteRequest | m.PreVote | m.TimeoutNow)


class AsksFew(Rejoin):
    """Without the rule that every other member must tell its term."""

    def _terms_suffice(self) -> bool:
        return bool(self._terms)


class StopsAtCommit(Rejoin):
    """Without the rule that the log must reach the end of the leader's, and not its commit index."""

    def _log_target(self, target: Any) -> int:
        return target.commit_index or 0


class ForgetsDamage(Rejoin):
    """Without any rule."""

    def __init__(self, **options: Any) -> None:
        options["mark"].keep(None)
        super().__init__(**options)


class Counts(Guard):
    """Without the rule that acknowledgements of a member that rejoins are not counted."""

    def _emit_ack(self, peer: str, term: int, seq: int, index: int, *, reset: bool = False) -> None:
        self._emit(peer, m.AppendAck(term, seq, index, reset))


class Confirms(Barriers):
    """Without the rule that it confirms no ReadIndex probe."""

    def receive_probe(self, peer: str, message: m.Probe) -> None:
        if message.term >= self._engine.term:
            self._emit(peer, m.ProbeAck(message.term, message.number))


# --- random schedules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", ours(200), ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_damaged_members_come_back_and_no_promise_is_broken(seeds: range) -> None:
    acknowledged = 0
    for seed in seeds:
        try:
            acknowledged += run_ours(seed, damages=True)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert acknowledged > 5 * len(seeds)


@pytest.mark.parametrize("seeds", [range(20_000, 20_030)], ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_two_damaged_members_of_five_come_back(seeds: range) -> None:
    for seed in seeds:
        try:
            run_ours(seed, "abcde", damages=True)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("rejoin", [ForgetsDamage, Votes])
def test_schedules_miss_the_votes_that_are_not_withheld(rejoin: type[Rejoin]) -> None:
    for seed in range(400):
        try:
            run_ours(seed, damages=True, rejoin=rejoin)
        except (Violation, SafetyViolation) as error:
            if not (isinstance(error, Violation) and error.rule == "liveness"):
                return
    pytest.fail("no schedule needed the rule")


# --- votes -----------------------------------------------------------------------------------------------------------


def stand(cluster: GuardedCluster, name: str) -> None:
    """Let a node stand for election after a long silence: pre-votes, then votes."""
    cluster.clock.advance(ELECTION_S)
    for _ in range(2):
        cluster.tick(name)
        cluster.network.drain()


def a_member_loses_an_acknowledged_write_and_is_asked_for_its_vote(cluster: GuardedCluster) -> Proposal:
    cluster.elect("a")
    cluster.run(0.5)
    cluster.network.isolate("c")
    write = cluster.put("a", "held by a and b")
    cluster.run(0.2)
    cluster.crash("b")
    cluster.damage("b", log=True, state=True)
    cluster.network.isolate("a")
    cluster.start("b")
    cluster.network.connect("b", "c")
    stand(cluster, "c")
    return write


def test_a_damaged_member_gives_no_vote(guarded: GuardedMaker) -> None:
    cluster = guarded()
    write = a_member_loses_an_acknowledged_write_and_is_asked_for_its_vote(cluster)
    assert write.acknowledged
    assert not cluster.is_leader("c")
    cluster.network.connect_all()
    cluster.run(5.0)
    assert cluster.states["b"].mark.stage is None
    assert cluster.values("a") == cluster.values("b") == cluster.values("c") == ["held by a and b"]


def test_with_its_vote_an_acknowledged_write_is_lost(guarded: GuardedMaker) -> None:
    cluster = guarded(rejoin=Votes)
    write = a_member_loses_an_acknowledged_write_and_is_asked_for_its_vote(cluster)
    assert write.acknowledged
    assert cluster.is_leader("c")
    assert cluster.values("c") == []


def test_a_damaged_member_stands_for_no_election(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    cluster.crash("b")
    cluster.damage("b", log=True)
    cluster.restart("b")
    cluster.crash("a")
    term = cluster.term("b")
    cluster.inject("c", "b", m.TimeoutNow(term))
    stand(cluster, "b")
    assert (cluster.is_leader("b"), cluster.term("b")) == (False, term)


# --- acknowledgements, reads and terms -------------------------------------------------------------------------------


def a_member_forgets_the_term_in_which_it_voted(cluster: GuardedCluster) -> Proposal:
    """``a`` leads, is cut off, and does not know yet that ``c`` was elected by ``b`` and has acknowledged a write. Then
    ``b`` loses its term and hears ``a`` alone."""
    cluster.elect("a")
    cluster.run(0.5)
    cluster.network.isolate("a")
    for _ in range(4):
        cluster.clock.advance(0.02)
        cluster.tick("c")
        cluster.network.drain()
    assert cluster.is_leader("c")
    write = cluster.put("c", "new")
    for _ in range(2):
        cluster.network.drain()
        cluster.tick("c")
    assert write.acknowledged
    cluster.crash("b")
    cluster.network.isolate("c")
    cluster.damage("b", term=True, log=True, state=True)
    cluster.start("b")
    cluster.network.connect("a", "b")
    assert cluster.is_leader("a")
    return write


def test_nobody_is_heard_before_the_terms_are_known(guarded: GuardedMaker) -> None:
    cluster = guarded()
    a_member_forgets_the_term_in_which_it_voted(cluster)
    write = cluster.put("a", "old")
    cluster.run(0.3)
    assert not write.acknowledged
    assert cluster.states["b"].mark.stage == "terms"
    assert "waiting to hear the term of c" in str(cluster.nodes["b"].engine.rejoin.progress())
    cluster.network.connect_all()
    cluster.run(5.0)
    assert cluster.states["b"].mark.stage is None
    assert cluster.values("a") == cluster.values("b") == cluster.values("c") == ["new"]


def test_a_deposed_leader_would_count_it(guarded: GuardedMaker) -> None:
    cluster = guarded(rejoin=Hears, guard=Counts)
    a_member_forgets_the_term_in_which_it_voted(cluster)
    write = cluster.put("a", "old")
    cluster.run(0.3)
    assert write.acknowledged  # and c leads with another entry in its place
    assert cluster.log("a")[:3] != cluster.log("c")[:3]


def test_acknowledgements_that_do_not_count_are_a_second_line(guarded: GuardedMaker) -> None:
    cluster = guarded(rejoin=Hears)
    a_member_forgets_the_term_in_which_it_voted(cluster)
    write = cluster.put("a", "old")
    cluster.run(0.3)
    assert not write.acknowledged


@pytest.mark.parametrize(
    ("options", "answered"),
    [({}, False), ({"rejoin": Hears}, False), ({"rejoin": Hears, "barriers": Confirms}, True)],
    ids=["both rules", "it hears", "it hears and confirms"],
)
def test_a_deposed_leader_reads_stale_only_if_it_is_confirmed(
    guarded: GuardedMaker, options: dict[str, Any], *, answered: bool
) -> None:
    cluster = guarded(**options)
    a_member_forgets_the_term_in_which_it_voted(cluster)
    read = cluster.ask("a", ["new"])
    cluster.run(0.3)
    assert (read.index is not None) is answered
    if answered:
        assert "new" not in cluster.values("a")


def a_member_forgets_its_vote_and_is_asked_for_another(cluster: GuardedCluster) -> None:
    a_member_forgets_the_term_in_which_it_voted(cluster)
    for _ in range(10):
        cluster.clock.advance(0.05)
        cluster.tick("a", "b")
        cluster.network.drain()
    cluster.crash("a")
    cluster.start("a")
    cluster.network.connect("a", "b")
    stand(cluster, "a")


def test_no_second_vote_is_given_in_a_forgotten_term(guarded: GuardedMaker) -> None:
    cluster = guarded()
    a_member_forgets_its_vote_and_is_asked_for_another(cluster)
    assert cluster.is_leader("c")
    assert not (cluster.is_leader("a") and cluster.term("a") == cluster.term("c"))


def test_with_the_terms_of_a_few_two_lead_one_term(guarded: GuardedMaker) -> None:
    cluster = guarded(rejoin=AsksFew)
    a_member_forgets_its_vote_and_is_asked_for_another(cluster)
    assert cluster.is_leader("a")
    assert cluster.is_leader("c")
    assert cluster.term("a") == cluster.term("c")


# --- how far the log must reach --------------------------------------------------------------------------------------


def an_entry_is_acknowledged_and_lost_before_it_is_committed(cluster: GuardedCluster) -> Proposal:
    """Of five, ``a`` leads and ``b`` acknowledges an entry, which no third one has yet. ``b`` loses it, comes back, and
    has not written it again when it is killed. Then the third one acknowledges it, and it is committed."""
    cluster.elect("a")
    cluster.run(0.5)
    for name in "cde":
        cluster.network.isolate(name)
    write = cluster.put("a", "held by a and d")
    cluster.network.drain()
    cluster.crash("b")
    cluster.damage("b", log=True)
    cluster.held_disks = {"b"}
    cluster.restart("b")
    for name in "cde":
        cluster.network.isolate(name)
    for _ in range(6):
        cluster.clock.advance(0.05)
        cluster.tick("a", "b")
        cluster.network.drain()
    cluster.crash("b", power=True)
    cluster.held_disks = set()
    cluster.start("b")
    cluster.network.connect("a", "d")
    for _ in range(6):
        cluster.clock.advance(0.05)
        cluster.tick("a")
        cluster.network.drain()
    return write


def test_a_log_that_ends_at_the_commit_index_is_not_whole(guarded: GuardedMaker) -> None:
    cluster = guarded("abcde")
    write = an_entry_is_acknowledged_and_lost_before_it_is_committed(cluster)
    assert write.acknowledged
    assert cluster.states["b"].mark.stage == "log"
    for name in "ce":
        cluster.network.connect("b", name)
    cluster.network.connect("c", "e")
    stand(cluster, "c")
    assert not cluster.is_leader("c")


def test_if_it_were_an_acknowledged_write_is_lost(guarded: GuardedMaker) -> None:
    cluster = guarded("abcde", rejoin=StopsAtCommit)
    write = an_entry_is_acknowledged_and_lost_before_it_is_committed(cluster)
    assert write.acknowledged
    assert cluster.states["b"].mark.stage is None
    for name in "ce":
        cluster.network.connect("b", name)
    cluster.network.connect("c", "e")
    stand(cluster, "c")
    assert cluster.is_leader("c")
    assert "held by a and d" not in cluster.values("c")


def test_an_answer_to_a_question_of_an_earlier_life_is_not_taken(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    cluster.crash("b")
    cluster.damage("b", term=True)
    cluster.start("b")
    for peer in "ac":
        cluster.inject(peer, "b", m.RejoinAnswer(cluster.term("a"), 1, sure=True, last_index=None, commit_index=None))
    cluster.tick("b")
    assert cluster.states["b"].mark.stage == "terms"


def test_a_leader_that_has_only_a_damaged_member_left_steps_down(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    cluster.crash("b")
    cluster.damage("b", log=True)
    before = cluster.put("a", "while b is away")
    cluster.run(0.3)
    cluster.held_disks = {"b"}  # so that it does not get done
    cluster.restart("b")
    cluster.run(0.3)
    cluster.crash("c")
    write = cluster.put("a", "by whom should it be counted?")
    cluster.run(2.0)
    assert not write.acknowledged
    assert not cluster.is_leader("a")
    assert cluster.states["b"].mark.stage == "log"
    cluster.held_disks = set()
    cluster.restart("c")
    cluster.run(5.0)
    assert cluster.states["b"].mark.stage is None
    assert write.acknowledged
    assert cluster.values("a") == cluster.values("b") == cluster.values("c") == [before.value, write.value]


def test_states_are_made_anew_from_whole_logs_even_if_all_are_lost(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    writes = [cluster.put("a", f"write {number}") for number in range(5)]
    cluster.run(0.5)
    for name in "abc":
        cluster.crash(name)
        cluster.damage(name, state=True)
    for name in "abc":
        cluster.start(name)
    cluster.network.connect_all()
    cluster.run(5.0)
    for name in "abc":
        assert cluster.values(name) == [write.value for write in writes]
        assert cluster.states[name].mark.stage is None
        assert cluster.nodes[name].engine.rejoin.progress() is None


def test_a_term_that_another_lost_as_well_is_no_hindrance_where_a_majority_knows_its_own(guarded: GuardedMaker) -> None:
    cluster = guarded("abcde")
    cluster.elect("a")
    cluster.run(0.5)
    term = cluster.term("a")
    for name in "de":
        cluster.crash(name)
        cluster.damage(name, term=True, log=True, state=True)
        cluster.restart(name)
    cluster.run(5.0)
    for name in "de":
        assert cluster.states[name].mark.stage is None
        assert cluster.term(name) >= term


def test_of_three_two_without_their_terms_wait_for_each_other(guarded: GuardedMaker) -> None:
    """A majority has forgotten its votes: nothing that they say can be safe."""
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    for name in "bc":
        cluster.crash(name)
        cluster.damage(name, term=True)
        cluster.restart(name)
    cluster.run(5.0)
    assert [cluster.states[name].mark.stage for name in "bc"] == ["terms", "terms"]
    assert "waiting to hear the term of c" in str(cluster.nodes["b"].engine.rejoin.progress())


def test_the_adopted_term_outlives_a_power_loss(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    term = cluster.term("a")
    cluster.network.hold("a", "b")
    cluster.crash("b")
    cluster.damage("b", term=True, log=True, state=True)
    cluster.restart("b")
    cluster.run_only("b", 0.4)
    assert cluster.states["b"].mark.stage == "terms"
    cluster.network.release("a", "b")
    cluster.network.drain()
    cluster.network.hold("a", "b")
    cluster.tick("b")
    assert cluster.states["b"].mark.stage == "log"
    cluster.crash("b", power=True)
    cluster.restart("b")
    assert cluster.term("b") == term
    assert cluster.nodes["b"].journal.getVotedForNodeId() == "b"
