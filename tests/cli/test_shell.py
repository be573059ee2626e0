"""The shell's two vocabularies, carried out by a recorder in place of the command line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftfs_cli import exitcodes
from raftfs_cli.shell import PROMPT, Shell


class Recorder:
    """Takes the command lines that a session carries out; those with a ``failing`` word fail."""

    def __init__(self, failing: dict[str, int]) -> None:
        self.lines: list[list[str]] = []
        self._failing = failing

    def __call__(self, arguments: list[str]) -> int:
        self.lines.append(arguments)
        return next((code for word, code in self._failing.items() if word in arguments), exitcodes.OK)


def session(text: str, endpoints: list[str] | None = None, **failing: int) -> tuple[list[list[str]], int]:
    """Carry out a script; returns the command lines and the exit code."""
    lines: Iterator[str] = iter(text.splitlines())
    recorder = Recorder(failing)
    code = Shell(recorder, lambda question: next(lines, None), endpoints or []).loop(PROMPT)
    return recorder.lines, code


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("LIST", ["ls", "/"]),
        ("list /a", ["ls", "/a"]),
        ("UPLD\na file.txt", ["put", "--", "a file.txt", "/a file.txt"]),
        ("upld dir/a.txt", ["put", "--", "dir/a.txt", "/a.txt"]),
        ("UPLD a.txt /b/c.txt", ["put", "--", "a.txt", "/b/c.txt"]),
        ("UPLD+\na.txt", ["put", "--ack", "all", "--", "a.txt", "/a.txt"]),
        ("DWLD\na.txt", ["get", "--", "a.txt", "."]),
        ("DWLD /x/a.txt b.txt", ["get", "--", "/x/a.txt", "b.txt"]),
        ("DELF\na.txt\nYes", ["rm", "--", "a.txt"]),
        ("delf a.txt\nyes", ["rm", "--", "a.txt"]),
        ("CONN", ["cluster", "status"]),
        ("ls -l '/a b'", ["ls", "-l", "/a b"]),
        ("MV /a /b", ["mv", "/a", "/b"]),
        ("cluster status --json", ["cluster", "status", "--json"]),
    ],
)
def test_words_become_command_lines(script: str, line: list[str]) -> None:
    assert session(script) == ([line], exitcodes.OK)


def test_blank_lines_and_comments_are_nothing_and_quit_ends() -> None:
    assert session("\n  \n# a comment\nLIST\nQUIT\nLIST") == ([["ls", "/"]], exitcodes.OK)


def test_no_keeps_the_file_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert session("DELF\na.txt\nNo\nLIST") == ([["ls", "/"]], exitcodes.OK)
    assert "a.txt stays" in capsys.readouterr().out


def test_neither_yes_nor_no_removes_nothing_and_fails() -> None:
    assert session("DELF\na.txt\nmaybe") == ([], exitcodes.USAGE)
    assert session("DELF\na.txt") == ([], exitcodes.USAGE)


@pytest.mark.parametrize("word", ["UPLD", "UPLD+", "DWLD", "DELF"])
def test_a_name_that_does_not_come_is_a_failure(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert session(word) == ([], exitcodes.USAGE)
    assert session(f"{word}\n \n") == ([], exitcodes.USAGE)
    assert "a name was expected" in capsys.readouterr().err


def test_the_session_goes_on_after_a_failure_and_reports_the_first() -> None:
    lines, code = session("DWLD a\nLIST\nDELF b\nYes", get=exitcodes.NOT_FOUND, rm=exitcodes.UNAVAILABLE)
    assert [line[0] for line in lines] == ["get", "ls", "rm"]
    assert code == exitcodes.NOT_FOUND


def test_an_unknown_word_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert session("FROB x\nLIST") == ([["ls", "/"]], exitcodes.USAGE)
    assert "'FROB'" in capsys.readouterr().err


def test_a_lonely_quotation_mark_is_a_failure_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert session("ls 'a\nLIST") == ([["ls", "/"]], exitcodes.USAGE)
    assert "quotation" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["http://h:1", "h:1", "h 1"])
def test_conn_chooses_the_server_of_what_follows(address: str) -> None:
    lines, code = session(f"CONN {address}\nLIST", ["http://before:1"])
    assert lines == [["--endpoint", "http://h:1", "cluster", "status"], ["--endpoint", "http://h:1", "ls", "/"]]
    assert code == exitcodes.OK


def test_a_conn_that_fails_stays_with_the_former_server() -> None:
    lines, code = session("CONN h:1\nLIST", ["http://before:1"], status=exitcodes.UNAVAILABLE)
    assert lines[1] == ["--endpoint", "http://before:1", "ls", "/"]
    assert code == exitcodes.UNAVAILABLE


def test_standard_input_cannot_be_a_file_while_it_holds_the_commands() -> None:
    assert session("put - /x") == ([], exitcodes.USAGE)


def test_help_names_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert session("HELP") == ([], exitcodes.OK)
    said = capsys.readouterr().out
    for word in ("CONN", "LIST", "UPLD", "UPLD+", "DWLD", "DELF", "QUIT", "ls", "put", "cluster"):
        assert word in said


def test_ctrl_c_ends_a_script_but_only_a_command_on_a_terminal() -> None:
    def carry_out(prompt: str) -> tuple[list[list[str]], int]:
        lines = iter(["get /a", "ls /"])
        recorder = Recorder({"get": exitcodes.INTERRUPTED})
        return recorder.lines, Shell(recorder, lambda question: next(lines, None), []).loop(prompt)

    assert carry_out("") == ([["get", "/a"]], exitcodes.INTERRUPTED)
    assert carry_out(PROMPT) == ([["get", "/a"], ["ls", "/"]], exitcodes.INTERRUPTED)
