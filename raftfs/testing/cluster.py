"""LocalCluster: nodes and a frontend as real processes on loopback, for tests, demonstrations and development."""

from __future__ import annotations

import http.client
import json
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from raftfs.errors import ConfigError, RaftfsError
from raftfs.testing.layout import FRONTEND, Layout, exclusive
from raftfs.testing.ports import is_free
from raftfs.testing.processes import Leash, Process, spawn, stop_all
from raftfs.tls import client_context

if TYPE_CHECKING:
    from raftfs.client import Client

STOP_S_MAX = 15.0
"""A server that was asked to stop and has not after this long is killed."""

READY_S_MAX = 120.0
_ASK_S_MAX = 2.0
_POLL_S = 0.03
_LOG_TAIL_LINES = 15


class ClusterError(RaftfsError):
    """A server of a local cluster did not start or died; ``detail`` ends with the last lines of its log."""

    code = "cluster_error"
    title = "The local cluster does not work"


class LocalCluster:
    """``nodes`` servers and a frontend, started on entering and stopped on leaving::

        with LocalCluster(nodes=3) as cluster:
            client = cluster.client()
            cluster.kill(cluster.leader())

    ``nodes`` None: as many as the directory has, 3 in a new one. ``dir`` None: a temporary directory, removed on
    leaving. ``port`` None or 0: the directory's, a free block of ports for a new one. ``detach``: the servers go on
    when this process ends; otherwise they end with it, however it dies. ``tls``: all ports speak TLS, with a CA of the
    cluster's own (``ca``); None: as the directory has it, not in a new one. ``node_options`` are keys of NodeConfig for
    all nodes (``chunk_grace_s=1``, ``times={"heartbeat_ms": 20, ...}``, ...).

    Servers are named "n1", "n2", ... and "frontend". What is started stays on disk, so that another process can
    operate the same cluster: ``LocalCluster.open(dir)``. Not thread-safe.
    """

    def __init__(
        self,
        nodes: int | None = None,
        dir: Path | str | None = None,
        port: int | None = None,
        *,
        detach: bool = False,
        tls: bool | None = None,
        **node_options: Any,
    ) -> None:
        self._temporary = dir is None
        where = Path(tempfile.mkdtemp(prefix="raftfs-") if dir is None else dir)
        self._layout = Layout.plan(where, nodes, port, node_options, tls)
        self._leash: Leash | None = None
        self._detach = detach

    @classmethod
    def open(cls, dir: Path | str) -> Self:
        """The cluster in a directory, running or not, to operate it; what it starts goes on without this process."""
        cluster = cls.__new__(cls)
        cluster._temporary = False
        cluster._layout = Layout.load(Path(dir))
        cluster._leash = None
        cluster._detach = True
        return cluster

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self.down()
        if self._temporary:
            shutil.rmtree(self.dir, ignore_errors=True)

    # Where things are

    @property
    def dir(self) -> Path:
        return self._layout.dir

    @property
    def url(self) -> str:
        """The frontend's URL."""
        return self._layout.url

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes: "n1", "n2", ..."""
        return self._layout.ids

    @property
    def node_urls(self) -> dict[str, str]:
        """URL of each node's own HTTP API, by name."""
        return {node: self._layout.node_url(node) for node in self._layout.ids}

    @property
    def ca(self) -> Path | None:
        """The file with the cluster's CA; None if it does not speak TLS. What it issued lies beside it."""
        return self._layout.certificates / "ca.crt" if self._layout.tls else None

    def url_of(self, name: str) -> str:
        return self.url if name == FRONTEND else self._layout.node_url(name)

    def data_dir(self, node: str) -> Path:
        return self._layout.data_dir(node)

    def log_path(self, name: str) -> Path:
        return self._layout.log(name)

    def client(self, *endpoints: str, **options: Any) -> Client:
        """A client of the frontend (or of the given URLs); the caller closes it."""
        from raftfs.client import Client  # the servers' side of this module does without it

        if self.ca is not None:
            options = {"ca": self.ca, **options}
        return Client(list(endpoints) or [self.url], **options)

    # Starting and stopping

    def up(self) -> None:
        """Write the configurations, start all that does not run, and wait until the cluster serves.

        Raises ConfigError (a port is taken, an option is wrong) and ClusterError (a server died or is not ready).
        """
        with exclusive(self.dir):
            self._layout.write()
            missing = [name for name in [*self.nodes, FRONTEND] if self.process(name) is None]
            for name in missing:
                self._check_ports(name)
            for name in missing:
                self._spawn(name)
        self.wait_ready()

    def down(self) -> None:
        """Stop everything: SIGTERM to all, SIGKILL to those that do not end in time. The data stay."""
        with exclusive(self.dir):
            names = [*self.nodes, FRONTEND]
            stop_all([process for name in names if (process := self.process(name))], STOP_S_MAX)
            for name in names:
                self._layout.pid_file(name).unlink(missing_ok=True)
        if self._leash:
            self._leash.close()
            self._leash = None

    def start(self, name: str, *, wait: bool = True, program: Sequence[str] | None = None) -> None:
        """Start a server that does not run, and wait until it is ready. Does nothing if it runs. ``program``: the
        command that is started in place of this ``raftfs``, another release of it."""
        with exclusive(self.dir):
            self._layout.home(name)
            if self.process(name) is None:
                self._layout.write()
                self._check_ports(name)
                self._spawn(name, program)
        if wait:
            self.wait_ready(name)

    def grow(self) -> str:
        """Start one more node with an empty data directory; its name. It is no member yet: ``Client.cluster_add``."""
        with exclusive(self.dir):
            self._layout = replace(self._layout, nodes=self._layout.nodes + 1)
            self._layout.write()
        name = self._layout.ids[-1]
        self.start(name, wait=False)
        return name

    def peer(self, node: str) -> str:
        """``host:port`` of a node's peer port."""
        return self._layout.peer(node)

    def stop(self, name: str) -> None:
        """Stop a server in order (SIGTERM) and wait until it has ended."""
        self.kill(name, SIGTERM)

    def kill(self, name: str, signal: int = SIGKILL) -> None:
        """Send a signal (default SIGKILL); for SIGKILL and SIGTERM, wait until the process has ended.

        Raises ConfigError for an unknown name, ClusterError if the server does not run or does not end.
        """
        with exclusive(self.dir):
            process = self._running(name)
            process.send(signal)
            if signal not in (SIGKILL, SIGTERM):
                return
            if not process.wait_gone(STOP_S_MAX):
                raise ClusterError(f"{name} (pid {process.pid}) did not end within {STOP_S_MAX:g} s; kill it with KILL")
            self._layout.pid_file(name).unlink(missing_ok=True)

    def pause(self, name: str) -> None:
        """Freeze a server (SIGSTOP): it keeps its connections and answers nothing."""
        self._running(name).send(SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self._running(name).send(SIGCONT)

    def _check_ports(self, name: str) -> None:
        config = self._layout
        ports = (
            [config.port]
            if name == FRONTEND
            else [int(a.rsplit(":", 1)[1]) for a in (config.node_url(name), config.peer(name))]
        )
        for port in ports:
            if not is_free(port):
                raise ConfigError(
                    f"port {port}, meant for {name}, is taken by another program: stop that, or choose another "
                    f"first port (a cluster takes the 20 ports from it on; now {config.port})"
                )

    def _spawn(self, name: str, program: Sequence[str] | None = None) -> None:
        if not self._detach and self._leash is None:
            self._leash = Leash()
        kind = "frontend" if name == FRONTEND else "node"
        arguments = [kind, "run", "--config", str(self._layout.config(name))]
        process = spawn(arguments, log=self._layout.log(name), leash=self._leash, program=program)
        process.save(self._layout.pid_file(name))

    # Looking

    def process(self, name: str) -> Process | None:
        """The running process of a server; None if it does not run."""
        process = Process.load(self._layout.pid_file(name))
        return process if process and process.alive else None

    def _running(self, name: str) -> Process:
        process = self.process(name)
        if process is None:
            raise ClusterError(f"{name} does not run; `raftfs dev start {name} --dir {self.dir}` starts it")
        return process

    def _should_run(self, name: str) -> bool:
        process = Process.load(self._layout.pid_file(name))
        return process is not None and not process.stopped

    def pid(self, name: str) -> int | None:
        process = self.process(name)
        return process.pid if process else None

    def rss_bytes(self, name: str) -> int:
        """Resident memory of a server now, in bytes. ClusterError if it does not run."""
        return self._running(name).rss_bytes()

    def log_tail(self, name: str, lines: int = _LOG_TAIL_LINES) -> str:
        """The last lines of a server's log (its standard output and error); empty if there is none yet."""
        try:
            text = self._layout.log(name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def leader(self, timeout_s: float = READY_S_MAX) -> str:
        """Name of the present leader, waiting for one. Raises ClusterError if there is none after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while (leader := self._views()[0]) is None:
            if time.monotonic() > deadline:
                raise ClusterError(f"no leader after {timeout_s:g} s; see `raftfs dev logs --dir {self.dir}`")
            time.sleep(_POLL_S)
        return leader

    def status(self) -> dict[str, Any]:
        """What runs where, in the shape that ``raftfs dev status --json`` prints.

        ``pid`` is null for a server that does not run; ``role`` is null for a node that does not answer.
        """
        leader, roles = self._views()
        nodes = [
            {
                "id": node,
                "pid": self.pid(node),
                "url": self._layout.node_url(node),
                "peer": self._layout.peer(node),
                "data_dir": str(self._layout.data_dir(node)),
                "role": "leader" if node == leader else roles.get(node),
            }
            for node in self.nodes
        ]
        frontend = {"url": self.url, "pid": self.pid(FRONTEND)}
        ca = None if self.ca is None else str(self.ca)
        return {"frontend": frontend, "nodes": nodes, "dir": str(self.dir), "ca": ca}

    def _views(self) -> tuple[str | None, dict[str, str | None]]:
        """The leader, by the newest term any running node knows, and each answering node's role."""
        running = [node for node in self.nodes if (process := self.process(node)) and not process.stopped]
        with ThreadPoolExecutor(max_workers=max(1, len(running))) as pool:
            answers = dict(zip(running, pool.map(self._view, running), strict=True))
        leader, newest = None, -1
        roles: dict[str, str | None] = {}
        for node, answer in answers.items():
            if answer is None:
                continue
            own = [member["role"] for member in answer["members"] if member["id"] == node]
            roles[node] = own[0] if own and own[0] != "leader" else "follower"
            if own == ["leader"] and answer["term"] > newest:
                leader, newest = node, answer["term"]
        return leader, roles

    def _view(self, node: str) -> dict[str, Any] | None:
        status, body = _get(self._layout.node_url(node) + "/v1/cluster", self.ca)
        if status != 200:
            return None
        answer: dict[str, Any] = json.loads(body)
        return answer

    def wait_ready(self, *names: str, timeout_s: float = READY_S_MAX) -> None:
        """Wait until the named servers say on /readyz that they serve.

        Default: all but those that were stopped, killed or paused through a LocalCluster. Raises ClusterError with
        the end of its log if one of them died, or is not ready after ``timeout_s``.
        """
        waiting = list(names) or [name for name in [*self.nodes, FRONTEND] if self._should_run(name)]
        deadline = time.monotonic() + timeout_s
        while waiting:
            name = waiting[0]
            if self.process(name) is None:
                raise ClusterError(
                    f"{name} ended while starting; the end of {self.log_path(name)}:\n{self.log_tail(name)}"
                )
            status, body = _get(self.url_of(name) + "/readyz?verbose", self.ca)
            if status == 200:
                waiting.pop(0)
                continue
            if time.monotonic() > deadline:
                said = body.strip() or "it does not answer"
                raise ClusterError(
                    f"{name} is not ready after {timeout_s:g} s: {said}\n"
                    f"the end of {self.log_path(name)}:\n{self.log_tail(name)}"
                )
            time.sleep(_POLL_S)


def _get(url: str, ca: Path | None) -> tuple[int, str]:
    """Status and body of a GET; (0, "") if nobody answers in time."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if ca is not None:
        handlers.append(urllib.request.HTTPSHandler(context=client_context(ca)))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=_ASK_S_MAX) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
