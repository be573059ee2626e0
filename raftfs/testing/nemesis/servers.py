"""The servers of a run: nodes and frontends, each a process in a namespace of its own. A node has its own clock, too.

A server that ends without having been told to is noted, and started again a moment later, as a supervisor would.
"""

from __future__ import annotations

import math
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tomli_w

from raftfs.config import FrontendConfig, NodeConfig
from raftfs.testing.nemesis import clock
from raftfs.testing.nemesis.machine import Disk, faketime
from raftfs.testing.nemesis.network import Network
from raftfs.testing.processes import Leash, Process, raftfs_command, spawn, stop_all

FRONTENDS: Final = ("f1", "f2")
_CLIENT_PORT: Final = 7401
_PEER_PORT: Final = 7411
_STOP_S_MAX: Final = 15.0
_FULL_TAIL_S: Final = 3.0
"""So long after there is room again, a node may still end because there was none."""
_LOG_TAIL_LINES: Final = 25
_STRANGER: Final = 0.03

NODE_OPTIONS: Final[dict[str, Any]] = {
    "insecure": True,
    "chunk_grace_s": 20.0,
    "collect_period_s": 5.0,
    "backfill_period_s": 2.0,
}
"""Short periods, so that chunks are collected and fetched again within a run."""


class Servers:
    """``places``: for each node, a host of ``network``, the folder in which its data directory is made. The cluster
    begins with all of them (``first``) but ``spare``, which may join. FRONTENDS are hosts as well. ``nodes`` are those
    that are members now, and on which faults fall. ``disks``: those of them that can be filled and wiped.
    ``node_script``: a Python file to run in place of ``raftfs``, to see whether a node that is broken on purpose is
    caught."""

    def __init__(
        self,
        folder: Path,
        network: Network,
        places: Mapping[str, Path],
        node_script: Path | None,
        *,
        spare: str | None = None,
        disks: Mapping[str, Disk] | None = None,
        options: Mapping[str, Any] = NODE_OPTIONS,
    ) -> None:
        self.folder, self.network, self.spare = folder, network, spare
        self.first = [name for name in places if name != spare]
        self.nodes = list(self.first)
        self.urls = {name: f"http://{network.addresses[name]}:{_CLIENT_PORT}" for name in [*places, *FRONTENDS]}
        self.peers = {name: f"{network.addresses[name]}:{_PEER_PORT}" for name in places}
        self.emptied: Counter[str] = Counter()
        self.ended: list[str] = []
        self._places, self._disks, self._options = places, disks or {}, options
        self._node_script = node_script
        self._leash = Leash()
        self._processes: dict[str, Process] = {}
        self._down: set[str] = set(self.urls)
        self._held: set[str] = set()
        self._ahead_s: dict[str, int] = {}
        self._starting = threading.RLock()
        self._full_until: dict[str, float] = {}
        for name in self.urls:
            self._write_config(name)
            if name in self.peers:
                self.set_clock(name, 0)

    tls: Final = True
    """nothing special: they speak plain HTTP"""

    @property
    def names(self) -> list[str]:
        """All that should serve now."""
        return [*self.nodes, *FRONTENDS]

    def door(self, dice: random.Random) -> str:
        """The server that a client asks: a member or a frontend, and now and then one that is no member (any more)."""
        return self.spare if self.spare and dice.random() < _STRANGER else dice.choice(self.names)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self, name: str) -> None:
        """Start a server that does not run, unless it is being emptied."""
        with self._starting:
            if name in self._held:
                return
            self._down.discard(name)
            if not ((process := self._processes.get(name)) and process.alive):
                self._processes[name] = self._spawn(name)

    def _spawn(self, name: str) -> Process:
        kind, program = ("node", self._node_command(name)) if name in self.peers else ("frontend", raftfs_command())
        return spawn(
            [kind, "run", "--config", str(self._config(name))],
            log=self.log(name),
            leash=self._leash,
            program=[*self.network.inside(name), *program],
        )

    def kill(self, names: Sequence[str]) -> None:
        """SIGKILL, to all of them before any is waited for."""
        self._end(names, signal.SIGKILL)

    def stop(self, name: str) -> bool:
        """SIGTERM. False if it had to be killed in the end."""
        return self._end([name], signal.SIGTERM)

    def cut_off(self, names: Sequence[str], switch: Callable[[], object]) -> None:
        """SIGKILL, and ``switch`` before any is waited for: what hangs on a disk ends only when the disk is gone."""
        self._end(names, signal.SIGKILL, switch)

    def empty(self, name: str) -> None:
        """Kill a node and take all that it knew from it; nobody starts it meanwhile. It stays down."""
        with self._starting:
            self._held.add(name)
        try:
            self.kill([name])
            self._disks[name].wipe()
            self.emptied[name] += 1
        finally:
            self._held.discard(name)

    def _end(self, names: Sequence[str], number: int, switch: Callable[[], object] = lambda: None) -> bool:
        with self._starting:
            self._down.update(names)
            running = [self._processes[name] for name in names if name in self._processes]
        for process in running:
            process.send(number)
            process.send(signal.SIGCONT)
        switch()
        gone = [process.wait_gone(_STOP_S_MAX) for process in running]
        for process, is_gone in zip(running, gone, strict=True):
            if not is_gone:
                process.send(signal.SIGKILL)
                process.wait_gone(_STOP_S_MAX)
        return all(gone)

    def freeze(self, name: str) -> None:
        self._processes[name].send(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._processes[name].send(signal.SIGCONT)

    def fill_disk(self, name: str) -> None:
        self._full_until[name] = math.inf
        self._disks[name].fill()

    def free_disk(self, name: str) -> None:
        self._disks[name].free()
        if name in self._full_until:
            self._full_until[name] = time.monotonic() + _FULL_TAIL_S

    def set_clock(self, name: str, ahead_s: int) -> None:
        """Let a node's wall clock be ``ahead_s`` ahead from now on (or behind). Spans of time are not affected."""
        new = self.folder / f"{name}.clock.new"
        new.write_text(f"{ahead_s:+d}\n", encoding="utf-8")
        new.replace(self._clock(name))
        self._ahead_s[name] = ahead_s

    def clock(self, name: str) -> int:
        """By how many seconds a node's wall clock is ahead."""
        return self._ahead_s[name]

    def revive(self) -> None:
        """Start again what ended by itself, and note it. On a full disk, a node may refuse to start."""
        for name in list(self._processes):
            with self._starting:  # one that is being started by another thread has not ended
                process = self._processes[name]
                if name in self._down or process.alive:
                    continue
                process.wait_gone(0)
                if time.monotonic() > self._full_until.get(name, -math.inf):
                    self.ended.append(f"{name} ended by itself; the end of its log:\n{self.log_tail(name)}")
                self.start(name)

    def heal(self) -> None:
        """Let all that can run, run: clocks right, disks with room, processes awake and up."""
        for name in self.peers:
            if name in self._disks:
                self.free_disk(name)
            self.set_clock(name, 0)
        for process in self._processes.values():
            process.send(signal.SIGCONT)
        for name in self.names:
            self.start(name)

    def log_tail(self, name: str) -> str:
        lines = self.log(name).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def close(self) -> None:
        """Stop all. Idempotent."""
        self._down.update(self.urls)
        stop_all(list(self._processes.values()), _STOP_S_MAX)
        self._leash.close()

    def _node_command(self, name: str) -> list[str]:
        script = self._node_script
        program = raftfs_command() if script is None else [sys.executable, "-P", str(script.resolve())]
        return [*clock.before(faketime(), self._clock(name)), *program]

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    def _config(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def _write_config(self, name: str) -> None:
        if name in FRONTENDS:
            listen = self.urls[name].removeprefix("http://")
            values = {"listen": listen, "nodes": [self.urls[node] for node in self.first], "insecure": True}
        else:
            known = self.first if name in self.first else [*self.first, name]
            members = [{"id": node, "peer": self.peers[node], "url": self.urls[node]} for node in known]
            data_dir = str(self._places[name] / "data")
            values = {"id": name, "cluster_id": "nemesis", "data_dir": data_dir, **self._options, "members": members}
        self._config(name).write_text(tomli_w.dumps(values), encoding="utf-8")
        (FrontendConfig if name in FRONTENDS else NodeConfig).load(self._config(name))
