"""The parts of the nemesis that need no root: its schedule, its bodies, its clock, its command."""

from __future__ import annotations

import email.utils
import json
import time
from pathlib import Path

import pytest

from raftfs.testing import history as h
from raftfs.testing.nemesis import bodies, clock
from raftfs.testing.nemesis.command import main
from raftfs.testing.nemesis.schedule import KINDS, draw

NODES = ["n1", "n2", "n3"]


def test_one_seed_is_one_schedule() -> None:
    assert draw(7, NODES, 180) == draw(7, NODES, 180)
    assert draw(7, NODES, 180) != draw(8, NODES, 180)


@pytest.mark.parametrize("seed", range(20))
def test_four_minutes_see_every_kind_of_fault_and_no_fault_after_them(seed: int) -> None:
    faults = draw(seed, NODES, 240)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert all(fault.at_s >= 3 and fault.at_s + fault.lasts_s <= 240.1 for fault in faults)
    assert all(fault.node in (*NODES, "leader") for fault in faults)


def test_only_the_faults_that_were_asked_for_are_drawn() -> None:
    assert {fault.kind for fault in draw(1, NODES, 60, ["kill", "loss"])} == {"kill", "loss"}


def test_a_body_tells_which_write_it_is_of() -> None:
    assert bodies.value_of("/cell", bodies.make("/cell", "v1", 5000)) == "v1"
    assert bodies.value_of("/cell", bodies.make("/cell", "v1", 0)) == "v1"


def test_a_body_that_is_not_whole_is_seen() -> None:
    body = bodies.make("/cell", "v1", 5000)
    for wrong in (b"", body[:-1], body + b"x", body[:-1] + bytes([body[-1] ^ 1]), body[:40], b"x" * 400):
        assert isinstance(bodies.value_of("/cell", wrong), bodies.Damage)
    assert isinstance(bodies.value_of("/other", body), bodies.Damage)


@pytest.mark.parametrize("ahead_s", [86_400, -30, 0])
def test_a_clock_is_told_by_the_date_of_an_answer(ahead_s: int) -> None:
    headers = {"Date": email.utils.formatdate(time.time() + ahead_s, usegmt=True)}
    assert clock.seems(headers, ahead_s)
    assert not clock.seems(headers, ahead_s + 30)
    assert not clock.seems(headers, ahead_s - 30)


def _history(*results: str) -> list[h.Operation]:
    calls = [h.Write("/a", "v1"), h.Read("/a")]
    return [h.Operation(calls[n], told, n, n + 0.5, revision=n + 1) for n, told in enumerate(results)]


@pytest.mark.parametrize(("seen", "code"), [("v1", 0), (h.MISSING, 1)])
def test_a_history_on_disk_is_judged_again(
    seen: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    h.save(_history(h.CREATED, seen), tmp_path / "history.jsonl")
    assert main(["--judge", str(tmp_path / "history.jsonl")]) == code
    assert ("clean" if code == 0 else "no order explains") in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--nodes", "4"], ["--faults", "rain"], ["--duration", "1"]])
def test_wrong_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert "usage: raftfs-nemesis" in capsys.readouterr().err


def test_a_report_can_be_read_by_programs() -> None:
    from raftfs.testing.nemesis import Report

    assert json.loads(json.dumps(Report(1, 180, 3).as_json()))["seed"] == 1
