"""Two of three machines are gone for good: what the third one says of that, and how it becomes a cluster again."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

from raftfs.testing import LocalCluster
from raftfs.testing.processes import raftfs_command, raftfs_environment

from .clusters import running, settle, wait_until
from .machine import MIB, chunk_files
from .web import ask, fetch, get, leader_of, put, sha256, status_of

# A leader without a quorum goes on for some seconds, so that an entry gets into its log that nobody else has.
TIMES = {"heartbeat_ms": 100, "election_timeout_ms_min": 3000, "election_timeout_ms_max": 4000}
NO_MEMBER = "not a member of this cluster"
SMALL = {f"/small/{number}": random.randbytes(number * 100) for number in range(20)}
LARGE = {f"/large/{number}": random.randbytes(9 * MIB + number) for number in range(2)}
FILES = SMALL | LARGE


def command(*words: str, stdin: str = "", code: int = 0) -> str:
    """``raftfs recover``: its output, and if it fails its error."""
    done = subprocess.run(
        [*raftfs_command(), "recover", *words], input=stdin, env=raftfs_environment(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout if code == 0 else done.stdout + done.stderr


class Disaster:
    """A cluster with files, of which the leader alone is left, with an entry in its log that was never acknowledged."""

    def __init__(self, cluster: LocalCluster, aside: Path) -> None:
        self.cluster, self.aside = cluster, aside
        for path, data in FILES.items():
            assert put(cluster.url, f"{path}?parents=true", data).status == 201
        assert put(cluster.url, "/small/3", b"second version").status == 200
        settle(cluster)
        self.survivor = cluster.leader()
        self.others = [node for node in cluster.nodes if node != self.survivor]
        self.url = cluster.node_urls[self.survivor]
        self.before = status_of(self.url)
        self.config = str(cluster.data_dir(self.survivor).parent / "raftfs.toml")

    def strike(self) -> None:
        for node in self.others:
            self.cluster.kill(node)
        answer = put(self.url, "/tail", b"never acknowledged", Raftfs_Timeout="1")
        assert answer.status == 504, str(answer)
        assert answer.outcome == "unknown"
        self.put_aside("old")

    def put_aside(self, name: str) -> None:
        """The others lose their disks; what was on them is kept elsewhere."""
        for node in self.others:
            shutil.move(self.cluster.data_dir(node), self.aside / f"{name}-{node}")

    def bring_back(self, name: str) -> None:
        for node in self.others:
            shutil.move(self.aside / f"{name}-{node}", self.cluster.data_dir(node))

    def start_others(self) -> None:
        for node in self.others:
            self.cluster.start(node, wait=False)

    def stop_others(self) -> None:
        for node in self.others:
            self.cluster.kill(node)

    def survey(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(command("--config", self.config, "--dry-run", "--json", *words))
        return found

    def check_files(self) -> None:
        """Everything that was acknowledged is there, byte for byte, and what was in the log besides."""
        for path, data in (FILES | {"/small/3": b"second version", "/tail": b"never acknowledged"}).items():
            answer = fetch(self.url, path)
            assert (answer.status, answer.sha256) == (200, sha256(data)), f"{path}: {answer}"

    def check_writes(self, name: str) -> None:
        for size in (10, 5 * MIB):
            data = random.randbytes(size)
            answer = put(self.cluster.url, f"/{name}-{size}", data)
            assert answer.status == 201, str(answer)
            assert fetch(self.url, f"/{name}-{size}").sha256 == sha256(data)


def check_dry_run(disaster: Disaster) -> None:
    survivor, before = disaster.survivor, disaster.before
    found = disaster.survey()
    assert (found["id"], found["cluster_id"], found["choose"]) == (survivor, before["cluster_id"], survivor)
    assert [member["id"] for member in found["members"] if member["voter"]] == disaster.cluster.nodes
    assert len({member["uuid"] for member in found["members"]}) == 3
    assert (found["applied_index"], found["revision"]) == (before["applied_index"], before["revision"])
    assert found["last_index"] == found["applied_index"] + found["open_entries"]
    assert (found["last_term"], found["term"]) == (before["term"], before["term"])
    (change,) = found["open_changes"]
    assert (change["paths"], change["result"]) == (["/tail"], "created")
    assert found["last_entry_ms"] == change["time_ms"]
    assert found["revision_after"] == found["revision"] + 1
    assert found["missing_chunks"] == 0
    assert found["lost_files"] == found["lost_versions"] == found["lost_uploads"] == []
    text = command("--config", disaster.config, "--dry-run")
    assert f"last entry (term {found['last_term']}, index {found['last_index']})" in text
    assert "write /tail (18 bytes): created" in text
    assert "Every chunk is there" in text
    assert "cannot be seen from here" in text


def check_dry_run_without_a_chunk(disaster: Disaster) -> None:
    """A chunk that is not there, or damaged, is named by the file that needs it."""
    data_dir = disaster.cluster.data_dir(disaster.survivor)
    victim = max(chunk_files(data_dir).values(), key=lambda path: path.stat().st_size)
    good = victim.read_bytes()
    (whose,) = [path for path, data in LARGE.items() if good in data]
    victim.unlink()
    found = disaster.survey()
    (lost,) = found["lost_files"]
    assert (lost["path"], lost["size"]) == (whose, len(LARGE[whose]))
    assert (lost["missing_chunks"], lost["missing_bytes"]) == (1, len(good)) == (found["missing_chunks"], len(good))
    assert f"{whose}  {len(LARGE[whose])} bytes" in command("--config", disaster.config, "--dry-run")
    victim.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    assert disaster.survey()["missing_chunks"] == 0
    assert disaster.survey("--verify")["lost_files"] == found["lost_files"]
    victim.write_bytes(good)


def check_comparison(disaster: Disaster, tmp_path: Path) -> None:
    """With the disk of one more member, two of three are left: no recovery is needed."""
    other = disaster.others[0]
    text = command("--data-dir", str(disaster.aside / f"old-{other}"), "--dry-run", "--json")
    (tmp_path / "other.json").write_text(text)
    assert json.loads(text)["last_index"] == disaster.survey()["applied_index"]
    refused = command("--config", disaster.config, "--compare", str(tmp_path / "other.json"), "--yes", code=4)
    assert "start them, and nothing is lost" in refused


def recover(disaster: Disaster) -> None:
    before = disaster.survey()
    refused = command("--config", disaster.config, stdin="yes\n", code=2)
    assert "nothing was changed" in refused
    assert disaster.survey() == before
    cluster_id = disaster.before["cluster_id"]
    done = command("--config", disaster.config, stdin=f"{cluster_id}\n")
    assert f"{disaster.survivor} is a cluster of one from entry {before['last_index'] + 1}" in done
    assert "only voting member" in command("--config", disaster.config, "--yes", code=4)


def _takes_writes(url: str) -> bool:
    """Whether this node itself leads, and does not send the write on to another one."""
    try:
        return ask(url, "PUT", "/v1/files/old?forward=never", body=b"of the old members").status in (200, 201)
    except (OSError, http.client.HTTPException):
        return False  # it is only starting


def check_split(disaster: Disaster) -> None:
    """The old members are a majority of the old cluster, and go on as that. Nothing passes between the two."""
    disaster.start_others()
    urls = [disaster.cluster.node_urls[node] for node in disaster.others]
    wait_until("the old members to lead each other", lambda: any(map(_takes_writes, urls)))
    mine = status_of(disaster.url)
    assert [member["id"] for member in mine["members"]] == [disaster.survivor]
    assert mine["leader"]["id"] == disaster.survivor
    assert get(disaster.url, "/old").status == 404
    for url in urls:
        wait_until("the old members to know each other's leader", lambda url=url: leader_of(url) in disaster.others)  # type: ignore[misc]
        wait_until("them to be refused", lambda url=url: NO_MEMBER in _refusal(url, disaster.survivor))  # type: ignore[misc]
        (link,) = [member for member in status_of(url)["members"] if member["id"] == disaster.survivor]
        assert not link["reachable"]
        assert get(url, "/tail").status == 404
    disaster.check_writes("split")  # through a frontend that knows all three: it follows the newer leader
    disaster.stop_others()


def grow(disaster: Disaster) -> None:
    """Empty machines in the places of those that are gone, under their names."""
    for node in disaster.others:
        add(disaster, node)
    settle(disaster.cluster)


def add(disaster: Disaster, node: str) -> None:
    layout = next(entry for entry in disaster.cluster.status()["nodes"] if entry["id"] == node)
    body = json.dumps({"id": node, "peer": layout["peer"], "url": layout["url"]}).encode()
    headers = {"Content-Type": "application/json"}
    answer = ask(disaster.url, "POST", "/v1/cluster/members", body=body, headers=headers)
    assert answer.status in (200, 201), str(answer)
    disaster.cluster.start(node, wait=False)
    wait_until(f"{node} to vote", lambda: _votes(disaster.url, node))


def _votes(url: str, node: str) -> bool:
    return any(member["id"] == node and member["role"] != "learner" for member in status_of(url)["members"])


def check_impostors(disaster: Disaster) -> None:
    """The machines of the new members are started with the old members' disks. The recovered node dials them, and is as
    alone as if they were off; with the right disks, all goes on."""
    disaster.stop_others()
    disaster.put_aside("new")
    disaster.bring_back("old")
    disaster.start_others()
    urls = [disaster.cluster.node_urls[node] for node in disaster.others]
    wait_until("the old members to lead each other", lambda: any(map(_takes_writes, urls)))
    wait_until("the recovered leader to give up", lambda: not status_of(disaster.url)["quorum"])
    answer = put(disaster.url, "/alone", b"x", Raftfs_Timeout="1")
    assert answer.status == 503, f"it must not send the write on to the old leader: {answer}"
    for node in disaster.others:
        wait_until(f"{node} to be refused", lambda node=node: "another data directory" in _refusal(disaster.url, node))  # type: ignore[misc]
    disaster.stop_others()
    disaster.put_aside("old")
    disaster.bring_back("new")
    disaster.start_others()
    disaster.cluster.wait_ready()
    settle(disaster.cluster)
    assert get(disaster.cluster.url, "/old").status == 404
    disaster.check_files()


def _refusal(url: str, node: str) -> str:
    return next(str(member["refused"]) for member in status_of(url)["members"] if member["id"] == node)


def test_the_last_of_three_becomes_a_cluster_of_three_again(tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    with running(tmp_path / "cluster", times=TIMES) as cluster:
        disaster = Disaster(cluster, tmp_path / "aside")
        disaster.strike()
        assert "in use by another process" in command("--config", disaster.config, "--dry-run", code=2)
        wait_until("the leader to give up", lambda: not status_of(disaster.url)["quorum"])
        assert put(disaster.url, "/no", b"quorum", Raftfs_Timeout="1").status == 503
        cluster.kill(disaster.survivor)
        check_dry_run(disaster)
        check_dry_run_without_a_chunk(disaster)
        check_comparison(disaster, tmp_path)
        recover(disaster)
        cluster.start(disaster.survivor)
        disaster.check_files()
        disaster.check_writes("alone")
        disaster.bring_back("old")
        check_split(disaster)
        disaster.put_aside("old")
        grow(disaster)
        disaster.check_writes("three")
        check_impostors(disaster)


def test_lost_chunks_keep_no_new_member_from_voting(tmp_path: Path) -> None:
    """Nobody can ever have them, so nobody waits for them; what lacks them fails, and nothing else."""
    (tmp_path / "aside").mkdir()
    with running(tmp_path / "cluster", times=TIMES) as cluster:
        disaster = Disaster(cluster, tmp_path / "aside")
        disaster.strike()
        cluster.kill(disaster.survivor)
        files = chunk_files(cluster.data_dir(disaster.survivor))
        max(files.values(), key=lambda path: path.stat().st_size).unlink()
        (lost,) = (entry["path"] for entry in disaster.survey()["lost_files"])
        command("--config", disaster.config, "--yes")
        cluster.start(disaster.survivor)
        for node in disaster.others:
            add(disaster, node)
        disaster.check_writes("three")
        for path, data in LARGE.items():
            if path != lost:
                assert fetch(cluster.url, path).sha256 == sha256(data)
        try:
            answer = fetch(cluster.url, lost)
        except (OSError, http.client.HTTPException) as error:
            print(f"{lost}: {error!r}")
        else:
            assert answer.status == 503, str(answer)
