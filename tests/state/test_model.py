"""Random commands against the machine and against a plain dict: results, every path and every revision must agree.

The second half plants bugs in the machine, one at a time, and requires that the same comparison finds each of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from raftfs.limits import IDEMPOTENCY_KEY_AGE_MS_MAX
from raftfs.state import (
    Command,
    CommitFile,
    Copy,
    Envelope,
    MakeDirectory,
    Page,
    Remove,
    Rename,
    Result,
    SetMetadata,
    Stat,
    StateMachine,
    UploadAbort,
    UploadBegin,
    UploadChunk,
    UploadExpire,
    encode,
)

from .driver import Driver, chunk, in_format
from .model import Expected, Model, Names, Node, in_order, split

# "a" < "a-" < "a/b" as bytes, but not as paths.
names = st.sampled_from(["a", "a-", "b", "\u00e9"])
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
paths_or_root = st.one_of(paths, paths, paths, st.just("/"))
revisions = st.one_of(st.none(), st.none(), st.integers(0, 30))
times = st.one_of(st.integers(0, 5_000), st.integers(0, 2 * IDEMPOTENCY_KEY_AGE_MS_MAX))
keys = st.one_of(st.none(), st.none(), st.sampled_from(["k1", "k2", "k3"]))
fingerprints = st.sampled_from([b"f", b"f", b"g"])
upload_ids = st.integers(1, 12)
metadata = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["v", "w"]), max_size=2)
sizes = st.sampled_from([100, 100, 200, 0])


def commits(data: bytes | None, upload: int | None, size: int, **fields: Any) -> CommitFile:
    return CommitFile(size=size if data is None else len(data), data=data, upload=upload, **fields)


commit_fields: dict[str, st.SearchStrategy[Any]] = {
    "path": paths_or_root,
    "metadata": metadata,
    "content_type": st.sampled_from(["text/plain", "application/octet-stream"]),
    "if_match": revisions,
    "if_absent": st.booleans(),
    "parents": st.booleans(),
}
move_fields: dict[str, st.SearchStrategy[Any]] = {
    "source": paths_or_root,
    "target": paths_or_root,
    "replace": st.booleans(),
    "parents": st.booleans(),
    "if_match": revisions,
}
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(MakeDirectory, paths_or_root, parents=st.booleans(), exist_ok=st.booleans()),
    st.builds(commits, data=st.binary(max_size=8), upload=st.none(), size=st.none(), **commit_fields),
    st.builds(commits, data=st.none(), upload=upload_ids, size=sizes, **commit_fields),
    st.builds(
        Remove, paths_or_root, st.sampled_from(["any", "any", "file", "directory"]), st.booleans(), if_match=revisions
    ),
    st.builds(Rename, **move_fields),
    st.builds(Copy, **move_fields),
    st.builds(
        SetMetadata,
        paths_or_root,
        st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["v", None]), max_size=2),
        content_type=st.sampled_from([None, "text/html"]),
        if_match=revisions,
    ),
    st.builds(UploadBegin, paths, st.integers(1, 5_000)),
    st.builds(UploadChunk, upload_ids, st.sampled_from([0, 0, 100, 200]), st.integers(1, 3).map(chunk)),
    st.builds(UploadAbort, upload_ids),
    st.builds(UploadExpire),
)
# Later commands of an entry are more likely to succeed if they are simple.
simple_commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(MakeDirectory, paths, parents=st.just(True), exist_ok=st.just(True)),
    st.builds(lambda path, data: CommitFile(path, len(data), data=data, parents=True), paths, st.binary(max_size=8)),
    st.builds(Rename, paths, paths, replace=st.just(True), parents=st.just(True)),
    st.builds(Copy, paths, paths, replace=st.just(True), parents=st.just(True)),
    st.builds(Remove, paths, recursive=st.just(True)),
    st.builds(UploadBegin, paths, st.integers(1, 5_000)),
    st.builds(UploadChunk, upload_ids, st.just(0), st.integers(1, 3).map(chunk)),
)
picks = st.integers(0, 100)
envelopes = st.builds(Envelope, st.one_of(commands, simple_commands), times, keys, fingerprints)


class Comparison(RuleBasedStateMachine):
    """Machine and model side by side."""

    open_machine: ClassVar[Callable[[Path], StateMachine]] = in_format

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.driver = Driver(Path(self.folder.name) / "state.db", type(self).open_machine)
        self.model = Model()
        self.inodes: dict[int, int] = {}

    def teardown(self) -> None:
        try:
            for revision in range(self.model.revision + 1):
                self.compare_tree(revision)
        finally:
            self.driver.close()
            self.folder.cleanup()

    @rule(batch=st.lists(envelopes, min_size=1, max_size=4))
    def entry(self, batch: list[Envelope]) -> None:
        results = self.driver.entry(*(encode(envelope) for envelope in batch))
        assert len(results) == len(batch)
        for envelope, result in zip(batch, results, strict=True):
            self.compare_result(result, self.model.apply(envelope))
        self.model.end_entry()

    # Rules that pick what is there, so that long sequences of commands succeed.

    def one(self, command: Command, key: str | None = None) -> None:
        self.entry([Envelope(command, self.model.now_ms + 1, key, b"f" if key else b"")])

    def pick(self, choices: Sequence[Names], number: int) -> str:
        return "/" + "/".join(choices[number % len(choices)])

    @precondition(lambda self: self.model.uploads)
    @rule(number=picks, chunk_number=st.integers(1, 3))
    def send_chunk(self, number: int, chunk_number: int) -> None:
        upload_id = sorted(self.model.uploads)[number % len(self.model.uploads)]
        self.one(UploadChunk(upload_id, self.model.uploads[upload_id].offset, chunk(chunk_number)))

    @precondition(lambda self: self.model.uploads)
    @rule(number=picks, path=paths, abort=st.booleans(), key=keys)
    def end_upload(self, number: int, path: str, abort: bool, key: str | None) -> None:
        upload_id = sorted(self.model.uploads)[number % len(self.model.uploads)]
        size = self.model.uploads[upload_id].offset
        self.one(UploadAbort(upload_id) if abort else CommitFile(path, size, upload=upload_id, parents=True), key)

    @precondition(lambda self: len(self.model.tree) > 1)
    @rule(number=picks, right=st.booleans(), data=st.binary(max_size=8))
    def replace_file(self, number: int, right: bool, data: bytes) -> None:
        path = self.pick(in_order(self.model.tree)[1:], number)
        revision = self.model.tree[split(path)].revision
        self.one(CommitFile(path, len(data), data=data, if_match=revision + (not right)))

    @precondition(lambda self: len(self.model.tree) > 1)
    @rule(number=picks)
    def remove(self, number: int) -> None:
        self.one(Remove(self.pick(in_order(self.model.tree)[1:], number), recursive=True))

    @precondition(lambda self: len(self.model.tree) > 1)
    @rule(number=picks, to=paths, move=st.sampled_from([Rename, Copy]))
    def move(self, number: int, to: str, move: type[Rename] | type[Copy]) -> None:
        self.one(move(self.pick(in_order(self.model.tree)[1:], number), to, replace=True, parents=True))

    @rule()
    def restart(self) -> None:
        before = self.driver.machine.state_hash
        self.driver.reopen()
        assert self.driver.machine.state_hash == before

    @rule(
        back=st.integers(0, 5), limit=st.integers(1, 4), recursive=st.booleans(), batch=st.lists(envelopes, max_size=2)
    )
    def list_while_things_change(self, back: int, limit: int, recursive: bool, batch: list[Envelope]) -> None:
        revision = max(0, self.model.revision - back)
        tree = self.model.history[revision]
        expected = [path for path in in_order(tree) if path and (recursive or len(path) == 1)]
        page = self.driver.reader.list("/", limit=limit, recursive=recursive, revision=revision)
        pages: list[Page] = [page]
        if batch:
            self.entry(batch)
        while page.next is not None:
            page = self.driver.reader.list("/", limit=limit, recursive=recursive, cursor=page.next)
            pages.append(page)
        assert [split(stat.path) for page in pages for stat in page.entries] == expected
        assert {page.revision for page in pages} == {revision}

    @rule(path=paths_or_root, back=st.integers(0, 10))
    def read_one(self, path: str, back: int) -> None:
        revision = max(0, self.model.revision - back)
        self.compare_path(path, None, self.model.tree)
        self.compare_path(path, revision, self.model.history[revision])

    @invariant()
    def agree(self) -> None:
        applied = self.driver.reader.applied()
        assert applied.revision == self.driver.machine.revision == self.model.revision
        self.compare_tree(None)
        held = {ref for _, ref in self.driver.reader.chunk_changes(0, 100)}
        assert held == set(self.driver.reader.chunks(b"", 100)) == self.model.held_chunks()
        assert all(self.driver.reader.is_referenced(chunk(n).digest) == (chunk(n) in held) for n in (1, 2, 3))
        for number in range(self.model.contents + 2):
            upload, expected = self.driver.reader.upload(number), self.model.uploads.get(number)
            assert (upload is None) == (expected is None)
            if upload is not None and expected is not None:
                assert (upload.path, upload.offset, upload.expires_at_ms) == (
                    expected.path, expected.offset, expected.expires_at_ms
                )  # fmt: skip
        for key in ("k1", "k2", "k3"):
            stored = self.driver.reader.outcome(key)
            assert (stored and stored[0]) == (self.model.outcomes[key][0] if key in self.model.outcomes else None)

    def compare_result(self, result: Result, expected: Expected) -> None:
        assert (result.code, result.revision, result.replayed) == (
            expected.code, expected.revision, expected.replayed
        ), (result, expected)  # fmt: skip
        assert (result.stat is None) == (expected.node is None), (result, expected)
        if result.stat is not None and expected.node is not None:
            assert expected.path is not None
            self.compare_stat(result.stat, expected.path, expected.node)
        upload = (result.upload.id, result.upload.offset) if result.upload else None
        assert upload == expected.upload, (result, expected)

    def compare_tree(self, revision: int | None) -> None:
        tree = self.model.tree if revision is None else self.model.history[revision]
        found = self.driver.all_entries("/", revision=revision)
        expected = [path for path in in_order(tree) if path]
        assert [split(stat.path) for stat in found] == expected
        for stat, path in zip(found, expected, strict=True):
            self.compare_stat(stat, stat.path, tree[path])
            if not stat.is_directory:
                self.compare_content(stat.path, revision, tree[path])
        self.compare_path("/", revision, tree)

    def compare_path(self, path: str, revision: int | None, tree: dict[Names, Node]) -> None:
        stat, node = self.driver.reader.stat(path, revision), tree.get(split(path))
        assert (stat is None) == (node is None), (path, revision)
        if stat is not None and node is not None:
            self.compare_stat(stat, path, node)

    def compare_content(self, path: str, revision: int | None, node: Node) -> None:
        expected = list(node.content) if isinstance(node.content, tuple) else node.content
        assert self.driver.read(path, revision) == expected, (path, revision)

    def compare_stat(self, stat: Stat, path: str, node: Node) -> None:
        assert (stat.path, stat.is_directory, stat.size, stat.revision, stat.created_ms, stat.modified_ms) == (
            path, node.is_directory, node.size, node.revision, node.created_ms, node.modified_ms
        )  # fmt: skip
        assert (stat.content_type, stat.metadata) == (node.content_type, dict(node.metadata)), (stat, node)
        assert self.inodes.setdefault(stat.inode, node.identity) == node.identity, "one inode, two entries"


TestModel = Comparison.TestCase
TestModel.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


Handler = Callable[[Any], Result]


def rename_keeps_the_source(machine: StateMachine) -> Handler:
    copy = machine._handlers[Copy]
    return lambda command: copy(Copy(*msgspec.structs.astuple(command)))


def replace_forgets_when_it_was_made(machine: StateMachine) -> Handler:
    right = machine._handlers[CommitFile]

    def wrong(command: CommitFile) -> Result:
        result = right(command)
        if result.stat is not None:
            now = machine._meta.clock_ms
            machine._db.execute("UPDATE version SET created_ms = ? WHERE inode = ?", (now, result.stat.inode))
        return result

    return wrong


def commit_ignores_its_precondition(machine: StateMachine) -> Handler:
    right = machine._handlers[CommitFile]
    return lambda command: right(msgspec.structs.replace(command, if_match=None))


def remove_erases_history(machine: StateMachine) -> Handler:
    right = machine._handlers[Remove]

    def wrong(command: Remove) -> Result:
        result = right(command)
        machine._db.execute("DELETE FROM dirent_past WHERE rev_to = ?", (result.revision,))
        return result

    return wrong


def abort_leaks_its_chunks(machine: StateMachine) -> Handler:
    right = machine._handlers[UploadAbort]

    def wrong(command: UploadAbort) -> Result:
        machine._db.execute("DELETE FROM content_chunk WHERE content = ?", (command.upload,))
        return right(command)

    return wrong


def copy_makes_wrong_times(machine: StateMachine) -> Handler:
    right = machine._handlers[Copy]

    def wrong(command: Copy) -> Result:
        before = machine._meta.revision
        result = right(command)
        machine._db.execute("UPDATE version SET modified_ms = modified_ms - 1 WHERE rev_from > ?", (before,))
        return result

    return wrong


BUGS: list[tuple[type, Callable[[StateMachine], Handler]]] = [
    (Rename, rename_keeps_the_source),
    (CommitFile, replace_forgets_when_it_was_made),
    (CommitFile, commit_ignores_its_precondition),
    (Remove, remove_erases_history),
    (UploadAbort, abort_leaks_its_chunks),
    (Copy, copy_makes_wrong_times),
]


@pytest.mark.parametrize(("command", "plant"), BUGS, ids=[plant.__name__ for _, plant in BUGS])
def test_comparison_finds_a_planted_bug(command: type, plant: Callable[[StateMachine], Handler]) -> None:
    def open_with_bug(path: Path) -> StateMachine:
        machine = in_format(path)
        machine._handlers[command] = plant(machine)
        return machine

    class WithBug(Comparison):
        open_machine = staticmethod(open_with_bug)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            WithBug,
            settings=settings(
                TestModel.settings,
                max_examples=200,
                phases=[Phase.generate],
                database=None,
                derandomize=True,
                print_blob=False,
                report_multiple_bugs=False,
            ),
        )


def test_comparison_finds_a_forgotten_key() -> None:
    def open_with_bug(path: Path) -> StateMachine:
        machine = in_format(path)
        machine._sessions.replay = lambda key, fingerprint: None  # type: ignore[method-assign]
        machine._sessions.remember = lambda key, fingerprint, code, encoded: None  # type: ignore[method-assign]
        return machine

    class WithBug(Comparison):
        open_machine = staticmethod(open_with_bug)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            WithBug, settings=settings(TestModel.settings, phases=[Phase.generate], database=None, derandomize=True)
        )
