"""The file commands against real servers. Each test works in a directory of its own, named after it."""

from __future__ import annotations

import filecmp
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raftfs.testing import LocalCluster
from raftfs.testing.processes import raftfs_command
from raftfs_cli import exitcodes

from .conftest import Done, Raftfs

pytestmark = pytest.mark.system


@pytest.fixture
def top(request: pytest.FixtureRequest) -> str:
    """A directory of the store for this test alone; nothing is there yet."""
    return f"/{request.node.name}"


def test_a_file_goes_there_and_comes_back(raftfs: Raftfs, home: Path, top: str) -> None:
    data = os.urandom(200_000)
    (home / "a.bin").write_bytes(data)
    assert raftfs("put", "a.bin", f"{top}/deep/b.bin") == Done(0, f"sent {top}/deep/b.bin\n", "")
    done = raftfs("get", f"{top}/deep/b.bin", "new/c.bin")
    assert done == Done(0, f"fetched {top}/deep/b.bin\n", "")
    assert (home / "new" / "c.bin").read_bytes() == data


def test_words_decide_where_things_go(raftfs: Raftfs, home: Path, top: str) -> None:
    (home / "a.txt").write_text("a")
    (home / "b.txt").write_text("b")
    assert raftfs("put", "a.txt", f"{top}/new/").out == f"sent {top}/new/a.txt\n"
    assert raftfs("put", "b.txt", f"{top}/new").out == f"sent {top}/new/b.txt\n"
    assert raftfs("put", "a.txt", f"{top}/new/a.txt").out == f"sent {top}/new/a.txt\n"
    done = raftfs("put", "a.txt", "b.txt", f"{top}/two")
    assert sorted(done.out.splitlines()[:2]) == [f"sent {top}/two/a.txt", f"sent {top}/two/b.txt"]
    assert done.out.splitlines()[2].startswith("2 files, 2 B in ")
    (home / "out").mkdir()
    assert raftfs("get", f"{top}/two/a.txt", "out").code == 0
    assert raftfs("get", f"{top}/two/b.txt").code == 0
    assert (home / "out" / "a.txt").read_text() == "a"
    assert (home / "b.txt").read_text() == "b"


def _make_tree(top: Path) -> None:
    (top / "sub" / "deeper").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "nothing.txt").touch()
    for number in range(20):
        (top / "sub" / f"file {number}.txt").write_text("x" * number * 100)
    (top / "sub" / "deeper" / "größe.bin").write_bytes(os.urandom(50_000))


def _same(left: Path, right: Path) -> bool:
    compared = filecmp.dircmp(left, right, ignore=[])
    names = not (compared.left_only or compared.right_only or compared.funny_files)
    _, differing, errors = filecmp.cmpfiles(left, right, compared.common_files, shallow=False)
    return names and not differing and not errors and all(_same(left / d, right / d) for d in compared.common_dirs)


def test_trees_go_there_and_come_back(raftfs: Raftfs, home: Path, cluster: LocalCluster, top: str) -> None:
    _make_tree(home / "tree")
    done = raftfs("put", "-r", "tree", top)
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 23
    assert done.out.splitlines()[-1].startswith("22 files, ")
    for node, url in cluster.node_urls.items():
        assert raftfs("--endpoint", url, "get", "-r", top, node).code == 0
        assert _same(home / "tree", home / node)
    assert raftfs("put", "-r", "tree", top).out.startswith(f"sent {top}/tree/")
    assert raftfs("put", "-r", "tree/.", f"{top}/flat").code == 0
    assert raftfs("get", "-r", f"{top}/flat", "out/").code == 0
    assert _same(home / "tree", home / "out" / "flat")


def test_a_directory_needs_the_option(raftfs: Raftfs, home: Path, top: str) -> None:
    _make_tree(home / "tree")
    done = raftfs("put", "tree", top)
    assert done == Done(exitcodes.CONFLICT, "", "raftfs: tree is a directory (-r takes whole directories)\n")
    raftfs("mkdir", top)
    done = raftfs("get", top, "out")
    assert done == Done(exitcodes.CONFLICT, "", f"raftfs: {top} is a directory (-r takes whole directories)\n")
    done = raftfs("rm", top)
    assert (done.code, done.out) == (exitcodes.CONFLICT, "")
    assert "-r takes whole directories" in done.err


