"""Looking through a damaged data directory names what is damaged; repairing it leaves one that rejoins, whatever step a
crash interrupts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from raftfs import fsync
from raftfs.chunks import ChunkStore, hash_chunk
from raftfs.config import MemberConfig, NodeConfig
from raftfs.consensus import Configuration, Journal, MemberRecord, RejoinFile
from raftfs.consensus.membership import encode_configuration
from raftfs.errors import ConfigError, CorruptData
from raftfs.service.datadir import Identity, check_identity, read_identity, write_identity
from raftfs.service.fsck import Report, examine, repair
from raftfs.state import Envelope, MakeDirectory, StateMachine, encode
from raftfs.versions import FORMAT_VERSION

APPLIED, LAST = 8, 10
MEMBERS = [
    MemberConfig(id=name, peer=f"127.0.0.1:741{at}", url=f"http://127.0.0.1:740{at}")
    for at, name in enumerate(("n1", "n2", "n3"))
]


def config_of(data_dir: Path, members: list[MemberConfig] = MEMBERS) -> NodeConfig:
    return NodeConfig(id="n1", cluster_id="c", data_dir=data_dir, members=members)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A stopped node: ten entries in three segments, the first of them a configuration, eight applied; one chunk."""
    data_dir = tmp_path / "n1"
    data_dir.mkdir()
    own = check_identity(config_of(data_dir))
    records = tuple(MemberRecord(m.id, m.peer, m.url, own if m.id == "n1" else "other") for m in MEMBERS)
    journal = Journal(data_dir / "journal", segment_bytes=1024)
    state = StateMachine(data_dir / "state.db", version=FORMAT_VERSION)
    for index in range(1, LAST + 1):
        held = encode_configuration(Configuration(records)) if index == 1 else None
        journal.add(held or b"\x10" + bytes([index]) * 200, index, 3)
        journal.flush()
        if index <= APPLIED:
            state.apply(index, 3, [] if held else [encode(Envelope(MakeDirectory(f"/d{index}"), index))], held)
    journal.setCurrentTerm(7, "n3")
    journal.close()
    state.checkpoint()
    state.close()
    store = ChunkStore(data_dir / "chunks")
    store.put(hash_chunk(b"a chunk"), b"a chunk")
    assert len(segments(data_dir)) == 3
    return data_dir


def segments(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "journal").glob("*.segment"))


def flip(path: Path, *offsets: int) -> None:
    raw = bytearray(path.read_bytes())
    for offset in offsets:
        raw[offset] ^= 0xFF
    path.write_bytes(raw)


def contents(data_dir: Path) -> dict[str, bytes]:
    """Everything but SQLite's own index of its log, which whoever opens a database makes."""
    files = (path for path in data_dir.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in files}


def break_journal(data_dir: Path) -> str:
    flip(segments(data_dir)[0], 100)
    return "damaged record at offset 32"


def lose_last_segments(data_dir: Path) -> str:
    for path in segments(data_dir)[1:]:
        path.unlink()
    return "the end of the log was lost"


def break_term(data_dir: Path) -> str:
    flip(data_dir / "journal" / "term", 14, 4096 + 14)
    return r"both copies of the term and vote are damaged \(offsets 0 and 4096\)"


def lose_term(data_dir: Path) -> str:
    (data_dir / "journal" / "term").unlink()
    return "term and vote are missing from offset 0 on"


def break_state(data_dir: Path) -> str:
    flip(data_dir / "state.db", 4096 * 3 + 50)
    return "page 4, at offset 12288, is damaged"


def lose_state(data_dir: Path) -> str:
    for path in data_dir.glob("state.db*"):
        path.unlink()
    return r"state\.db is missing, from offset 0 on"


def lose_journal(data_dir: Path) -> str:
    shutil.rmtree(data_dir / "journal")
    return "term and vote are missing from offset 0 on"


Damage = Callable[[Path], str]
DAMAGES: list[tuple[Damage, str]] = [
    (break_journal, "log"),
    (lose_last_segments, "log"),
    (break_term, "terms"),
    (lose_term, "terms"),
    (lose_journal, "terms"),
    (break_state, "state"),
    (lose_state, "state"),
]


