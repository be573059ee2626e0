"""The active format: how it begins, how it is switched, and what is judged by it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from raftfs.errors import DataTooNew
from raftfs.state import (
    Code,
    Command,
    Envelope,
    MakeDirectory,
    Reader,
    StateMachine,
    SwitchVersion,
    copy_database,
    encode,
    required_version,
)
from raftfs.versions import FORMAT_VERSION, UNDECIDED

from .driver import Driver

BEGIN = SwitchVersion(UNDECIDED, FORMAT_VERSION)


def undecided(path: Path) -> StateMachine:
    return StateMachine(path)


def sealed(*commands: Command, at_ms: int = 1, key: str | None = None) -> list[bytes]:
    return [encode(Envelope(command, at_ms, key, format=required_version(command))) for command in commands]


def codes(driver: Driver, envelopes: Sequence[bytes]) -> list[Code]:
    return [result.code for result in driver.entry(*envelopes)]


def test_a_new_database_is_undecided_and_accepts_nothing_but_a_switch(tmp_path: Path) -> None:
    with Driver(tmp_path / "state.db", undecided) as driver:
        assert driver.machine.version == driver.reader.applied().version == UNDECIDED
        before = driver.reader.applied()
        assert codes(driver, sealed(MakeDirectory("/early"), at_ms=9_000, key="k")) == [Code.INVALID]
        assert driver.names("/") == []
        assert driver.reader.applied().revision == before.revision
        assert driver.reader.outcome("k") is None, "the key must be free for the retry"
        assert codes(driver, sealed(BEGIN, MakeDirectory("/a"))) == [Code.OK, Code.CREATED]
        assert driver.machine.version == driver.reader.applied().version == FORMAT_VERSION
        assert driver.stat("/a").created_ms == 1, "a command of a format that is not active does not move the clock"
        driver.reopen()
        assert driver.machine.version == FORMAT_VERSION


def test_of_two_switches_from_the_same_format_the_second_changes_nothing(tmp_path: Path) -> None:
    with Driver(tmp_path / "state.db", undecided) as driver:
        assert codes(driver, sealed(BEGIN, BEGIN, SwitchVersion(FORMAT_VERSION, FORMAT_VERSION))) == [
            Code.OK,
            Code.PRECONDITION_FAILED,
            Code.INVALID,
        ]
        # An older leader's switch to a format that this code does not know, from one that is past: refused, no stop.
        assert codes(driver, sealed(SwitchVersion(UNDECIDED, FORMAT_VERSION + 1))) == [Code.PRECONDITION_FAILED]
        assert driver.machine.version == FORMAT_VERSION


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, FORMAT_VERSION + 1000, 2**62])
def test_a_switch_to_a_format_that_is_not_understood_stops_the_machine_and_changes_nothing(
    driver: Driver, version: int
) -> None:
    driver.put("/f", b"1")
    before = driver.reader.applied()
    entry = sealed(MakeDirectory("/in-the-same-entry"), SwitchVersion(FORMAT_VERSION, version))
    for _ in range(2):
        with pytest.raises(DataTooNew, match=f"install one that understands format {version}"):
            driver.entry(*entry)
    assert driver.reader.applied() == before
    assert driver.names("/") == ["/f"]
    driver.reopen()
    assert driver.reader.applied() == before


def test_an_envelope_that_needs_a_newer_format_is_invalid_whatever_it_holds(driver: Driver) -> None:
    newer = encode(Envelope(MakeDirectory("/d"), 5_000, "k", b"f", format=FORMAT_VERSION + 1))
    unknown = msgspec.msgpack.encode([["Unheard", "/d"], 5_000, "k", b"f", FORMAT_VERSION + 1])
    assert codes(driver, [newer, unknown]) == [Code.INVALID, Code.INVALID]
    assert driver.reader.outcome("k") is None
    assert driver.names("/") == []


def test_the_hash_tells_formats_apart(tmp_path: Path) -> None:
    hashes = []
    for version in (UNDECIDED, FORMAT_VERSION):
        machine = StateMachine(tmp_path / str(version), version=version)
        machine.apply(1, 1, [])
        hashes.append(machine.state_hash)
        machine.close()
    assert hashes[0] != hashes[1]


def test_a_copy_carries_the_format(driver: Driver, tmp_path: Path) -> None:
    driver.put("/f", b"1")
    copy_database(driver.path, tmp_path / "copy.db")
    reader = Reader(tmp_path / "copy.db")
    assert reader.applied() == driver.reader.applied()
    reader.close()


@pytest.mark.parametrize("opened", [StateMachine, Reader])
def test_a_database_of_a_newer_format_is_refused(driver: Driver, opened: type) -> None:
    driver.machine._db.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    driver.close()
    with pytest.raises(DataTooNew, match=rf"state\.db has format {FORMAT_VERSION + 1}.*install one that"):
        opened(driver.path)
