"""``raftfs shell``: commands line by line, from a terminal or a pipe.

Two vocabularies. The command's own words (``ls``, ``put``, ...) take the same arguments as on the command line. The
words of the system that raftfs descends from (CONN, LIST, UPLD, UPLD+, DWLD, DELF, QUIT) ask on the next line for what
was not given on theirs. Upper or lower case does not matter. The session goes on after an error; its exit code is
that of the first command that failed.
"""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from raftfs.errors import InvalidRequest
from raftfs_cli import exitcodes, output

PROMPT = "raftfs> "
OWN_WORDS = ("ls", "tree", "stat", "cat", "put", "get", "mkdir", "rm", "mv", "cp", "cluster", "dev")
HELP = """\
LIST [PATH]            list a directory (/ if none is named)
UPLD [FILE [PATH]]     send a local file; asks for its name; it is stored under its own name in / unless PATH is given
UPLD+ [FILE [PATH]]    the same, acknowledged only when every node has it
DWLD [PATH [FILE]]     fetch a file; asks for its name; it is saved in the current directory unless FILE is given
DELF [PATH]            remove a file; asks for its name, and Yes or No
CONN [ENDPOINT]        connect to another server (http://HOST:PORT or HOST:PORT), or show who answers
QUIT                   leave
ls tree stat cat put get mkdir rm mv cp cluster dev    as on the command line; WORD --help explains one"""

Runner = Callable[[list[str]], int]
Ask = Callable[[str], str | None]


class Shell:
    """``run`` carries out one command line and returns its exit code; ``ask`` reads one line, None at the end.
    ``options`` come before every command."""

    def __init__(self, run: Runner, ask: Ask, endpoints: list[str], options: Sequence[str] = ()) -> None:
        self._run = run
        self._ask = ask
        self._endpoints = endpoints
        self._options = options
        self._words: dict[str, Callable[[list[str]], int]] = {
            "conn": self._conn,
            "list": lambda arguments: self._remote(["ls", *(arguments or ["/"])]),
            "upld": self._upld,
            "upld+": lambda arguments: self._upld(arguments, "--ack", "all"),
            "dwld": self._dwld,
            "delf": self._delf,
            "help": self._help,
            "?": self._help,
        }
        self.code = exitcodes.OK

    def loop(self, prompt: str) -> int:
        """Read and carry out commands until QUIT or the end of the input; returns the first failure's exit code.

        ``prompt`` is empty if the commands do not come from a terminal.
        """
        while (line := self._ask(prompt)) is not None:
            try:
                words = shlex.split(line, comments=True)
            except ValueError as error:
                self._note(_complain(f"{error} in {line.strip()!r}: a quotation mark needs its partner"))
                continue
            if not words:
                continue
            if words[0].lower() in ("quit", "exit"):
                break
            code = self.execute(words)
            self._note(code)
            if code == exitcodes.INTERRUPTED and not prompt:
                break  # on a terminal, Ctrl-C ends the command; a script it ends as a whole
        return self.code

    def execute(self, words: list[str]) -> int:
        """Carry out one command; returns its exit code."""
        word, arguments = words[0].lower(), words[1:]
        if word in self._words:
            return self._words[word](arguments)
        if word in OWN_WORDS:
            if word == "put" and "-" in arguments:
                return _complain("put: standard input holds the commands here; name a file")
            return self._remote([word, *arguments])
        return _complain(f"there is no command {words[0]!r} here; HELP lists them")

    def _note(self, code: int) -> None:
        if self.code == exitcodes.OK:
            self.code = code

    def _remote(self, arguments: list[str]) -> int:
        options = [part for endpoint in self._endpoints for part in ("--endpoint", endpoint)]
        return self._run([*self._options, *options, *arguments])

    def _name(self, arguments: list[str], question: str) -> str | None:
        """The first argument, or what the next line says; None (after a complaint) if that is nothing."""
        if arguments:
            return arguments[0]
        answer = self._ask(question)
        if answer is None or not answer.strip():
            _complain("a name was expected on the next line")
            return None
        return answer.strip()

    def _conn(self, arguments: list[str]) -> int:
        before = self._endpoints
        if arguments:
            # "CONN HOST PORT" is how the older system wrote it.
            address = ":".join(arguments)
            self._endpoints = [address if "://" in address else f"http://{address}"]
        code = self._remote(["cluster", "status"])
        if code != exitcodes.OK:
            self._endpoints = before
        return code

    def _upld(self, arguments: list[str], *options: str) -> int:
        name = self._name(arguments, "local file: ")
        if name is None:
            return exitcodes.USAGE
        target = arguments[1] if len(arguments) > 1 else f"/{Path(name).name}"
        return self._remote(["put", *options, "--", name, target])

    def _dwld(self, arguments: list[str]) -> int:
        name = self._name(arguments, "file: ")
        if name is None:
            return exitcodes.USAGE
        return self._remote(["get", "--", name, arguments[1] if len(arguments) > 1 else "."])

    def _delf(self, arguments: list[str]) -> int:
        name = self._name(arguments, "file: ")
        if name is None:
            return exitcodes.USAGE
        answer = (self._ask(f"remove {name}? Yes/No: ") or "").strip().lower()
        if answer in ("yes", "y"):
            return self._remote(["rm", "--", name])
        if answer in ("no", "n"):
            output.emit(f"{name} stays")
            return exitcodes.OK
        return _complain(f"DELF needs Yes or No on the next line, not {answer!r}; {name} stays")

    def _help(self, arguments: list[str]) -> int:
        output.emit(*HELP.splitlines())
        return exitcodes.OK


def _complain(detail: str) -> int:
    return output.report(InvalidRequest(detail))


def ask_terminal(prompt: str) -> str | None:
    """One line from the terminal, with editing and history; Ctrl-C drops the line, Ctrl-D ends the session."""
    while True:
        try:
            return input(prompt)
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return None


def ask_pipe(prompt: str) -> str | None:
    """One line of standard input, which is not a terminal, so nothing is asked aloud."""
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def run_shell(run: Runner, endpoints: list[str], options: Sequence[str]) -> int:
    """Run a session on standard input; returns its exit code."""
    if not sys.stdin.isatty():
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # names of local files need not be valid text
        return Shell(run, ask_pipe, endpoints, options).loop("")
    import readline  # gives input() line editing and history

    readline.set_history_length(1000)
    output.say("HELP lists the commands, QUIT leaves.")
    return Shell(run, ask_terminal, endpoints, options).loop(PROMPT)
