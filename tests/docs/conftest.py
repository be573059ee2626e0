"""Runs the examples of a Markdown document, in order, and compares what they print with what the document shows.

- A ``console`` block: lines that begin with ``$ `` are commands (``> `` continues one), the lines under a command
  are what it prints, all of it; ``...`` stands for anything, within a line or, alone on a line, for any lines.
- A ``sh`` block is a script that must succeed; what it prints is not compared.
- A ``python`` block must end without an exception; blocks share their names, and ``await`` works at the top.
- A command must exit with 0. One that shall fail says so: ``$ raftfs cat /gone || echo "exit code $?"``.
- ``<!-- not run: reason -->`` on the line before a block leaves it out.

Commands run in one bash with a fresh home and working directory, and with ports of their own: where the document
says 7400 to 7419, a free block is used, and what comes out is translated back before it is compared.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import pytest

from raftfs.testing.ports import free_block

DOCUMENTED_PORTS = range(7400, 7420)
TASK_S_MAX = 120.0

_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>[a-z]*)\s*$")
_NOT_RUN = re.compile(r"^<!-- not run: (?P<reason>.+) -->\s*$")


class DocumentationLies(AssertionError):
    """An example does not do what the document shows."""


@dataclass(frozen=True)
class Block:
    """A fenced block. ``line`` is that of its first line of text, from 1. ``not_run``: why it is left out."""

    language: str
    line: int
    text: str
    not_run: str | None


@dataclass(frozen=True)
class Step:
    line: int
    command: str
    shown: str


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a Markdown text."""
    found = []
    lines = iter(enumerate(text.splitlines(), start=1))
    before = ""
    for number, line in lines:
        if fence := _FENCE.match(line):
            body = []
            for _, inner in lines:
                if inner.rstrip() == fence["fence"]:
                    break
                body.append(inner)
            reason = _NOT_RUN.match(before)
            found.append(
                Block(fence["language"], number + 1, "\n".join(body) + "\n", reason["reason"] if reason else None)
            )
        before = line
    return found


def steps(block: Block) -> list[Step]:
    """The commands of a console block, each with what the document shows under it."""
    found: list[tuple[int, list[str], list[str]]] = []
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        if line.startswith("$ "):
            found.append((number, [line[2:]], []))
        elif line.startswith("> ") and found and not found[-1][2]:
            found[-1][1].append(line[2:])
        elif found:
            found[-1][2].append(line)
        else:
            raise DocumentationLies(f"line {number}: a console block begins with a command ($ )")
    return [Step(number, "\n".join(command), "\n".join(shown)) for number, command, shown in found]


def is_as_shown(shown: str, printed: str) -> bool:
    """Whether ``printed`` fits ``shown``, in which ``...`` stands for anything.

    Widths of columns differ from run to run, so several spaces count as one, and none at the end of a line.
    """
    pattern = []
    for line in _tidy(shown):
        if line.strip() == "...":
            pattern.append(r"(?:.*\n)*?")
        else:
            pattern.append(".*?".join(re.escape(part) for part in line.split("...")) + r"\n")
    return re.fullmatch("".join(pattern), "".join(f"{line}\n" for line in _tidy(printed))) is not None


def _tidy(text: str) -> list[str]:
    return [re.sub(" {2,}", " ", line.rstrip()) for line in text.strip("\n").splitlines()]


class Conversation:
    """A process that is given one task after the other, and says after each a mark and an exit code."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=PIPE, stdout=PIPE, stderr=subprocess.STDOUT
        )

    def ask(self, line: str, mark: str, what: str) -> tuple[str, int]:
        """Output (standard output and error as they come) and exit code."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self._read_until(mark.encode(), what)

    def _read_until(self, mark: bytes, what: str) -> tuple[str, int]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + TASK_S_MAX
        output = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while (end := re.search(rb"\n%s (\d+)\n" % mark, output)) is None:
                if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                    raise DocumentationLies(f"no end after {TASK_S_MAX} s of: {what}\n{output.decode()}")
                read = os.read(self._process.stdout.fileno(), 65536)
                if not read:
                    raise DocumentationLies(f"ended the shell: {what}\n{output.decode()}")
                output += read
        return output[: end.start()].decode(errors="replace"), int(end[1])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