def test_listing(raftfs: Raftfs, home: Path, top: str) -> None:
    (home / "a.txt").write_text("12345")
    raftfs("put", "a.txt", f"{top}/sub/a.txt")
    raftfs("put", "a.txt", f"{top}/b.csv")
    raftfs("mkdir", f"{top}/void")
    assert raftfs("ls", top) == Done(0, "b.csv\nsub/\nvoid/\n", "")
    assert sorted(raftfs("ls", "-r", top).out.split()) == ["b.csv", "sub/", "sub/a.txt", "void/"]
    assert raftfs("ls", "--glob", "*.csv", top).out == "b.csv\n"
    assert raftfs("ls", f"{top}/b.csv").out == "b.csv\n"
    assert raftfs("ls", f"{top}/void") == Done(0, "", "")
    line = raftfs("ls", "-l", f"{top}/b.csv").out.split()
    assert (line[0], line[1], line[-1]) == ("-", "5", "b.csv")
    assert raftfs("tree", top).out == f"{top}\n├── b.csv\n├── sub/\n│   └── a.txt\n└── void/\n"
    assert raftfs("ls", f"{top}/gone").code == exitcodes.NOT_FOUND


def test_a_name_takes_one_line_whatever_is_in_it(raftfs: Raftfs, home: Path, top: str) -> None:
    (home / "a\nb").write_text("x")
    assert raftfs("put", "a\nb", f"{top}/").code == 0
    assert raftfs("ls", top).out == "a\\nb\n"
    assert len(raftfs("ls", "-l", top).out.splitlines()) == 1
    assert raftfs("tree", top).out.splitlines() == [top, "└── a\\nb"]


def test_moves_do_not_replace_what_they_have_just_moved(raftfs: Raftfs, home: Path, top: str) -> None:
    (home / "a").write_text("x")
    for folder in ("one", "two"):
        raftfs("put", "a", f"{top}/{folder}/a")
    for command in (["mv"], ["cp"], ["get"]):
        target = "." if command == ["get"] else f"{top}/"
        done = raftfs(*command, f"{top}/one/a", f"{top}/two/a", target)
        assert done.code == exitcodes.USAGE, done
    assert raftfs("ls", "-r", top).out.split() == ["one/", "one/a", "two/", "two/a"]


def test_the_longest_names_come_back(raftfs: Raftfs, home: Path, top: str) -> None:
    name = "語" * 85
    (home / name).write_text("x")
    raftfs("put", name, f"{top}/")
    (home / name).unlink()
    assert raftfs("get", f"{top}/{name}", ".").code == 0
    assert (home / name).read_text() == "x"


def test_json_has_the_shapes_of_the_api(raftfs: Raftfs, home: Path, top: str) -> None:
    (home / "a.txt").write_text("12345")
    sent = json.loads(raftfs("put", "--json", "--content-type", "text/plain", "a.txt", f"{top}/a.txt").out)
    assert (sent["files"], sent["size"]) == (1, 5)
    stat = json.loads(raftfs("stat", "--json", f"{top}/a.txt").out)
    assert sent["entries"] == [stat]
    assert {"path", "name", "type", "size", "revision", "created_ms", "modified_ms", "content_type", "metadata"} <= set(
        stat
    )
    assert (stat["path"], stat["type"], stat["content_type"]) == (f"{top}/a.txt", "file", "text/plain")
    listed = json.loads(raftfs("ls", "--json", top).out)
    assert (listed["entries"], listed["next"]) == ([stat], None)
    assert listed["revision"] >= stat["revision"]
    fetched = json.loads(raftfs("get", "--json", f"{top}/a.txt", "out.txt").out)
    assert fetched["entries"] == [{"path": f"{top}/a.txt", "local": "out.txt", "type": "file", "size": 5}]
    assert json.loads(raftfs("rm", "--json", f"{top}/a.txt").out) == {"removed": [f"{top}/a.txt"]}
    made = json.loads(raftfs("mkdir", "--json", f"{top}/d").out)
    assert made["entries"][0]["type"] == "directory"
    status = json.loads(raftfs("cluster", "status", "--json").out)
    assert [member["id"] for member in status["members"]] == ["n1", "n2", "n3"]
    assert status["quorum"] is True


def test_errors_as_json_are_problems(raftfs: Raftfs, top: str) -> None:
    done = raftfs("stat", "--json", top)
    problem = json.loads(done.err)
    assert (done.code, problem["code"], problem["status"]) == (exitcodes.NOT_FOUND, "not_found", 404)
    done = raftfs("rm", "--json")
    assert (done.code, json.loads(done.err)["code"]) == (exitcodes.USAGE, "usage")


