"""A recovery, whatever step a crash or a power cut interrupts: the next start or try finishes it with all it had."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from raftfs import fsync, limits
from raftfs.consensus import Configuration, Journal, MemberRecord, decode_configuration
from raftfs.errors import ConfigError, Conflict, CorruptData, NotFound
from raftfs.service.datadir import lock, read_identity
from raftfs.service.recovery import Recovery, finish, survivor
from raftfs.state import Reader

from .survivors import MEMBERS, TERM, begin, in_doubt, whole

LAST = 13
NEW_TERM = TERM + limits.RECOVERY_TERMS
DECIDED = 2  # syncs, after which recovery.json is durable


class Died(BaseException):
    """The process ended here."""


class Machine(fsync.Kernel):
    """A kernel whose process dies in the sync with the number ``dies_at`` (0: the first), and that remembers what of a
    directory is durable: contents by inode, names by directory."""

    def __init__(self, root: Path, dies_at: int | None) -> None:
        self.root, self.dies_at, self.syncs = root, dies_at, 0
        self._folders = [root, root / "journal"]
        self._contents: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        for folder in self._folders:
            for path in folder.iterdir():
                if path.is_file():
                    self._contents[path.stat().st_ino] = path.read_bytes()
            self._note(folder)

    def sync_data(self, fd: int, path: Path) -> None:
        self._count()
        self._contents[os.fstat(fd).st_ino] = path.read_bytes()

    def sync_directory(self, fd: int, path: Path) -> None:
        self._count()
        self._note(path)

    def _count(self) -> None:
        if self.syncs == self.dies_at:
            raise Died
        self.syncs += 1

    def _note(self, folder: Path) -> None:
        self._names[folder] = {path.name: path.stat().st_ino for path in folder.iterdir() if path.is_file()}

    def lose_power(self) -> None:
        """Leave what was durable, and nothing else."""
        for folder in self._folders:
            for path in folder.iterdir():
                if path.is_file():
                    path.unlink()
            for name, inode in self._names[folder].items():
                (folder / name).write_bytes(self._contents.get(inode, b""))


def recover(data_dir: Path, kernel: fsync.Kernel | None = None) -> Recovery:
    """What the command does; ``kernel`` is there for what comes after the look."""
    with survivor(data_dir) as found:
        survey = None if found.begun else found.survey()
        with fsync.simulated(kernel or fsync.Kernel()):
            return found.resume() if survey is None else found.recover(survey)


def interrupt(data_dir: Path, step: int) -> Machine:
    """A recovery, or one that is resumed, that dies in its sync with this number."""
    kernel = Machine(data_dir, step)
    with pytest.raises(Died):
        recover(data_dir, kernel)
    return kernel


def check_recovered(data_dir: Path) -> None:
    """One member, a term of its own, nothing of the log gone, and no trace of a recovery that is under way."""
    identity = read_identity(data_dir)
    assert identity is not None
    assert identity.uuid != "uuid-3"
    assert (identity.id, identity.cluster_id) == ("n3", "c")
    with closing(Reader(data_dir / "state.db")) as reader:
        applied = reader.applied().index
    with closing(Journal(data_dir / "journal", commit_floor=applied)) as journal:
        assert (journal.last_index, journal.last_term) == (LAST + 1, NEW_TERM)
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (NEW_TERM, "n3")
        assert [journal.term(index) for index in range(1, LAST + 1)] == [TERM] * LAST
        assert journal.configuration is not None
        index, members = journal.configuration[0], decode_configuration(journal.configuration[1])
    assert index == LAST + 1
    assert members == Configuration((MemberRecord("n3", "127.0.0.1:7413", "http://127.0.0.1:7403", identity.uuid),))
    assert not (data_dir / "recovery.json").exists()
    with survivor(data_dir) as found:
        record = found.last
        assert found.begun is None
    assert record is not None
    assert (record.uuid, record.old_uuid, record.index) == (identity.uuid, "uuid-3", LAST + 1)
    assert [member.id for member in record.former] == ["n1", "n2", "n3"]
    with survivor(data_dir) as found:
        survey = found.survey()
        assert survey.is_alone
        assert survey.open_entries == 3
        with pytest.raises(Conflict, match="only voting member"):
            found.recover(survey)


def test_a_survivor_becomes_a_cluster_of_one(tmp_path: Path) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    assert recover(data_dir).index == LAST + 1
    check_recovered(data_dir)
    assert finish(data_dir) is None


AGAIN: dict[str, Callable[[Path], object]] = {"command": recover, "start": finish}


def syncs_of_a_recovery(folder: Path) -> int:
    """How many steps there are to interrupt."""
    data_dir = in_doubt(folder / "n3")
    kernel = Machine(data_dir, None)
    recover(data_dir, kernel)
    return kernel.syncs


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power"])
def test_every_step_may_be_interrupted(tmp_path: Path, power: bool, again: str) -> None:
    """By the death of the process, or by a power cut that takes all that was not synced."""
    original = in_doubt(tmp_path / "original")
    steps = syncs_of_a_recovery(tmp_path / "count")
    assert steps >= 8
    undone = 0
    for step in range(steps):
        data_dir = tmp_path / f"step-{step}"
        shutil.copytree(original, data_dir)
        kernel = interrupt(data_dir, step)
        if power:
            kernel.lose_power()
        if not (data_dir / "recovery.json").exists() and not (data_dir / "recovered.json").exists():
            undone += 1
            with survivor(data_dir) as found:
                assert found.survey().rank == (TERM, LAST), "nothing was decided, so nothing was changed"
            recover(data_dir)
        AGAIN[again](data_dir) if (data_dir / "recovery.json").exists() else None
        check_recovered(data_dir)
    assert 1 <= undone < steps


def test_it_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    for step in (DECIDED, 0, 1, 2, 0, 3):
        interrupt(data_dir, step)
    assert (data_dir / "recovery.json").exists()
    finish(data_dir)
    check_recovered(data_dir)


def test_a_recovery_that_was_decided_for_another_log_is_refused(tmp_path: Path) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    interrupt(data_dir, DECIDED)
    with closing(Journal(data_dir / "journal", commit_floor=None)) as journal:
        journal.add(b"\x10other", journal.last_index + 1, TERM)
        journal.flush()
    with pytest.raises(CorruptData, match="is for a log that ends at index 13"):
        finish(data_dir)


@pytest.mark.parametrize("name", ["recovery.json", "recovered.json"])
def test_a_damaged_mark_or_record_is_named(tmp_path: Path, name: str) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    recover(data_dir) if name == "recovered.json" else interrupt(data_dir, DECIDED)
    path = data_dir / name
    raw = path.read_bytes()
    for damaged in (raw.replace(b'"old_uuid": "uuid-3"', b'"old_uuid": "uuid-2"'), raw[:-5], b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptData, match=rf"{name} is damaged at offset 0"), survivor(data_dir):
            pass


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_node_that_runs_is_left_alone(tmp_path: Path) -> None:
    data_dir = whole(tmp_path / "n3")
    fd = lock(data_dir)
    try:
        with pytest.raises(ConfigError, match="in use by another process"), survivor(data_dir):
            pass
    finally:
        os.close(fd)
    with survivor(data_dir), pytest.raises(ConfigError, match="in use"):
        lock(data_dir)


def test_where_nothing_was_ever_started_there_is_nothing_to_recover(tmp_path: Path) -> None:
    for name in ("absent", "empty"):
        if name == "empty":
            (tmp_path / name).mkdir()
        with pytest.raises(NotFound, match="no node was ever started"), survivor(tmp_path / name):
            pass
        assert not (tmp_path / name / "lock").exists()


def test_a_node_whose_members_are_not_in_its_log_has_nothing_to_recover(tmp_path: Path) -> None:
    data_dir = whole(tmp_path / "n3")
    for name in ("journal", "state.db"):
        path = data_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with closing(Journal(data_dir / "journal")):
        pass
    (data_dir / "state.db-sums").unlink()
    with pytest.raises(CorruptData, match=r"state\.db is missing"), survivor(data_dir):
        pass


@pytest.mark.parametrize("name", ["node.json", "state.db", "journal/term"])
def test_a_missing_part_is_named(tmp_path: Path, name: str) -> None:
    data_dir = whole(tmp_path / "n3")
    (data_dir / name).unlink()
    with pytest.raises(CorruptData, match=rf"{name} is missing.*raftfs fsck"), survivor(data_dir) as found:
        found.survey()


@pytest.mark.parametrize("name", ["state.db", "journal/000000000001.segment"])
def test_damage_is_named_with_its_offset(tmp_path: Path, name: str) -> None:
    data_dir = whole(tmp_path / "n3")
    with closing(Journal(data_dir / "journal", segment_bytes=1, commit_floor=None)) as journal:
        journal.add(b"\x10more", journal.last_index + 1, TERM)  # in a segment of its own: what is before it was durable
        journal.flush()
    path = data_dir / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x40
    path.write_bytes(raw)
    with pytest.raises(CorruptData, match=rf"{Path(name).name}.* offset \d+.*raftfs fsck"), survivor(data_dir) as found:
        found.survey()


def test_a_node_that_is_not_whole_again_is_refused(tmp_path: Path) -> None:
    data_dir = whole(tmp_path / "n3")
    (data_dir / "rejoin.json").write_text("{}")
    with pytest.raises(Conflict, match=r"rejoin\.json says that this node lost a part"), survivor(data_dir):
        pass


def test_a_cluster_of_one_needs_none(tmp_path: Path) -> None:
    with closing(begin(tmp_path / "n3", members=Configuration(MEMBERS.members[2:]))):
        pass
    with survivor(tmp_path / "n3") as found, pytest.raises(Conflict, match="only voting member"):
        found.recover(found.survey())


def test_a_member_that_was_removed_must_say_where_it_listens(tmp_path: Path) -> None:
    with closing(begin(tmp_path / "n3", members=MEMBERS.without("n3"))):
        pass
    with survivor(tmp_path / "n3") as found, pytest.raises(ConfigError, match="give its configuration file"):
        found.recover(found.survey())


def test_what_was_in_doubt_stays_in_the_log(tmp_path: Path) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    with closing(Journal(data_dir / "journal", commit_floor=None)) as journal:
        before = [journal.data(index) for index in range(1, LAST + 1)]
    recover(data_dir)
    with closing(Journal(data_dir / "journal", commit_floor=None)) as journal:
        assert [journal.data(index) for index in range(1, LAST + 1)] == before
