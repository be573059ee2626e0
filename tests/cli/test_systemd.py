"""What systemd hears from a server: real sockets of its kind, and real servers at the other end."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w

from raftfs.errors import ConfigError
from raftfs.testing.processes import raftfs_command, raftfs_environment
from raftfs_cli.systemd import ServiceManager
from tests.consensus.ports import free_address

WAIT_S_MAX = 60.0
SILENCE_S = 1.0  # ten times as long as a server that lives would be silent in these tests


class Manager:
    """The end of the socket at which systemd sits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)

    def next(self, timeout_s: float = WAIT_S_MAX) -> list[str]:
        """The lines of the next datagram. Raises TimeoutError."""
        self._socket.settimeout(timeout_s)
        return self._socket.recv(65536).decode().splitlines()

    def until(self, good: Callable[[str], bool], timeout_s: float = WAIT_S_MAX) -> str:
        """The first line that is good. Raises TimeoutError if nothing at all comes for so long."""
        while True:
            for line in self.next(timeout_s):
                if good(line):
                    return line

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@raftfs-test-{secrets.token_hex(8)}"
    manager = Manager(name)
    yield manager
    manager.close()


def start(words: list[str], manager: Manager, **more: str) -> subprocess.Popen[bytes]:
    environment = raftfs_environment() | {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "300000"} | more
    return subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> bytes:
    process.send_signal(number)
    return process.communicate(timeout=WAIT_S_MAX)[1]


def test_a_node_says_that_it_serves_that_it_leads_that_it_lives_and_that_it_stops(
    manager: Manager, tmp_path: Path
) -> None:
    url = f"http://{free_address()}"
    config = tmp_path / "node.toml"
    member = {"id": "n1", "peer": free_address(), "url": url}
    config.write_text(
        tomli_w.dumps({"id": "n1", "cluster_id": "c", "data_dir": str(tmp_path / "data"), "members": [member]})
    )
    words = [*raftfs_command(), "node", "run", "--config", str(config)]
    process = start(words, manager)
    try:
        assert manager.next() == ["READY=1"]  # before anything else
        with urllib.request.urlopen(f"{url}/livez", timeout=WAIT_S_MAX) as answer:
            assert answer.status == 200
        manager.until(lambda line: line == "WATCHDOG=1")
        assert "n1 of c" in manager.until(lambda line: line.startswith("STATUS=") and "leads, term" in line)
    finally:
        said = end(process)
    assert process.returncode == 0, said.decode()
    manager.until(lambda line: line == "STOPPING=1")


def test_a_frontend_says_so_too(manager: Manager) -> None:
    words = [*raftfs_command(), "frontend", "run", "--listen", free_address(), "--node", f"http://{free_address()}"]
    process = start(words, manager)
    try:
        assert manager.next() == ["READY=1"]
        assert "leader not known" in manager.until(lambda line: line.startswith("STATUS="))
    finally:
        end(process)


SERVER = """
import asyncio, sys, time
from raftfs_cli.serving import serve

class Server:
    async def __aenter__(self):
        print("starts", file=sys.stderr, flush=True)
        await asyncio.sleep(0.3 if sys.argv[1] == "slow" else 0)
        return self
    async def __aexit__(self, *error):
        pass
    def describe(self):
        return "as ever" if sys.argv[1] != "defect" else 1 / 0
    def reload(self):
        print("reloaded", file=sys.stderr)

async def end(server):
    if sys.argv[1] == "hang":
        await asyncio.sleep(0.5)
        time.sleep(3600)  # noqa
    await asyncio.Event().wait()

serve(Server(), end, exit_with_stdin=False)
"""


def run_server(kind: str, manager: Manager, **more: str) -> subprocess.Popen[bytes]:
    return start([sys.executable, "-c", SERVER, kind], manager, **more)


def test_a_loop_that_hangs_gives_no_sign_of_life(manager: Manager) -> None:
    process = run_server("hang", manager)
    try:
        manager.until(lambda line: line == "WATCHDOG=1")
        with pytest.raises(TimeoutError):
            manager.until(lambda line: False, SILENCE_S)
    finally:
        end(process, signal.SIGKILL)


def test_a_loop_that_works_goes_on_giving_signs_of_life(manager: Manager) -> None:
    process = run_server("work", manager)
    try:
        for _ in range(20):
            manager.until(lambda line: line == "WATCHDOG=1")
    finally:
        end(process)


def test_a_defect_in_the_description_does_not_end_the_signs_of_life(manager: Manager) -> None:
    process = run_server("defect", manager)
    try:
        manager.until(lambda line: line.startswith("STATUS=serving"))
        for _ in range(5):
            manager.until(lambda line: line == "WATCHDOG=1")
    finally:
        assert b"ZeroDivisionError" in end(process)


def test_a_reload_is_announced_and_its_end_too(manager: Manager) -> None:
    process = run_server("work", manager)
    try:
        assert manager.next() == ["READY=1"]
        process.send_signal(signal.SIGHUP)
        manager.until(lambda line: line == "RELOADING=1")
        manager.until(lambda line: line == "READY=1")
    finally:
        assert b"reloaded" in end(process)


def test_a_signal_to_reload_does_not_end_a_start(manager: Manager) -> None:
    process = run_server("slow", manager)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == b"starts\n"
        process.send_signal(signal.SIGHUP)
        assert manager.next() == ["READY=1"]
    finally:
        end(process)


def test_signs_of_life_of_another_process_are_not_ours(manager: Manager) -> None:
    process = run_server("work", manager, WATCHDOG_PID="1")
    try:
        assert manager.next() == ["READY=1"]
        assert manager.next() == ["STATUS=as ever"]
        with pytest.raises(TimeoutError):
            manager.next(SILENCE_S)
    finally:
        end(process)


def test_the_reload_names_its_moment_as_systemd_wants_it(manager: Manager) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": manager.name})
    with told.reloading():
        first, moment = manager.next()
        assert first == "RELOADING=1"
        assert moment.removeprefix("MONOTONIC_USEC=").isdecimal()
    assert manager.next() == ["READY=1"]
    told.close()


def test_nobody_is_told_where_nobody_asks() -> None:
    told = ServiceManager({})
    told.ready()
    told.stopping()
    told.close()
    assert told.watchdog_s is None


@pytest.mark.parametrize("usec", ["0", "-5", "x", ""])
def test_no_watchdog(usec: str) -> None:
    assert ServiceManager({"WATCHDOG_USEC": usec}).watchdog_s is None
    assert ServiceManager({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 2.0


@pytest.mark.parametrize("name", ["relative", "/absent/socket", "@nobody-listens-here"])
def test_a_socket_that_is_none_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="NOTIFY_SOCKET"):
        ServiceManager({"NOTIFY_SOCKET": name})


def test_a_manager_that_does_not_read_delays_nobody(manager: Manager) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": manager.name})
    for _ in range(10_000):  # far more than its queue holds
        told.ready()
    told.close()
