"""The blocking client: a facade, shared by threads, that survives forks and pickles."""

from __future__ import annotations

import gc
import inspect
import pickle
import subprocess
import sys
import time
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import raftfs
from raftfs import AsyncClient, Client, errors
from raftfs.client.progress import Progress

from .scripted import ScriptedServer, silence

ROOT = Path(__file__).parents[2]


def public(cls: type) -> dict[str, typing.Any]:
    return {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}


def test_both_clients_have_the_same_calls() -> None:
    # What the facade's open, and raftfs.backup, which is asynchronous, stand on.
    inner = {"open_reader", "open_writer", "export_page"}
    assert set(public(AsyncClient)) - inner == set(public(Client))
    for name, call in public(Client).items():
        original = inspect.signature(getattr(AsyncClient, name)).parameters
        facade = dict(inspect.signature(call).parameters)
        if name == "open":
            facade.pop("newline")
        assert list(facade.values()) == list(original.values()), name
        assert call.__doc__, name
        if name not in ("open", "close", "from_options"):
            assert call.__doc__ == getattr(AsyncClient, name).__doc__, name


def test_many_threads_share_one_client(blocking: Client, folder: str) -> None:
    blocking.mkdir(folder)

    def work(number: int) -> bytes:
        blocking.write(f"{folder}/{number}", b"%d" % number)
        with blocking.open(f"{folder}/{number}", "rb") as file:
            return file.read()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(60))) == [b"%d" % number for number in range(60)]
    assert len(list(blocking.list(folder, page_size=7))) == 60


def test_a_list_that_is_left_early(blocking: Client, folder: str) -> None:
    for name in "abc":
        blocking.write(f"{folder}/{name}", b"", parents=True)
    for entry in blocking.list(folder, page_size=1):
        assert entry.name == "a"
        break
    gc.collect()
    assert [names for _, _, names in blocking.walk(folder)] == [["a", "b", "c"]]


def test_it_can_be_used_before_anything_listens_and_not_after_close(server_url: str) -> None:
    fs = raftfs.connect("http://127.0.0.1:1", deadline_s=0.2)
    with pytest.raises(ConnectionError):
        fs.exists("/x")
    fs.close()
    with raftfs.connect(server_url) as other:
        assert not other.exists("/certainly-not")
    for closed in (fs, other):
        closed.close()
        with pytest.raises(RuntimeError, match="closed"):
            closed.exists("/x")
        with pytest.raises(RuntimeError, match="closed"):
            next(closed.list())


def test_a_forgotten_client_ends_its_thread(server_url: str) -> None:
    fs = Client(server_url)
    fs.exists("/x")
    core = fs._core
    assert core is not None
    del fs
    gc.collect()
    assert not core.thread.is_alive()


def test_closing_ends_the_calls_of_other_threads(scripted_aside: ScriptedServer) -> None:
    scripted_aside.play(silence)
    fs = Client(scripted_aside.url)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fs.read, "/f")
        while not scripted_aside.seen:
            time.sleep(0.01)
        fs.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result()


