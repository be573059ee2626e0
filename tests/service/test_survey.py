"""What a dry run says of a survivor is the truth, and all of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from raftfs.chunks.store import chunk_path
from raftfs.consensus import Configuration, MemberRecord
from raftfs.errors import ConfigError, Conflict
from raftfs.service.recovery import Survey, choose, survivor
from raftfs.state import (
    Command,
    CommitFile,
    Copy,
    MakeDirectory,
    Reader,
    Remove,
    Rename,
    SetMetadata,
    UploadAbort,
    UploadBegin,
    UploadChunk,
    UploadExpire,
)
from raftfs.state.commands import ChunkRef

from .survivors import BIG_BYTES, MEMBERS, REFS, TERM, begin, in_doubt, whole


def survey(data_dir: Path, *, read_chunks: bool = False) -> Survey:
    with survivor(data_dir) as found:
        return found.survey(read_chunks=read_chunks)


def files(data_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}


def test_a_whole_node(tmp_path: Path) -> None:
    data_dir = whole(tmp_path / "n3")
    found = survey(data_dir)
    assert (found.id, found.cluster_id, found.uuid, found.role) == ("n3", "c", "uuid-3", "voter")
    assert [(m.id, m.peer, m.uuid, m.voter) for m in found.members] == [
        (m.id, m.peer, m.uuid, True) for m in MEMBERS.members
    ]
    assert (found.term, found.rank, found.members_index) == (TERM, (TERM, 11), 2)
    assert (found.applied_index, found.revision, found.revision_after) == (11, 2, 2)
    assert (found.open_entries, found.open_changes) == (0, [])
    assert found.last_entry_ms == 1_011
    assert (found.missing_chunks, found.lost_files, found.lost_versions, found.lost_uploads) == (0, [], [], [])
    assert not found.is_alone


def test_looking_changes_nothing(tmp_path: Path) -> None:
    data_dir = in_doubt(tmp_path / "n3")
    survey(data_dir)
    before = files(data_dir)
    survey(data_dir, read_chunks=True)
    assert files(data_dir) == before


def test_entries_that_may_not_be_committed_are_told_with_what_comes_of_them(tmp_path: Path) -> None:
    found = survey(in_doubt(tmp_path / "n3"))
    assert (found.applied_index, found.last_index, found.open_entries) == (11, 13, 2)
    assert [(c.index, c.kind, c.paths, c.text, c.result) for c in found.open_changes] == [
        (12, "CommitFile", ["/small"], "write /small (3 bytes)", "replaced"),
        (12, "CommitFile", ["/tail"], "write /tail (4 bytes)", "created"),
    ]
    assert (found.revision, found.revision_after) == (2, 4)
    assert found.last_entry_ms == found.open_changes[-1].time_ms == 1_012


def test_every_command_has_words(tmp_path: Path) -> None:
    commands: list[Command] = [
        MakeDirectory("/d"), Rename("/small", "/d/s"), Copy("/d/s", "/copy"), SetMetadata("/copy", {"a": "b"}),
        Remove("/copy"), UploadBegin("/u", 1), UploadChunk(4, 0, REFS[1]),
        UploadChunk(99, 0, REFS[1]), UploadAbort(4), UploadExpire(), CommitFile("/none/f", 1, data=b"x"),
    ]  # fmt: skip
    with closing(begin(tmp_path / "n3")) as log:
        for command in commands:
            log.add(command, applied=False)
        log.add(configuration=Configuration(MEMBERS.members[1:]), applied=False)
    found = survey(tmp_path / "n3")
    assert [(c.text, c.result) for c in found.open_changes] == [
        ("make directory /d", "created"),
        ("rename /small to /d/s", "created"),
        ("copy /d/s to /copy", "created"),
        ("change the metadata of /copy", "ok"),
        ("remove /copy", "ok"),
        ("begin an upload to /u", "created"),
        ("100000 bytes at offset 0 of the upload to /u", "ok"),
        ("100000 bytes at offset 0 of upload 99", "upload not found"),
        ("end an upload", "ok"),
        ("forget expired uploads", "ok"),
        ("write /none/f (1 bytes)", "not found"),
        ("the members are n2, n3", "ok"),
    ]
    assert found.voters == ["n2", "n3"], "the newest configuration counts, committed or not"


def test_files_and_uploads_that_lack_a_chunk_are_named(tmp_path: Path) -> None:
    data_dir = whole(tmp_path / "n3")
    chunk_path(data_dir / "chunks", REFS[1].digest).unlink()
    found = survey(data_dir)
    (lost,) = found.lost_files
    assert (lost.path, lost.size, lost.missing_chunks, lost.missing_bytes) == ("/big", BIG_BYTES, 1, REFS[1].length)
    assert (found.missing_chunks, found.missing_bytes) == (1, REFS[1].length)
    assert (found.lost_versions, found.lost_uploads) == ([], [])
    chunk_path(data_dir / "chunks", REFS[0].digest).unlink()
    found = survey(data_dir)
    assert [lost.path for lost in found.lost_uploads] == ["/unfinished"]
    assert found.lost_files[0].missing_bytes == 2 * REFS[0].length


def test_a_file_that_the_doubtful_entries_replace_is_an_old_version(tmp_path: Path) -> None:
    with closing(begin(tmp_path / "n3")) as log:
        log.add(CommitFile("/big", 1, data=b"x"), applied=False)
    chunk_path(tmp_path / "n3/chunks", REFS[1].digest).unlink()
    found = survey(tmp_path / "n3")
    assert found.lost_files == []
    assert [(lost.path, lost.size) for lost in found.lost_versions] == [("/big", BIG_BYTES)]


def test_a_file_that_only_doubtful_entries_have_is_looked_at_too(tmp_path: Path) -> None:
    other = ChunkRef(bytes(32), 77)
    with closing(begin(tmp_path / "n3")) as log:
        log.add(UploadBegin("/late", 1_000_000), applied=False)
        log.add(UploadChunk(4, 0, other), applied=False)
        log.add(CommitFile("/late", 77, upload=4), applied=False)
    found = survey(tmp_path / "n3")
    assert [(lost.path, lost.missing_bytes) for lost in found.lost_files] == [("/late", 77)]
    with closing(Reader(tmp_path / "n3/state.db")) as reader:
        assert reader.stat("/late") is None, "the node's own state was left alone"


def test_a_chunk_that_was_cut_is_missing_and_one_that_was_flipped_too_if_it_is_read(tmp_path: Path) -> None:
    data_dir = whole(tmp_path / "n3")
    path = chunk_path(data_dir / "chunks", REFS[1].digest)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert survey(data_dir).missing_chunks == 1
    path.write_bytes(b"X" + good[1:])
    assert survey(data_dir).missing_chunks == 0
    assert survey(data_dir, read_chunks=True).missing_chunks == 1
    assert path.exists(), "a dry run moves nothing"


def test_a_listener_and_a_removed_member_are_told_apart(tmp_path: Path) -> None:
    listens = MemberRecord("n3", "127.0.0.1:7413", "http://127.0.0.1:7403", "uuid-3", voter=False)
    with closing(begin(tmp_path / "a", members=MEMBERS.with_member(listens))):
        pass
    assert survey(tmp_path / "a").role == "learner"
    with closing(begin(tmp_path / "b", members=MEMBERS.without("n3"))):
        pass
    assert survey(tmp_path / "b").role == "removed"


def altered(found: Survey, **values: object) -> Survey:
    return msgspec.structs.replace(found, **values)


def test_the_survivor_with_the_most_is_chosen(tmp_path: Path) -> None:
    five = Configuration(tuple(MemberRecord(f"n{n}", f"h:{n}", f"http://h:{n}", f"uuid-{n}") for n in range(1, 6)))
    with closing(begin(tmp_path / "n3", members=five)):
        pass
    ours = survey(tmp_path / "n3")
    longer = altered(ours, id="n1", uuid="uuid-1", last_index=ours.last_index + 1)
    newer = altered(ours, id="n2", uuid="uuid-2", last_term=ours.last_term + 1, last_index=1)
    poorer = altered(ours, id="n4", uuid="uuid-4", missing_bytes=1)
    assert choose([ours]) is ours
    assert choose([ours, longer]) is longer
    assert choose([longer, newer]) is newer
    assert choose([poorer, ours]) is ours
    with pytest.raises(Conflict, match="n1, n2, n3 are a majority of n1, n2, n3, n4, n5: start them"):
        choose([ours, longer, newer])
    with pytest.raises(ConfigError, match="of cluster 'other'"):
        choose([ours, altered(longer, cluster_id="other")])
    with pytest.raises(ConfigError, match="same id"):
        choose([ours, altered(ours, uuid="x")])


def test_what_one_survivor_knows_to_be_committed_outweighs_a_later_term(tmp_path: Path) -> None:
    """Raft, section 5.4.2: a leader of term 6 committed an entry of term 4 with the members that are lost, and n1 heard
    of it. n3 has an entry of term 5 in that place, from a leader that reached nobody else."""
    five = Configuration(tuple(MemberRecord(f"n{n}", f"h:{n}", f"http://h:{n}", f"uuid-{n}") for n in range(1, 6)))
    with closing(begin(tmp_path / "n3", members=five)) as log:
        last = log.last_index
    ours = survey(tmp_path / "n3")
    assert ours.term_runs == [(1, TERM)]
    later = altered(ours, last_index=last + 1, last_term=TERM + 1, term_runs=[(1, TERM), (last + 1, TERM + 1)])
    knows = altered(
        ours, id="n1", uuid="uuid-1", last_index=last + 1, applied_index=last + 1, term_runs=[(1, TERM)]
    )  # fmt: skip
    assert later.rank > knows.rank
    assert choose([later, knows]) is knows
    behind = altered(knows, applied_index=last)
    assert choose([later, behind]) is later
    longer = altered(later, last_index=last + 2, term_runs=[(1, TERM), (last + 2, TERM + 1)])
    assert choose([longer, knows]) is longer, "it has that entry"
