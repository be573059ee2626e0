"""Random schedules in which members come and go, too: every promise is kept, and each rule of changes is needed.

A name stands for a data directory, and is a member once at most: what the roster sees to with UUIDs. Who was removed
goes on running, with what it knew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from raftfs.consensus.engine import Engine
from raftfs.consensus.guard import SafetyViolation
from raftfs.consensus.membership import Configuration, MemberRecord
from raftfs.errors import CorruptData
from raftfs.testing.invariants import Violation

from .guarded_cluster import GuardedCluster
from .plain_cluster import virtual_engine
from .schedules import Schedule
from .test_random_schedules import memory_directory

STEPS = 5000
CHANGES = 8.0  # weight among the schedule's other actions


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Changing(Schedule):
    """Members are added, promoted and removed, by whoever believes to lead."""

    def __init__(self, cluster: GuardedCluster, seed: int) -> None:
        self.changes = 0
        self.was: set[str] = set(cluster.voters)
        self.guarded = cluster
        super().__init__(cluster, seed, power=True)
        self._actions.append(self._change)
        self._weights.append(CHANGES)

    def _change(self) -> None:
        leaders = [name for name in self._live() if self.cluster.is_leader(name)]
        if not leaders:
            return
        leader = self.random.choice(leaders)
        engine = self.guarded.nodes[leader].engine
        new = self._next(engine.configuration, leader)
        if new is None:
            return
        with suppress(ValueError):
            if engine.change(new) is not None:
                self.changes += 1
                self.was |= new.ids
        self.guarded._settle(leader)
        self._look(leader)

    def _next(self, present: Configuration, leader: str) -> Configuration | None:
        learners = sorted(present.ids - present.voters)
        strangers = sorted(set(self.cluster.names) - self.was)
        gone = sorted(present.ids - {leader})
        kind = self.random.choice(("add", "promote", "promote", "remove"))
        if kind == "add" and strangers:
            return present.with_member(MemberRecord(self.random.choice(strangers), "", "", voter=False))
        if kind == "promote" and learners:
            return present.with_member(MemberRecord(self.random.choice(learners), "", ""))
        if kind == "remove" and gone and len(present.voters) > 1:
            return present.without(self.random.choice(gone))
        return None

    def _members(self) -> list[str]:
        """Those of the newest configuration, as the leader of the highest term has it."""
        leaders = [name for name in self._live() if self.cluster.is_leader(name)]
        if not leaders:
            return self.cluster.names
        leader = max(leaders, key=self.cluster.term)
        return sorted(self.guarded.nodes[leader].engine.configuration.ids)


def run(seed: int, names: str = "abcdefgh", voters: str = "abc", **options: Any) -> Changing:
    with virtual_engine(seed) as clock, memory_directory() as directory:
        cluster = GuardedCluster(
            names, clock, directory, voters=voters, lazy_disk=True, segment_bytes=4096, tail_bytes_max=1024, **options
        )  # fmt: skip
        try:
            schedule = Changing(cluster, seed)
            schedule.run(STEPS)
            return schedule
        finally:
            cluster.close()


def _seeds() -> range:
    first, _, stop = os.environ.get("RAFTFS_MEMBERSHIP_SCHEDULES", "0-50").partition("-")
    return range(int(first), int(stop))


def test_every_promise_is_kept_while_members_come_and_go() -> None:
    changes = acknowledged = 0
    for seed in _seeds():
        try:
            schedule = run(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        changes += schedule.changes
        acknowledged += len(schedule.answered_at)
    assert changes > 3 * len(_seeds())
    assert acknowledged > 10 * len(_seeds())


class LearnersCount(Engine):
    """Who only listens is counted like the others."""

    def _take_members(self) -> None:
        everybody = self.configuration.ids - {self.me}
        self.guard.members(everybody, frozenset(), lambda: self._change_cluster(everybody))
        self.peers = self.elections.peers = everybody


class TwoAtOnce(Engine):
    """The next change does not wait for the last one."""

    def check_change(self, new: Configuration) -> None:
        if not self.leads_with_committed_term or self.me not in new.voters:
            raise ValueError("not now")


class TooNew(Engine):
    """A leader changes the members before an entry of its own term is committed."""

    def check_change(self, new: Configuration) -> None:
        if self.configuration_index > self.commit_index or self.me not in new.voters:
            raise ValueError("not now")


class AtCommit(Engine):
    """A configuration counts only once it is committed."""

    def follow(self) -> None:
        newest = self.journal.configuration
        if newest is None or newest[0] <= self.commit_index:
            super().follow()

    def tick(self) -> None:
        self.follow()
        super().tick()


@pytest.mark.parametrize(
    ("engine", "first"),
    [(LearnersCount, 100), (TwoAtOnce, 0), (TooNew, 80), (AtCommit, 70)],
    ids=["learners count", "two changes at once", "a leader that is too new", "counted at commit"],
)
def test_a_rule_of_changes_that_is_left_out_is_missed(engine: type[Engine], first: int) -> None:
    for seed in range(first, first + 200):
        try:
            run(seed, engine=engine)
        except (Violation, SafetyViolation, CorruptData) as error:
            if not (isinstance(error, Violation) and error.rule == "liveness"):
                print(f"seed {seed}: {error}")
                return
    pytest.fail("no schedule needed the rule")