def check_repaired(data_dir: Path, stage: str, *, log_kept: bool, state_kept: bool) -> None:
    mark = RejoinFile(data_dir)
    assert mark.stage == stage
    report = examine(data_dir)
    assert not report.findings
    assert any("this member rejoins" in note for note in report.notes)
    check_identity(config_of(data_dir))
    state = StateMachine(data_dir / "state.db")
    journal = Journal(data_dir / "journal", commit_floor=state.applied_index)
    assert state.applied_index == (APPLIED if state_kept else 0)
    if log_kept:
        assert (journal.first_index, journal.last_index) == (1, LAST)
    elif state_kept:
        # Anew, or what was left of it when a repair was interrupted: it fits the state.
        assert (journal.first_index, journal.last_index, journal.last_term) in ((APPLIED, APPLIED, 3), (5, LAST, 3))
    else:
        assert journal.last_index == 0
    vote = (journal.getCurrentTerm(), journal.getVotedForNodeId())
    assert vote == ((0, None) if stage == "terms" else (7, "n3"))
    journal.close()
    state.close()


def test_a_whole_directory_has_no_damage_and_stays_as_it_is(node: Path) -> None:
    before = contents(node)
    report = examine(node, chunks=True)
    assert (report.findings, report.notes, report.log, report.chunks) == ([], [], (1, LAST), 1)
    assert report.applied is not None
    assert report.applied.index == APPLIED
    assert contents(node) == before


@pytest.mark.parametrize(("damage", "stage"), DAMAGES, ids=lambda value: getattr(value, "__name__", value))
def test_damage_is_named_and_looking_changes_nothing(node: Path, damage: Damage, stage: str) -> None:
    words = damage(node)
    before = contents(node)
    assert any(re.search(words, finding.detail) for finding in examine(node).findings)
    assert contents(node) == before


@pytest.mark.parametrize(("damage", "stage"), DAMAGES, ids=lambda value: getattr(value, "__name__", value))
def test_a_node_does_not_start_on_damage(node: Path, damage: Damage, stage: str) -> None:
    words = damage(node)
    if damage is lose_state:
        return  # the log is whole, and makes it anew
    with pytest.raises(CorruptData, match=words):  # noqa: PT012  # the steps of Node's start that read data
        check_identity(config_of(node))
        state = StateMachine(node / "state.db")
        try:
            Journal(node / "journal", commit_floor=state.applied_index).close()
        finally:
            state.close()


@pytest.mark.parametrize(("damage", "stage"), DAMAGES, ids=lambda value: getattr(value, "__name__", value))
def test_repairing_leaves_a_directory_that_rejoins(node: Path, damage: Damage, stage: str) -> None:
    before = contents(node)
    damage(node)
    damaged = contents(node)
    done = repair(examine(node), config_of(node))
    assert "rejoin.json" in done[0]
    check_repaired(
        node,
        stage,
        log_kept=damage in (break_term, lose_term, break_state, lose_state),
        state_kept=damage not in (break_state, lose_state),
    )
    kept = {Path(name).name: raw for name, raw in contents(node).items() if name.startswith("damaged-")}
    for name, raw in damaged.items():
        if raw != before[name]:
            assert kept[Path(name).name] == raw, f"{name} was not kept"


def test_a_state_that_is_lost_with_a_log_that_was_cut_takes_both(node: Path) -> None:
    segments(node)[0].unlink()
    break_state(node)
    repair(examine(node), None)
    check_repaired(node, "log", log_kept=False, state_kept=False)


def test_everything_lost_at_once(node: Path) -> None:
    for damage in (break_state, break_journal, break_term):
        damage(node)
    repair(examine(node), None)
    check_repaired(node, "terms", log_kept=False, state_kept=False)


class Stops(BaseException):
    """The process is killed."""


class StopsAt(fsync.Kernel):
    """Ends the process at a sync: the numbered one from now on."""

    def __init__(self, number: int) -> None:
        self.left = number

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stops

    def sync_data(self, fd: int, path: Path) -> None:
        self._count()
        super().sync_data(fd, path)

    def sync_directory(self, fd: int, path: Path) -> None:
        self._count()
        super().sync_directory(fd, path)


