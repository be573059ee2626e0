"""``raftfs recover`` on data directories: what it prints, what it asks, and with which code it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import tomli_w

from raftfs import limits
from raftfs.chunks.store import chunk_path
from raftfs.consensus import Configuration, MemberRecord
from raftfs.service.recovery import Survey
from raftfs.state import MakeDirectory
from raftfs_cli.main import run

from .survivors import BIG_BYTES, MEMBERS, REFS, begin, in_doubt, whole
from .test_recovery import DECIDED, check_recovered, interrupt


class Done(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def recover(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run ``raftfs recover`` in this process; ``typed`` is what a person types."""

    def call(*words: str | Path, typed: str = "") -> Done:
        (tmp_path / "typed").write_text(typed)
        with (tmp_path / "typed").open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            capfd.readouterr()
            code = run(["recover", *map(str, words)])
        return Done(code, *capfd.readouterr())

    return call


def test_a_dry_run_tells_what_is_in_doubt(recover: Command, tmp_path: Path) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    done = recover("--data-dir", data_dir, "--dry-run")
    assert (done.code, done.err) == (0, "")
    for line in (
        "node n3 of cluster c, uuid uuid-3",
        "last entry (term 4, index 13); applied up to index 11, revision 2",
        "time of the last write in it: 1970-01-01 00:00:01.012 UTC",
        "  n3  votes  127.0.0.1:7413  http://127.0.0.1:7403  this node",
        "in doubt: 2 entries of its log are not known to be committed",
        "  entry 12  1970-01-01 00:00:01.012 UTC  write /tail (4 bytes): created",
        "lost: nothing that its log and state refer to",
        "cannot be seen from here: writes that the other members acknowledged without this node",
        "this one: (4, 13)",
    ):
        assert line in done.out
    assert json.loads(recover("--data-dir", data_dir, "--dry-run", "--json").out)["recovered"] is None


def test_what_is_lost_is_named_and_what_is_in_no_doubt_is_said(recover: Command, tmp_path: Path) -> None:
    data_dir = whole(tmp_path / "n3")
    chunk_path(data_dir / "chunks", REFS[0].digest).unlink()
    done = recover("--data-dir", data_dir, "--dry-run", "--verify")
    assert "in doubt: nothing" in done.out
    assert "lost: 1 chunks, 100000 bytes (their bytes were compared)" in done.out
    assert f"/big  {BIG_BYTES} bytes, revision 2: 100000 bytes are not here" in done.out
    assert "/unfinished  100000 bytes: 100000 bytes are not here" in done.out


def test_long_lists_are_cut_for_people_and_whole_in_json(recover: Command, tmp_path: Path) -> None:
    with closing(begin(tmp_path / "n3")) as log:
        for number in range(limits.RECOVERY_LINES_MAX + 5):
            log.add(MakeDirectory(f"/d{number:02}"), applied=False)
    text = recover("--data-dir", tmp_path / "n3", "--dry-run").out
    assert text.count("make directory") == limits.RECOVERY_LINES_MAX
    assert "and 5 more: --json has all" in text
    found = json.loads(recover("--data-dir", tmp_path / "n3", "--dry-run", "--json").out)
    assert [change["paths"] for change in found["open_changes"]] == [
        [f"/d{number:02}"] for number in range(limits.RECOVERY_LINES_MAX + 5)
    ]


def test_a_person_has_to_type_the_name_of_the_cluster(recover: Command, tmp_path: Path) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    for typed in ("", "\n", "yes\n", "n3\n"):
        done = recover("--data-dir", data_dir, typed=typed)
        assert done.code == 2
        assert "The other members (n1, n2) must never be started again" in done.err
        assert "nothing was changed" in done.err
    done = recover("--data-dir", data_dir, typed="c\n")
    assert done.code == 0
    assert "never start again with their old data: n1, n2" in done.out
    check_recovered(data_dir)
    assert "was recovered before, at" in recover("--data-dir", data_dir, "--dry-run").out
    assert recover("--data-dir", data_dir, "--yes").code == 4


