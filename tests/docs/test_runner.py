"""The runner of the documentation's examples sees a lie when there is one."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def document(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def console(*lines: str) -> str:
    return document("```console", *lines, "```")


TRUE = {
    "exact output": console("$ echo one; echo two", "one", "two"),
    "no output": console("$ true"),
    "dots within a line": console("$ echo 'took 17 ms'", "took ... ms"),
    "dots for lines": console("$ seq 5", "1", "...", "5"),
    "dots for no line": console("$ seq 2", "1", "...", "2"),
    "columns": console("$ echo 'a      1'; echo '  b'", "a   1", "  b"),
    "standard error counts": console("$ echo oops >&2", "oops"),
    "variables last": console("$ x=3", "$ cd /", "$ echo $x $PWD", "3 /"),
    "continued command": console("$ cat <<EOF", "> a b", "> EOF", "a b"),
    "a command that fails on purpose": console('$ false || echo "exit code $?"', "exit code 1"),
    "a command that reads input": console("$ cat", "$ echo next", "next"),
    "no newline at the end": console("$ printf 'hello'", "hello"),
    "a script": document("```sh", "set -e", "echo anything", "```"),
    "another language": document("```json", "{}", "```"),
    "left out": document("<!-- not run: it never ends -->", "```console", "$ false", "```"),
    "in the order of the page": document(
        *("```console", "$ touch a", "```"),
        *("```python", "import pathlib", "assert pathlib.Path('a').exists()", "```"),
        *("```console", "$ rm a", "```"),
    ),
    "python": document("```python", "x = 1", "```", "then", "```python", "assert x == 1", "```"),
    "python that awaits": document("```python", "import asyncio", "await asyncio.sleep(0)", "```"),
}

LIES = {
    "other output": console("$ echo one", "two"),
    "hidden output": console("$ echo one"),
    "more output than shown": console("$ seq 3", "1", "2"),
    "output that never comes": console("$ true", "done"),
    "columns": console("$ echo 'a 1'", "a1"),
    "dots do not cross lines": console("$ printf 'a\\nb\\n'", "a...b"),
    "failure": console("$ false"),
    "failure later in the block": console("$ true", "$ ls /no/such/folder", "..."),
    "no command": console("output of nothing"),
    "unknown command": console("$ raftfs-no-such-command", "..."),
    "end of the shell": console("$ exit 0"),
    "a failing script": document("```sh", "false", "```"),
    "python": document("```python", "assert 1 == 2", "```"),
    "python that warns": document("```python", "import warnings", "warnings.warn('old', stacklevel=1)", "```"),
    "python that awaits": document("```python", "import asyncio", "await asyncio.gone()", "```"),
}


@pytest.mark.parametrize("text", TRUE.values(), ids=TRUE)
def test_what_is_true_passes(text: str, examples: Callable[..., object]) -> None:
    examples().run(text, "page.md")


@pytest.mark.parametrize("text", LIES.values(), ids=LIES)
def test_a_lie_is_seen(text: str, examples: Callable[..., object]) -> None:
    with pytest.raises(AssertionError, match=r"page.md|line 2|ended the shell"):
        examples().run(text, "page.md")


def test_ports_are_translated_both_ways(examples: Callable[..., object]) -> None:
    made = examples()
    made.run(
        console("$ echo http://127.0.0.1:7400/x 7413 7420 17400", "http://127.0.0.1:7400/x 7413 7420 17400"), "p.md"
    )
    made.run(console("$ test 7400 != 74''00 && test 7420 = 74''20"), "p.md")
