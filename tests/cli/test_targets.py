"""Where things go: the rules of cp."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftfs.errors import InvalidPath, InvalidRequest, IsADirectory
from raftfs_cli import targets
from raftfs_cli.targets import Upload


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "dir").mkdir()
    return tmp_path


def _planned(sources: list[str], target: str, *, into: bool = False, recursive: bool = False) -> list[tuple[str, bool]]:
    plan = targets.plan_uploads(sources, target, into=into, recursive=recursive)
    return [(upload.target, upload.directory) for upload in plan]


@pytest.mark.parametrize(
    ("words", "default", "expected"),
    [
        (["a"], "/", (["a"], "/")),
        (["a", "/x"], "/", (["a"], "/x")),
        (["a", "b", "/x/"], ".", (["a", "b"], "/x/")),
    ],
)
def test_the_last_of_several_words_is_the_target(
    words: list[str], default: str, expected: tuple[list[str], str]
) -> None:
    assert targets.split(words, default) == expected


@pytest.mark.parametrize(
    ("sources", "target", "into"),
    [(["a"], "/x", False), (["a"], "/x/", True), (["a", "b"], "/x", True), (["a"], "", True), (["a"], "/", True)],
)
def test_words_that_make_the_target_a_directory(sources: list[str], target: str, into: bool) -> None:
    assert targets.is_into(sources, target) is into


def test_a_file_gets_the_name_of_the_target_or_goes_into_it(here: Path) -> None:
    assert _planned(["a.txt"], "/x") == [("/x", False)]
    assert _planned(["a.txt"], "x/", into=True) == [("/x/a.txt", False)]
    assert _planned([str(here / "a.txt")], "/", into=True) == [("/a.txt", False)]
    assert _planned(["./dir/../a.txt"], "/x/", into=True) == [("/x/a.txt", False)]


@pytest.mark.parametrize(
    ("source", "target"), [("dir", "/x/dir"), ("dir/", "/x/dir"), ("dir/.", "/x"), (".", "/x"), ("dir/..", "/x")]
)
def test_a_directory_goes_into_or_its_contents_do(here: Path, source: str, target: str) -> None:
    assert _planned([source], "/x", into=True, recursive=True) == [(target, True)]


def test_a_directory_needs_the_option(here: Path) -> None:
    with pytest.raises(IsADirectory, match="dir is a directory"):
        _planned(["a.txt", "dir"], "/x", into=True)


def test_nothing_is_planned_when_one_source_is_missing(here: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _planned(["a.txt", "gone"], "/x", into=True)


def test_two_sources_never_become_one_target(here: Path) -> None:
    (here / "dir" / "a.txt").write_text("other")
    with pytest.raises(InvalidRequest, match=r"two sources would become /x/a\.txt"):
        _planned(["a.txt", "dir/a.txt"], "/x", into=True)


def test_standard_input_needs_a_whole_path() -> None:
    assert targets.plan_uploads(["-"], "/x", into=False, recursive=False) == [Upload("-", "/x", directory=False)]
    with pytest.raises(InvalidRequest, match="no name"):
        targets.plan_uploads(["-"], "/x", into=True, recursive=False)


def test_a_target_that_the_store_refuses_is_refused_at_once(here: Path) -> None:
    with pytest.raises(InvalidPath):
        _planned(["a.txt"], "/x/../y")


def test_moves_inside_the_store() -> None:
    assert targets.remote_target("/a/b", "/x", into=False) == "/x"
    assert targets.remote_target("a/b/", "/x/", into=True) == "/x/b"
    with pytest.raises(InvalidRequest, match="root"):
        targets.remote_target("/", "/x", into=True)


def test_downloads() -> None:
    assert targets.local_target("/a/b", "out", into=False) == Path("out")
    assert targets.local_target("/a/b", "out/", into=True) == Path("out/b")
    assert targets.local_target("/", "out", into=True) == Path("out")
