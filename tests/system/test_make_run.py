"""``make run``, as somebody uses it who has just cloned: it starts, serves, stops on Ctrl-C; twice; after a move."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from raftfs.testing.ports import free_block, is_free

ROOT = Path(__file__).parents[2]
INSTALL_S_MAX = 300.0

pytestmark = pytest.mark.timeout(900)


class MakeRun:
    """One ``make run`` in a process group of its own, like that of a terminal."""

    def __init__(self, clone: Path, port: int) -> None:
        self._log = clone / ".make-run-output"
        self._url = f"http://127.0.0.1:{port}"
        self._port = port
        # Nothing of the environment that runs the tests may help: the clone must do with what it brings.
        hidden = ("VIRTUAL_ENV", "PYTHON", "TOX", "MAKE")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        environment["PATH"] = "/usr/local/bin:/usr/bin:/bin"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["make", "run", f"PORT={port}"],
                cwd=clone,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, words: str) -> str:
        """The output so far, once it contains ``words``."""
        deadline = time.monotonic() + INSTALL_S_MAX
        while words not in (output := self._log.read_text()):
            assert self._process.poll() is None, f"make run ended:\n{output}"
            assert time.monotonic() < deadline, f"make run does not say {words!r}:\n{output}"
            time.sleep(0.2)
        return output

    def put(self, path: str, data: bytes) -> None:
        request = urllib.request.Request(f"{self._url}/v1/files{path}", data=data, method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status in (200, 201)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self._url}/v1/files{path}", timeout=30) as answer:
            return bytes(answer.read())

    def press_ctrl_c(self) -> str:
        """SIGINT to the whole group, as a terminal sends it. All ports must be free afterwards."""
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait(timeout=60)
        assert all(is_free(self._port + offset) for offset in range(20))
        return self._log.read_text()

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
            self._process.wait(timeout=60)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="clones the repository, which is not here")
def test_make_run_in_a_fresh_clone_twice_and_after_a_move(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    port = free_block()
    first_words = _run_and_stop(clone, port, {}, {"/first": b"1"})
    assert "making .venv" in first_words
    second_words = _run_and_stop(clone, port, {"/first": b"1"}, {"/second": b"2"})
    assert "making .venv" not in second_words
    moved = clone.rename(tmp_path / "a folder with spaces")
    last_words = _run_and_stop(moved, port, {"/first": b"1", "/second": b"2"}, {})
    assert "making .venv" in last_words


def _run_and_stop(clone: Path, port: int, expected: dict[str, bytes], new: dict[str, bytes]) -> str:
    run = MakeRun(clone, port)
    try:
        output = run.wait_for("Ctrl-C stops")
        assert f"http://127.0.0.1:{port}" in output
        for path, data in expected.items():
            assert run.get(path) == data
        for path, data in new.items():
            run.put(path, data)
        return run.press_ctrl_c()
    finally:
        run.close()