@pytest.mark.parametrize(
    ("damages", "stage"),
    [
        ([break_journal], "log"),
        ([break_term], "terms"),
        ([break_state], "state"),
        ([break_state, break_journal], "log"),
        ([break_state, break_journal, break_term], "terms"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(damage.__name__ for damage in value),
)
def test_a_repair_that_is_interrupted_anywhere_is_finished_by_the_next(
    node: Path, tmp_path: Path, damages: list[Damage], stage: str
) -> None:
    for damage in damages:
        damage(node)
    for number in range(60):
        again = tmp_path / f"again {number}"
        shutil.copytree(node, again)
        try:
            with fsync.simulated(StopsAt(number)):
                repair(examine(again), None)
        except Stops:
            # Marked, or else nothing was touched: a node that starts now refuses, or takes no part.
            assert RejoinFile(again).stage == stage or contents(again).keys() - contents(node).keys() <= {
                "rejoin.json.new"
            }
            repair(examine(again), None)
            check_repaired(again, stage, log_kept=break_journal not in damages, state_kept=break_state not in damages)
            shutil.rmtree(again)
        else:
            assert number > 3, "nothing was interrupted"
            return
    pytest.fail("the repair does not end")


def test_a_mark_stays_at_its_earliest_stage(node: Path) -> None:
    break_term(node)
    repair(examine(node), None)
    break_state(node)
    repair(examine(node), None)
    mark = RejoinFile(node)
    assert mark.stage == "terms"
    assert mark.content is not None
    assert len(mark.content.damaged) == 2


def test_a_damaged_mark_counts_as_a_lost_term(node: Path) -> None:
    (node / "rejoin.json").write_bytes(b"{}")
    report = examine(node)
    assert [finding.part for finding in report.findings] == ["mark"]
    repair(report, None)
    assert RejoinFile(node).stage == "terms"


def test_the_identity_is_found_in_the_log_and_in_the_state(node: Path) -> None:
    known = read_identity(node)
    assert known is not None
    for lost in ([], segments(node)):
        for path in lost:
            path.unlink()
        flip(node / "node.json", 0)
        with pytest.raises(ConfigError, match="--config"):
            repair(examine(node), None)
        repair(examine(node), config_of(node))
        assert read_identity(node) == known


def test_an_identity_that_nothing_tells_is_not_made_up(node: Path) -> None:
    write_identity(node, Identity("x", "n1", "c"))
    flip(node / "node.json", 0)
    lose_state(node)
    for path in segments(node):
        path.unlink()
    with pytest.raises(ConfigError, match="raftfs cluster replace n1"):
        repair(examine(node), config_of(node))


def test_the_only_member_of_a_cluster_has_nobody_to_ask(node: Path) -> None:
    break_journal(node)
    before = contents(node)
    with pytest.raises(ConfigError, match="only member"):
        repair(examine(node), config_of(node, MEMBERS[:1]))
    assert contents(node) == before


def test_a_damaged_chunk_is_found_and_moved_aside(node: Path) -> None:
    path = node / "chunks" / hash_chunk(b"a chunk").hex()[:2] / hash_chunk(b"a chunk").hex()
    flip(path, 3)
    assert not examine(node).findings  # its bytes are not read unless asked
    report = examine(node, chunks=True)
    assert [(finding.part, finding.path) for finding in report.findings] == [("chunk", path)]
    repair(report, None)
    assert not path.exists()
    assert RejoinFile(node).stage is None  # backfill brings it back; no promise of the log is touched


def test_a_damaged_announcement_of_a_snapshot_goes_with_the_snapshot(node: Path) -> None:
    (node / "snapshot").mkdir()
    (node / "snapshot" / "ready.json").write_bytes(msgspec.json.encode({"index": "nine"}))
    report = examine(node)
    assert [finding.part for finding in report.findings] == ["snapshot"]
    repair(report, None)
    assert not (node / "snapshot").exists()
    assert RejoinFile(node).stage is None


def test_one_damaged_copy_of_the_term_is_no_damage_but_is_said(node: Path) -> None:
    flip(node / "journal" / "term", 14)
    report: Report = examine(node)
    assert not report.findings
    assert "the copy at offset 0 cannot be read" in report.notes[0]
