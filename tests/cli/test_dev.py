"""``raftfs dev`` as scripts and people use it: in the foreground, detached, and from another process."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from raftfs.testing import LocalCluster
from raftfs.testing.layout import Layout
from raftfs.testing.ports import free_block
from raftfs.testing.processes import raftfs_command
from raftfs_cli import exitcodes

from .conftest import Raftfs

pytestmark = pytest.mark.system


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory and no cluster in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAFTFS_ENDPOINTS", raising=False)
    return tmp_path


def _raftfs(*words: str, code: int = 0) -> str:
    done = subprocess.run([*raftfs_command(), *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_a_script_runs_a_cluster(alone: Path) -> None:
    port = free_block()
    options = ["--nodes", "3", "--dir", "d", "--port", str(port), "--set", "chunk_grace_s=7"]
    try:
        up = json.loads(_raftfs("dev", "up", *options, "--detach", "--json"))
        assert up["frontend"]["url"] == f"http://127.0.0.1:{port}"
        assert [node["url"] for node in up["nodes"]] == [f"http://127.0.0.1:{port + n}" for n in (1, 2, 3)]
        assert [node["peer"] for node in up["nodes"]] == [f"127.0.0.1:{port + 10 + n}" for n in (1, 2, 3)]
        assert set(up["nodes"][0]) == {"id", "pid", "url", "peer", "data_dir", "role"}
        assert "chunk_grace_s = 7" in (alone / "d" / "n1" / "raftfs.toml").read_text()
        again = json.loads(_raftfs("dev", "up", "--dir", "d", "--detach", "--json"))
        assert [node["pid"] for node in again["nodes"]] == [node["pid"] for node in up["nodes"]]
        assert _raftfs("dev", "kill", "n1", "--signal", "TERM", "--dir", "d") == "n1: sent SIGTERM\n"
        status = json.loads(_raftfs("dev", "status", "--dir", "d", "--json"))
        assert (status["nodes"][0]["pid"], status["nodes"][0]["role"]) == (None, None)
        _raftfs("dev", "kill", "n1", "--dir", "d", code=exitcodes.FAILURE)
        assert _raftfs("dev", "start", "n1", "--dir", "d").startswith("n1: running, pid ")
        assert "n1" in _raftfs("dev", "logs", "n1", "--dir", "d")
        assert _raftfs("dev", "status", "--dir", "d").splitlines()[0].split() == ["NAME", "PID", "STATE", "URL", "DATA"]
    finally:
        _raftfs("dev", "down", "--dir", "d")
    assert all(LocalCluster.open("d").process(name) is None for name in ("n1", "n2", "n3", "frontend"))
    assert _raftfs("dev", "down", "--dir", "d") == "nothing was running\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_cluster_ends_with_a_signal(alone: Path, number: signal.Signals) -> None:
    port = free_block()
    words = ["dev", "up", "--nodes", "1", "--port", str(port)]
    with subprocess.Popen(
        [*raftfs_command(), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        shown = []
        for line in child.stdout:
            shown.append(line)
            if line.startswith("Ctrl-C"):
                break
        assert any(line.startswith(f"  export RAFTFS_ENDPOINTS=http://127.0.0.1:{port}") for line in shown)
        cluster = LocalCluster.open(".raftfs-dev")
        _raftfs("dev", "up", code=exitcodes.CONFLICT)  # somebody else's foreground is not taken over
        cluster.kill("n1")
        cluster.start("n1")  # a server that another process started ends with the others
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (exitcodes.OK, "")
    assert f"{number.name}: stopping all servers ..." in err
    assert cluster.process("n1") is None
    assert cluster.process("frontend") is None


def test_no_cluster_here(alone: Path) -> None:
    for words in (["status"], ["down"], ["kill", "n1"], ["start", "n1"], ["logs"]):
        _raftfs("dev", *words, code=exitcodes.NOT_FOUND)


def test_a_node_and_a_frontend_run_from_their_files_until_told(alone: Path) -> None:
    """``node run`` and ``frontend run`` as a service manager would use them."""
    layout = Layout.plan(alone / "c", 1, None, {})
    layout.write()
    node = subprocess.Popen(
        [*raftfs_command(), "node", "run", "-c", "c/n1/raftfs.toml", "--log-format", "json"], stderr=subprocess.PIPE
    )
    words = ["frontend", "run", "--listen", layout.url.removeprefix("http://"), "--node", layout.node_url("n1")]
    frontend = subprocess.Popen([*raftfs_command(), *words], stderr=subprocess.PIPE)
    try:
        while (
            "hello"
            not in subprocess.run(
                [*raftfs_command(), "-e", layout.url, "put", "-", "/hello"],
                input=b"x",
                capture_output=True,
                check=False,
            ).stdout.decode()
        ):
            assert (node.poll(), frontend.poll()) == (None, None)
    finally:
        node.send_signal(signal.SIGTERM)
        frontend.send_signal(signal.SIGINT)
        _, node_log = node.communicate(timeout=60)
        _, frontend_log = frontend.communicate(timeout=60)
    assert (node.returncode, frontend.returncode) == (0, 0), (node_log, frontend_log)
    lines = [json.loads(line) for line in node_log.splitlines()]
    assert {line["server"] for line in lines} == {"n1"}
    assert b"SIGINT: stopping" in frontend_log


def test_a_second_frontend_on_the_same_port_is_told(raftfs: Raftfs, cluster: LocalCluster) -> None:
    listen = cluster.url.removeprefix("http://")
    done = raftfs("frontend", "run", "--listen", listen, "--node", cluster.node_urls["n1"])
    assert done.code == exitcodes.FAILURE
    assert listen.rpartition(":")[2] in done.err.splitlines()[-1]