def test_the_address_is_that_of_the_configuration_file(recover: Command, tmp_path: Path) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    member = {"id": "n3", "peer": "127.0.0.1:9413", "url": "http://127.0.0.1:9403"}
    values = {"id": "n3", "cluster_id": "c", "data_dir": str(data_dir), "members": [member]}
    (tmp_path / "n3.toml").write_text(tomli_w.dumps(values))
    done = recover("--config", tmp_path / "n3.toml", "--yes", "--json")
    assert done.code == 0
    recovered = json.loads(done.out)["recovered"]
    assert (recovered["peer"], recovered["url"]) == ("127.0.0.1:9413", "http://127.0.0.1:9403")
    (tmp_path / "other.toml").write_text(tomli_w.dumps(values | {"cluster_id": "other"}))
    assert "belongs to member 'n3' of cluster 'c'" in recover("--config", tmp_path / "other.toml", "--yes").err


def test_a_better_survivor_is_named_and_the_worse_one_left_alone(recover: Command, tmp_path: Path) -> None:
    five = Configuration(tuple(MemberRecord(f"n{n}", f"h:{n}", f"http://h:{n}", f"uuid-{n}") for n in range(1, 6)))
    with closing(begin(tmp_path / "n3", members=five)):
        pass
    text = recover("--data-dir", tmp_path / "n3", "--dry-run", "--json").out
    ours = msgspec.json.decode(text, type=Survey)
    better = msgspec.structs.replace(ours, id="n1", uuid="uuid-1", last_index=ours.last_index + 1)
    (tmp_path / "n1.json").write_bytes(msgspec.json.encode(better))
    words = ("--data-dir", tmp_path / "n3", "--compare", tmp_path / "n1.json")
    done = recover(*words, "--dry-run")
    assert done.code == 0
    assert "n3 (4, 11), applied 11, lacks 0 bytes, n1 (4, 12), applied 11, lacks 0 bytes. Recover n1" in done.out
    assert json.loads(recover(*words, "--dry-run", "--json").out)["choose"] == "n1"
    done = recover(*words, "--yes")
    assert (done.code, "n1 has more than n3: recover that one" in done.err) == (4, True)
    assert recover("--data-dir", tmp_path / "n3", "--dry-run", "--json").out == text
    (tmp_path / "n1.json").write_text("{}")
    assert recover(*words, "--yes").code == 2


@pytest.mark.parametrize("role", ["learner", "removed"])
def test_a_survivor_that_did_not_count_is_a_reason_for_caution(recover: Command, tmp_path: Path, role: str) -> None:
    listens = msgspec.structs.replace(MEMBERS.members[2], voter=False)
    with closing(begin(tmp_path / "n3", members=MEMBERS.without("n3") if role == "removed" else
                       MEMBERS.with_member(listens))):  # fmt: skip
        pass
    assert "CAUTION: n3" in recover("--data-dir", tmp_path / "n3", "--dry-run").out


def test_an_interrupted_recovery_is_finished_and_nothing_else(recover: Command, tmp_path: Path) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    interrupt(data_dir, DECIDED)
    done = recover("--data-dir", data_dir, "--dry-run")
    assert (done.code, "was begun at" in done.err) == (4, True)
    done = recover("--data-dir", data_dir)
    assert (done.code, "finishing the recovery" in done.err) == (0, True)
    assert "n3 is a cluster of one from entry 14" in done.out
    check_recovered(data_dir)


def test_what_names_no_node_or_two_is_refused(recover: Command, tmp_path: Path) -> None:
    assert recover("--dry-run").code == 2
    assert recover("--dry-run", "--config", tmp_path / "c", "--data-dir", tmp_path).code == 2
    assert recover("--dry-run", "--config", tmp_path / "c").code == 2
    assert recover("--dry-run", "--data-dir", tmp_path / "absent").code == 3
