"""When the leader switches, and what is refused until then."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from raftfs import limits
from raftfs.consensus import Configuration, MemberRecord
from raftfs.errors import DataTooNew, Unavailable, UpgradeUnfinished
from raftfs.service.proposals import Proposer
from raftfs.service.snapshots import SnapshotFetcher
from raftfs.service.versions import Understood, VersionGate, next_version
from raftfs.service.workers import Background, Workers
from raftfs.state import MakeDirectory, StateMachine
from raftfs.testing.fakes import FakeConsensus, FakeTransport
from raftfs.versions import FORMAT_VERSION, UNDECIDED

from .trio import Trio


def code(newest: int) -> Understood:
    return Understood(max(1, newest - 1), newest)


@pytest.mark.parametrize(
    ("members", "version"),
    [
        ([code(6), code(6), code(6)], 6),
        ([code(6), code(6), code(5)], None),
        ([code(6), code(6), None], None),
        ([code(5), code(5), code(5)], None),
        ([code(6)], 6),
        ([], None),
    ],
)
@pytest.mark.parametrize("patient", [True, False])
def test_a_switch_needs_every_member(members: list[Understood | None], version: int | None, patient: bool) -> None:
    assert next_version(5, members, patient=patient) == version


@pytest.mark.parametrize(
    ("members", "patient", "version"),
    [
        ([code(6), code(6), code(6)], True, 6),
        ([code(6), code(5), code(6)], True, 5),
        ([code(6), code(6), None], True, None),
        ([code(6), code(6), None], False, 6),
        ([code(6), code(5), None], False, 5),
        ([code(7), code(5), code(6)], False, None),  # nothing is common to all
    ],
)
def test_a_new_cluster_begins_with_what_all_understand(
    members: list[Understood | None], patient: bool, version: int | None
) -> None:
    assert next_version(UNDECIDED, members, patient=patient) == version


@asynccontextmanager
async def undecided(folder: Path) -> AsyncIterator[Trio]:
    trio = Trio(folder, version=UNDECIDED)
    try:
        yield trio
    finally:
        await trio.close()


def formats(trio: Trio) -> list[int]:
    return [machine.version for machine in trio.machines.values()]


async def made(trio: Trio, path: str) -> None:
    await proposer(trio, lambda: trio.machines["n1"].version).propose(MakeDirectory(path))


def proposer(trio: Trio, active_version: Callable[[], int]) -> Proposer:
    return Proposer(FakeConsensus(trio.log, "n1", trio.clock), trio.clock, 5.0, active_version=active_version)


async def test_a_cluster_is_formed_and_takes_nothing_before(tmp_path: Path) -> None:
    async with undecided(tmp_path) as trio:
        with pytest.raises(Unavailable, match="being formed") as refused:
            await made(trio, "/early")
        assert refused.value.outcome == "not_applied"
        assert ("format", False) in [(name, good) for name, good, _ in trio.leader.cluster.ready()]
        assert trio.log.entries == [], "refused before it came into the log"
        await asyncio.wait_for(trio.leader.versions.run(), 20)
        assert formats(trio) == [FORMAT_VERSION] * 3
        await made(trio, "/late")
        status = await trio.leader.cluster.status()
        assert status.format == FORMAT_VERSION
        assert {member.formats.max for member in status.members if member.formats} == {FORMAT_VERSION}
        assert ("format", True) in [(name, good) for name, good, _ in trio.leader.cluster.ready()]


async def test_a_cluster_of_which_one_is_down_is_formed_after_a_while(tmp_path: Path) -> None:
    async with undecided(tmp_path) as trio:
        trio.network.down.add("n3")
        for _ in range(3):
            await trio.leader.versions.round(UNDECIDED)
        assert formats(trio) == [UNDECIDED] * 3, "it waits for the third"
        trio.clock.advance(limits.FORMING_S_MAX)
        await trio.leader.versions.round(UNDECIDED)
        assert formats(trio) == [FORMAT_VERSION, FORMAT_VERSION, UNDECIDED]


async def test_a_member_that_does_not_vote_yet_counts_too(tmp_path: Path) -> None:
    async with undecided(tmp_path) as trio:
        three = trio.log.configuration
        learner = MemberRecord("n4", "127.0.0.1:7414", "http://127.0.0.1:7404", voter=False)
        trio.log.configuration = Configuration((*three.members, learner))
        trio.network.down.add("n4")
        await trio.leader.versions.round(UNDECIDED)
        assert formats(trio) == [UNDECIDED] * 3, "nobody knows what n4 understands"
        trio.log.configuration = three
        await trio.leader.versions.round(UNDECIDED)
        assert formats(trio) == [FORMAT_VERSION] * 3


async def test_nobody_but_the_leader_asks(tmp_path: Path) -> None:
    async with undecided(tmp_path) as trio:
        await trio.services["n2"].versions.round(UNDECIDED)
        assert not trio.network.requests
        assert formats(trio) == [UNDECIDED] * 3


@pytest.mark.parametrize("hold", [True, False])
async def test_a_switch_can_be_held_up(tmp_path: Path, hold: bool) -> None:
    """This leader's code is one format ahead of the others': it asks them, unless it is to wait."""
    trio = Trio(tmp_path)
    gate = VersionGate(
        reader=trio.leader._reader, consensus=FakeConsensus(trio.log, "n1", trio.clock), cluster=trio.leader.cluster,
        proposer=proposer(trio, lambda: FORMAT_VERSION), clock=trio.clock, hold=hold, newest=FORMAT_VERSION + 1,
    )  # fmt: skip
    await gate.round(FORMAT_VERSION)
    assert trio.network.requests["n2", "status"] == (0 if hold else 1)
    assert formats(trio) == [FORMAT_VERSION] * 3
    await trio.close()


async def test_what_needs_a_newer_format_is_refused_before_it_is_proposed(tmp_path: Path) -> None:
    trio = Trio(tmp_path)
    one = proposer(trio, lambda: FORMAT_VERSION)
    await one.propose(MakeDirectory("/a"))
    before = len(trio.log.entries)
    with pytest.raises(UpgradeUnfinished, match=f"needs format {FORMAT_VERSION + 1}") as refused:
        one.require_version(FORMAT_VERSION + 1)
    assert refused.value.outcome == "not_applied"
    assert len(trio.log.entries) == before
    await trio.close()


async def test_a_snapshot_of_a_newer_format_ends_the_node_instead_of_being_fetched_for_ever(tmp_path: Path) -> None:
    trio = Trio(tmp_path)
    newer = tmp_path / "newer.db"
    StateMachine(newer, version=FORMAT_VERSION).apply(1, 1, [])
    with sqlite3.connect(newer) as db:
        db.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data = newer.read_bytes()

    async def opened(_peer: str, _payload: bytes) -> bytes:
        return msgspec.msgpack.encode([1, 1000, 1, len(data), blake3(data).digest()])

    async def read(_peer: str, _payload: bytes) -> bytes:
        return data

    leader = FakeTransport(trio.network, "n1")
    leader.handle("snapshot.open", opened)
    leader.handle("snapshot.read", read)
    workers, background = Workers(1, "test"), Background()
    (tmp_path / "fetcher").mkdir()
    fetcher = SnapshotFetcher(
        data_dir=tmp_path / "fetcher", consensus=FakeConsensus(trio.log, "n2", trio.clock),
        transport=FakeTransport(trio.network, "n2"), workers=workers, background=background,
    )  # fmt: skip
    fetcher.behind("n1")
    await asyncio.wait_for(fetcher.ready.wait(), 20)
    assert isinstance(fetcher.too_new, DataTooNew)
    assert f"install one that understands format {FORMAT_VERSION + 1}" in str(fetcher.too_new)
    assert not (tmp_path / "fetcher" / "snapshot" / "ready.json").exists(), "nothing is left to be installed"
    await background.close()
    await workers.close()
    await trio.close()