class Shell:
    """One bash that remembers its variables and its folder from command to command."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._script = folder / ".command"
        self._bash = Conversation(["bash", "--noprofile", "--norc"], folder, environment)
        self.close = self._bash.close

    def run(self, command: str) -> tuple[str, int]:
        self._script.write_text(command + "\n", encoding="utf-8")
        mark = f"end-{time.monotonic_ns()}"
        # From a file, so that a command that reads its standard input does not eat the next command.
        line = f". '{self._script}' </dev/null; printf '\\n{mark} %d\\n' $?"
        return self._bash.ask(line, mark, command)


class Python:
    """One interpreter in which the blocks of a document share their names."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, "-W", "error", "-c", _PYTHON_DRIVER]
        self._python = Conversation(command, folder, environment)
        self.close = self._python.close

    def run(self, source: str, name: str) -> tuple[str, int]:
        mark = f"end-{time.monotonic_ns()}"
        return self._python.ask(json.dumps([mark, name, source]), mark, name)


_PYTHON_DRIVER = """
import ast, asyncio, inspect, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    mark, name, source = json.loads(line)
    failed = 0
    try:
        code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(eval(code, names))
        else:
            exec(code, names)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        failed = 1
    print(f"\\n{mark} {failed}", flush=True)
"""


class Examples:
    """Runs the examples of documents in ``folder``. Every local cluster in ``clusters`` is stopped at the end."""

    def __init__(self, folder: Path, clusters: tuple[str, ...]) -> None:
        self.folder = folder
        self._port = free_block()
        home = folder / "home"
        home.mkdir()
        kept = ("LANG", "LC_ALL", "TMPDIR")
        self._environment = {name: os.environ[name] for name in kept if name in os.environ} | {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "RAFTFS_ENDPOINTS": f"http://127.0.0.1:{self._port}",
            "TERM": "dumb",
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }
        self._closing = ExitStack()
        self._shell = Shell(folder, self._environment)
        self._closing.callback(self._shell.close)
        self._python: Python | None = None
        for cluster in clusters:
            self._closing.callback(self._stop, cluster)

    def run(self, text: str, name: str) -> None:
        """Run all blocks of a document. Raises DocumentationLies naming the line that is not true."""
        for block in blocks(text):
            if block.not_run is not None:
                continue
            if block.language == "console":
                for step in steps(block):
                    self.command(step.command, step.shown, f"{name}:{step.line}")
            elif block.language in ("sh", "shell", "bash"):
                self.command(block.text, "...", f"{name}:{block.line}")
            elif block.language == "python":
                self._python_block(block, name)

    def command(self, command: str, shown: str, where: str) -> None:
        output, code = self._shell.run(self._to_real_ports(command))
        printed = self._to_documented_ports(output)
        if code != 0:
            raise DocumentationLies(f"{where}: exit code {code} of: {command}\n{printed}")
        if not is_as_shown(shown, printed):
            raise DocumentationLies(f"{where}: {command}\n--- the document shows\n{shown}\n--- it prints\n{printed}")

    def _python_block(self, block: Block, name: str) -> None:
        if self._python is None:
            self._python = Python(self.folder, self._environment)
            self._closing.callback(self._python.close)
        # Empty lines before the block make the line numbers of a traceback those of the document.
        source = "\n" * (block.line - 1) + self._to_real_ports(block.text)
        output, code = self._python.run(source, name)
        if code != 0:
            raise DocumentationLies(f"{name}:{block.line}: the Python block fails\n{output}")

    def _to_real_ports(self, text: str) -> str:
        return _translate(text, DOCUMENTED_PORTS.start, self._port)

    def _to_documented_ports(self, text: str) -> str:
        return _translate(text, self._port, DOCUMENTED_PORTS.start)

    def close(self) -> None:
        self._closing.close()

    def _stop(self, cluster: str) -> None:
        if (self.folder / cluster).exists():
            self._shell.run(f"raftfs dev down --dir '{self.folder / cluster}'")


def _translate(text: str, old: int, new: int) -> str:
    """``text`` with the ports of one block replaced by those of another."""
    ports = {str(old + offset): str(new + offset) for offset in range(len(DOCUMENTED_PORTS))}
    return re.sub(r"(?<![\w.])\d{4,5}(?![\w.]*\d)", lambda found: ports.get(found[0], found[0]), text)


@pytest.fixture
def examples(tmp_path: Path) -> Iterator[Callable[..., Examples]]:
    """Makes an ``Examples`` with its clusters' folders; all are closed at the end of the test."""
    with ExitStack() as stack:

        def make(*clusters: str) -> Examples:
            made = Examples(tmp_path, clusters)
            stack.callback(made.close)
            return made

        yield make