def test_a_callback_cannot_call_its_own_client(blocking: Client, folder: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")

    def report(_: Progress) -> None:
        blocking.exists("/x")

    with pytest.raises(RuntimeError, match="wait for itself"):
        blocking.put(tmp_path / "f", f"{folder}/f", parents=True, progress=report)


def test_clients_are_pickled_as_their_configuration(blocking: Client, server_url: str) -> None:
    blocking.exists("/x")
    copy = pickle.loads(pickle.dumps(blocking))
    with copy:
        assert copy.options == blocking.options
        assert not copy.exists("/certainly-not")
    asynchronous = pickle.loads(pickle.dumps(AsyncClient([server_url, "http://other:1"], attempt_s=3)))
    assert asynchronous.options.endpoints == (server_url, "http://other:1")
    assert asynchronous.options.attempt_s == 3


def run(script: str, *arguments: str) -> str:
    # Newer Pythons warn about every fork of a process with threads; that it works is what is tested here.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


FORK = """
import os, sys, threading, raftfs
fs = raftfs.connect(sys.argv[1])
fs.write(sys.argv[2], b"parent", parents=True)
held = threading.Event()
def hold():
    with fs._lock:
        held.set()
        threading.Event().wait(0.5)
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    assert fs.read(sys.argv[2]) == b"parent"
    fs.write(sys.argv[2], b"child")
    fs.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert fs.read(sys.argv[2]) == b"child"
fs.write(sys.argv[2], b"parent again")
print(fs.read(sys.argv[2]).decode())
"""

MULTIPROCESSING = """
import multiprocessing, sys, raftfs
def work(fs, number):
    with fs.open(f"{sys.argv[2]}/{number}", "w", parents=True) as file:
        file.write(str(number))
    return fs.exists(sys.argv[2])
if __name__ == "__main__":
    with raftfs.connect(sys.argv[1]) as fs:
        fs.mkdir(sys.argv[2])
        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert all(pool.starmap(work, [(fs, number) for number in range(6)]))
            pool.close()
            pool.join()
        print(sorted(entry.name for entry in fs.list(sys.argv[2])))
"""


def test_a_forked_child_makes_its_own_connections(server_url: str, folder: str) -> None:
    assert run(FORK, server_url, f"{folder}/f") == "parent again\n"


def test_a_pool_of_processes(server_url: str, folder: str) -> None:
    assert run(MULTIPROCESSING, server_url, folder) == "['0', '1', '2', '3', '4', '5']\n"


def test_a_program_that_never_closes_ends_cleanly(server_url: str) -> None:
    script = "import sys, raftfs; fs = raftfs.connect(sys.argv[1]); print(fs.exists('/x')); f = fs.list(); next(f, 0)"
    assert run(script, server_url) == "False\n"


def test_a_program_may_run_several_loops_in_turn(server_url: str) -> None:
    script = """
import asyncio, sys, raftfs
async def use():
    async with raftfs.AsyncClient(sys.argv[1]) as fs:
        return await fs.exists("/x")
print(asyncio.run(use()), asyncio.run(use()))
"""
    assert run(script, server_url) == "False False\n"


def test_importing_the_client_does_not_import_the_server() -> None:
    script = """
import sys, raftfs
server = ("api", "chunks", "consensus", "frontend", "service", "state", "testing")
print([name for name in sys.modules if name.startswith(tuple(f"raftfs.{part}" for part in server))])
print("rich" in sys.modules, "pysyncobj" in sys.modules)
print(raftfs.Node.__name__, raftfs.LocalCluster.__name__, raftfs.NodeConfig.__name__)
"""
    assert run(script) == "[]\nFalse False\nNode LocalCluster NodeConfig\n"


def test_public_names() -> None:
    assert set(raftfs.__all__) <= set(dir(raftfs))
    with pytest.raises(AttributeError, match="no attribute 'Nodes'"):
        raftfs.Nodes  # noqa: B018


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ("http://a:1", ("http://a:1",)),
        ("http://a:1/, https://b:2/prefix/ ,", ("http://a:1", "https://b:2/prefix")),
        (["http://a:1", "http://a:1"], ("http://a:1",)),
        ("http://[::1]:7400", ("http://[::1]:7400",)),
    ],
)
def test_endpoints(endpoints: str | list[str], expected: tuple[str, ...]) -> None:
    assert Client(endpoints).options.endpoints == expected


@pytest.mark.parametrize(
    "endpoints", ["", [], "a:1", "ftp://a:1", "http://", "http://u:p@a:1", "http://a:1?x=y", "http://a:99999", "/x"]
)
def test_endpoints_that_are_none(endpoints: str | list[str]) -> None:
    with pytest.raises(errors.ConfigError):
        Client(endpoints)


def test_endpoints_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAFTFS_ENDPOINTS", raising=False)
    assert Client().options.endpoints == ("http://127.0.0.1:7400",)
    monkeypatch.setenv("RAFTFS_ENDPOINTS", "http://a:1,http://b:2")
    assert Client().options.endpoints == ("http://a:1", "http://b:2")
    with pytest.raises(errors.ConfigError, match="attempt_s"):
        Client(attempt_s=0)
