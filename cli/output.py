"""What the command says: results on standard output (text or JSON), talk and errors on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import typer

from raftfs.errors import RaftfsError
from raftfs_cli import exitcodes

_json_wanted = False


def want_json(value: bool) -> bool:
    """Callback of ``--json``: errors of this command line are JSON, too."""
    global _json_wanted
    _json_wanted = value
    return value


Json = Annotated[
    bool, typer.Option("--json", callback=want_json, is_eager=True, help="Print JSON; an error is a JSON problem.")
]


def emit(*lines: str) -> None:
    """Print lines of a result, each on one line. Ends the command quietly if nobody reads any more."""
    with reader_may_leave():
        for line in lines:
            sys.stdout.write(printable(line, kept="\t") + "\n")
        sys.stdout.flush()


def emit_json(value: Any) -> None:
    """Print one JSON document on one line."""
    emit(json.dumps(value, ensure_ascii=True))


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Around everything that writes to standard output: ends the command quietly when its reader has gone."""
    try:
        yield
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit, so what is buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(exitcodes.BROKEN_PIPE) from None


def say(line: str) -> None:
    """Talk: a line on standard error, for people."""
    with contextlib.suppress(BrokenPipeError):
        print(printable(line), file=sys.stderr, flush=True)


def say_json(value: Any) -> None:
    """One JSON document on standard error, where standard output carries a file."""
    say(json.dumps(value, ensure_ascii=True))


def printable(text: str, kept: str = "\n\t") -> str:
    """Names from outside must not steer the terminal, nor, where each line is one result, break lines."""
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def columns(rows: Sequence[Sequence[object]], right: Iterable[int] = ()) -> list[str]:
    """Rows as aligned lines; the columns whose numbers are in ``right`` are right-aligned."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    flush_right = set(right)
    return [
        "  ".join(
            cell.rjust(width) if number in flush_right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    ]


def human_bytes(count: int) -> str:
    """1536 as "1.5 KiB"."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def report(error: BaseException) -> int:
    """Say what went wrong, in one line or as a JSON problem, and return the exit code for it."""
    code, problem = _explain(error)
    if problem is None:
        return code
    if _json_wanted:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(problem), file=sys.stderr, flush=True)
    else:
        say(f"raftfs: {problem['detail']}")
    return code


def _explain(error: BaseException) -> tuple[int, dict[str, Any] | None]:
    if isinstance(error, RaftfsError):
        return exitcodes.of_error(error), _problem(error)
    if isinstance(error, typer.Exit):
        return error.exit_code, None
    if isinstance(error, (typer.Abort, KeyboardInterrupt)):
        return exitcodes.INTERRUPTED, {"title": "Interrupted", "detail": "interrupted", "code": "interrupted"}
    if isinstance(error, typer.TyperException):
        return error.exit_code, _usage_problem(error) if error.format_message() else None  # None: help was printed
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        detail = f"{where}{error.strerror or error}"
        return exitcodes.of_error(error), {
            "title": "The operating system refused",
            "detail": detail,
            "code": "local_error",
        }
    if os.environ.get("RAFTFS_DEBUG"):
        traceback.print_exception(error)
    detail = (
        f"this is a defect of raftfs: {type(error).__name__}: {error}; "
        "run it again with RAFTFS_DEBUG=1 and report what it prints"
    )
    return exitcodes.FAILURE, {"title": "Internal error", "detail": detail, "code": "internal"}


def _problem(error: RaftfsError) -> dict[str, Any]:
    problem = {"type": "about:blank", "title": error.title, "status": error.status}
    problem |= {"detail": error.detail + next_step(error), "code": error.code}
    if error.outcome is not None:
        problem["outcome"] = error.outcome
    return problem


def next_step(error: RaftfsError) -> str:
    """What to do about an error whose detail, written by a server, cannot know the command line."""
    step = _NEXT_STEPS.get(error.code)
    return f" ({step})" if step else ""


_NEXT_STEPS = {
    "unavailable": "`raftfs cluster status` shows who answers; --endpoint or RAFTFS_ENDPOINTS says whom to ask",
    "not_trusted": "--ca or RAFTFS_CA names the CA of the servers, --cert and --key your own certificate",
    "is_a_directory": "-r takes whole directories",
    "directory_not_empty": "-r removes it with all it holds",
    "unknown_outcome": "look at the path before you repeat it",
}


def _usage_problem(error: typer.TyperException) -> dict[str, Any]:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "raftfs"
    message = error.format_message().rstrip(".")
    return {
        "title": "The command line is wrong",
        "detail": f"{command.removeprefix('raftfs ')}: {message}; see `{command} --help`",
        "code": "usage",
    }