def test_rearranging(raftfs: Raftfs, home: Path, top: str) -> None:
    (home / "a.txt").write_text("a")
    (home / "b.txt").write_text("b")
    raftfs("put", "a.txt", "b.txt", top)
    assert raftfs("mv", f"{top}/a.txt", f"{top}/new/dir/").out == f"now {top}/new/dir/a.txt\n"
    assert raftfs("mv", f"{top}/new/dir", f"{top}/dir").out == f"now {top}/dir\n"
    assert raftfs("cp", f"{top}/dir/a.txt", f"{top}/b.txt", f"{top}/copies").code == 0
    assert raftfs("cat", f"{top}/copies/a.txt", f"{top}/copies/b.txt").out == "ab"
    assert raftfs("mv", f"{top}/copies/a.txt", f"{top}/b.txt").code == 0
    assert raftfs("cat", f"{top}/b.txt").out == "a"
    assert raftfs("mv", "-n", f"{top}/copies/b.txt", f"{top}/b.txt").code == exitcodes.CONFLICT
    assert raftfs("cp", f"{top}/dir", f"{top}/dir2").code == exitcodes.CONFLICT
    assert raftfs("cp", "-r", f"{top}/dir", f"{top}/dir2").code == 0
    assert raftfs("ls", f"{top}/dir2").out == "a.txt\n"
    assert raftfs("rm", f"{top}/b.txt", f"{top}/dir2/a.txt").out == f"removed {top}/b.txt\nremoved {top}/dir2/a.txt\n"
    assert raftfs("rm", "-r", top).code == 0
    assert raftfs("rm", top).code == exitcodes.NOT_FOUND
    assert raftfs("rm", "-f", top) == Done(0, "", "")


def test_directories_are_made(raftfs: Raftfs, top: str) -> None:
    assert raftfs("mkdir", f"{top}/a/b").code == exitcodes.NOT_FOUND
    assert raftfs("mkdir", "-p", f"{top}/a/b") == Done(0, f"made {top}/a/b\n", "")
    assert raftfs("mkdir", f"{top}/a/b").code == exitcodes.CONFLICT
    assert raftfs("mkdir", "-p", f"{top}/a/b").code == 0


def test_preconditions(raftfs: Raftfs, home: Path, top: str) -> None:
    (home / "a.txt").write_text("a")
    assert raftfs("put", "--if-absent", "a.txt", f"{top}/a").code == 0
    assert raftfs("put", "--if-absent", "a.txt", f"{top}/a").code == exitcodes.CONFLICT
    revision = json.loads(raftfs("stat", "--json", f"{top}/a").out)["revision"]
    assert raftfs("put", "--if-match", str(revision), "a.txt", f"{top}/a").code == 0
    assert raftfs("put", "--if-match", str(revision), "a.txt", f"{top}/a").code == exitcodes.CONFLICT
    assert raftfs("rm", "--if-match", str(revision), f"{top}/a").code == exitcodes.CONFLICT


def test_older_revisions_and_other_consistencies(raftfs: Raftfs, home: Path, top: str) -> None:
    (home / "a.txt").write_text("old")
    raftfs("put", "a.txt", f"{top}/a")
    revision = str(json.loads(raftfs("stat", "--json", f"{top}/a").out)["revision"])
    (home / "a.txt").write_text("new")
    raftfs("put", "a.txt", f"{top}/a")
    assert raftfs("cat", "--revision", revision, f"{top}/a").out == "old"
    assert raftfs("cat", "--consistency", "bounded", "--max-staleness", "60", f"{top}/a").code == 0
    assert raftfs("cat", "--consistency", "stale", f"{top}/a").out in ("old", "new")
    assert raftfs("cat", "--consistency", "fresh", f"{top}/a").code == exitcodes.USAGE


def test_bytes_through_pipes(home: Path, top: str) -> None:
    data = os.urandom(3_000_000)
    sent = subprocess.run([*raftfs_command(), "put", "-", f"{top}/a"], input=data, capture_output=True, check=True)
    assert sent.stdout == f"sent {top}/a\n".encode()
    for words in (["cat", f"{top}/a"], ["get", f"{top}/a", "-"]):
        done = subprocess.run([*raftfs_command(), *words], capture_output=True, check=True)
        assert done.stdout == data
        assert done.stderr == b""


def test_a_reader_that_leaves_ends_the_command_quietly(home: Path, top: str) -> None:
    (home / "a.bin").write_bytes(bytes(5_000_000))
    subprocess.run([*raftfs_command(), "put", "-q", "a.bin", f"{top}/a"], check=True)
    with subprocess.Popen(
        [*raftfs_command(), "cat", f"{top}/a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert child.wait(timeout=60) == exitcodes.BROKEN_PIPE
        assert child.stderr.read() == b""


def test_progress_shows_on_a_terminal_and_only_there(home: Path, top: str) -> None:
    """Standard error is a terminal, standard output is not: the bar goes to the one, the line to the other."""
    (home / "a.bin").write_bytes(os.urandom(8_000_000))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*raftfs_command(), "put", "a.bin", f"{top}/a.bin"],
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as child:
        os.close(theirs)
        shown = _read_terminal(ours)
        assert child.stdout is not None
        assert child.stdout.read() == f"sent {top}/a.bin\n".encode()
    assert child.returncode == 0
    assert "a.bin" in shown
    assert "8.0/8.0 MB" in shown


def _read_terminal(fd: int) -> str:
    shown = b""
    while True:
        try:
            block = os.read(fd, 65536)
        except OSError:  # how a terminal says that nobody is at its other end
            block = b""
        if not block:
            os.close(fd)
            return shown.decode()
        shown += block


def test_the_shell_reads_a_pipe(process: Callable[..., Done], home: Path, top: str) -> None:
    name = top.removeprefix("/")
    (home / f"{name}.txt").write_text("hello")
    script = f"CONN\nUPLD\n{name}.txt\nUPLD+ {name}.txt /{name}2.txt\nLIST\nls -l {top}.txt\ncat {top}.txt\nQUIT\n"
    done = process("shell", stdin=script)
    assert (done.code, done.err) == (0, "")
    assert f"\n{name}.txt\n{name}2.txt\n" in done.out
    assert "raftfs>" not in done.out
    (home / f"{name}.txt").unlink()
    done = process("shell", stdin=f"dwld\n{name}.txt\ndelf\n{name}.txt\nNo\nDELF\n/{name}.txt\nYes\n")
    assert done.code == 0, done.err
    assert (home / f"{name}.txt").read_text() == "hello"
    done = process("shell", stdin=f"DWLD\n{name}.txt\nLIST\n")
    assert done.code == exitcodes.NOT_FOUND
    assert f"{name}2.txt" in done.out


def test_the_shell_prompts_on_a_terminal(home: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*raftfs_command(), "shell"], env=os.environ | {"TERM": "dumb"}, stdin=theirs, stdout=theirs, stderr=theirs
    ) as child:
        os.close(theirs)
        os.write(ours, b"FROB\nQUIT\n")
        shown = _read_terminal(ours)
    assert "raftfs> " in shown
    assert "there is no command 'FROB' here; HELP lists them" in shown
    assert child.returncode == exitcodes.USAGE


def test_nobody_answers(raftfs: Raftfs) -> None:
    done = raftfs("ls", "--endpoint", "http://127.0.0.1:9", "--timeout", "0.3")
    assert (done.code, done.out) == (exitcodes.UNAVAILABLE, "")
    assert done.err.count("\n") == 1
    assert "RAFTFS_ENDPOINTS" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["frob"],
        ["put"],
        ["mv", "/a"],
        ["put", "--ack", "some", "a", "/a"],
        ["get", "-r", "/a", "-"],
        ["--endpoint", "ftp://x", "ls"],
        ["cat", "/a/../b"],
        ["dev", "kill", "n1", "--signal", "FROB"],
        ["frontend", "run"],
        ["node", "run", "--config", "no-such-file.toml"],
    ],
)
def test_wrong_words_are_a_usage_error_in_one_line(raftfs: Raftfs, words: list[str]) -> None:
    done = raftfs(*words)
    assert (done.code, done.out) == (exitcodes.USAGE, "")
    assert done.err.startswith("raftfs: ")
    assert done.err.count("\n") == 1


def test_a_missing_local_file_is_named(raftfs: Raftfs, top: str) -> None:
    done = raftfs("put", "gone.txt", top)
    assert done == Done(exitcodes.NOT_FOUND, "", "raftfs: gone.txt: No such file or directory\n")


def test_the_package_alone_loads_no_client(home: Path) -> None:
    code = "import sys, raftfs; assert not {'aiohttp', 'pydantic'} & sys.modules.keys(); raftfs.connect; raftfs.Client"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_client_command_does_not_load_the_server(home: Path) -> None:
    """Start-up stays quick: no engine, no state machine, no HTTP server of ours."""
    code = (
        "import sys; from raftfs_cli.main import run; run(['ls', '/']);"
        "print(sorted(m for m in sys.modules if m.startswith(('raftfs.', 'pysyncobj', 'rich'))), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for package in ("service", "api", "consensus", "state", "chunks", "frontend", "http", "testing"):
        assert f"'raftfs.{package}" not in done.stderr
    assert "pysyncobj" not in done.stderr
    assert "'rich" not in done.stderr
