"""How a local cluster lies on disk and on the ports: the part that any process can read back.

    DIR/cluster.json        what the cluster is (below)
    DIR/frontend/           raftfs.toml, log, pid
    DIR/n1/ n2/ ...         raftfs.toml, log, pid, and data/ (the node's files)

The frontend listens on port P, the nodes' HTTP APIs on P+1, P+2, ..., their peer ports on P+11, P+12, ...
"""

from __future__ import annotations

import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from raftfs.config import FrontendConfig, NodeConfig
from raftfs.errors import ConfigError, NotFound
from raftfs.testing.ports import BLOCK_PORTS, HOST, free_block

NODES_MAX = 9
FRONTEND = "frontend"
_PEER_OFFSET = 10


class NoCluster(NotFound):
    """There is no local cluster in this directory."""

    code = "no_cluster"
    title = "There is no local cluster in this directory"


@dataclass(frozen=True)
class Layout:
    """Where everything of one cluster is. ``options`` are NodeConfig keys that all nodes share. ``tls``: all ports
    speak TLS, with certificates of a CA of the cluster's own."""

    dir: Path
    nodes: int
    port: int
    cluster_id: str = field(default_factory=lambda: f"dev-{secrets.token_hex(4)}")
    options: dict[str, Any] = field(default_factory=dict)
    tls: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise ConfigError(f"a local cluster has 1 to {NODES_MAX} nodes, not {self.nodes}")
        if not 0 < self.port < 65_536 - BLOCK_PORTS:
            raise ConfigError(
                f"port {self.port} is out of range: the {BLOCK_PORTS} ports from it on must be below 65536"
            )

    @property
    def ids(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    @property
    def _scheme(self) -> str:
        return "https" if self.tls else "http"

    @property
    def certificates(self) -> Path:
        """The folder of the CA and of what it issued, each with its name: ``ca``, ``n1``, ..., ``frontend``."""
        return self.dir / "tls"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{HOST}:{self.port}"

    def node_url(self, node: str) -> str:
        return f"{self._scheme}://{HOST}:{self.port + self._number(node)}"

    def peer(self, node: str) -> str:
        return f"{HOST}:{self.port + _PEER_OFFSET + self._number(node)}"

    def home(self, name: str) -> Path:
        """The folder of a node or of the frontend. Raises ConfigError for an unknown name."""
        if name != FRONTEND:
            self._number(name)
        return self.dir / name

    def data_dir(self, node: str) -> Path:
        return self.home(node) / "data"

    def config(self, name: str) -> Path:
        return self.home(name) / "raftfs.toml"

    def log(self, name: str) -> Path:
        return self.home(name) / "log"

    def pid_file(self, name: str) -> Path:
        return self.home(name) / "pid"

    def _number(self, node: str) -> int:
        try:
            return self.ids.index(node) + 1
        except ValueError:
            known = ", ".join([*self.ids, FRONTEND])
            raise ConfigError(f"there is no {node!r} in this cluster; it has {known}") from None

    def ports(self) -> list[int]:
        numbers = range(1, self.nodes + 1)
        return [self.port, *(self.port + n for n in numbers), *(self.port + _PEER_OFFSET + n for n in numbers)]

    def write(self) -> None:
        """Write cluster.json and all configurations. Raises ConfigError for options that NodeConfig refuses."""
        self.dir.mkdir(parents=True, exist_ok=True)
        if self.tls:
            self._write_certificates()
        members = [{"id": node, "peer": self.peer(node), "url": self.node_url(node)} for node in self.ids]
        for node in self.ids:
            values = {"id": node, "cluster_id": self.cluster_id, "data_dir": str(self.data_dir(node)), **self.options}
            self._write_config(node, {**values, **self._node_tls(node), "members": members})
            NodeConfig.load(self.config(node))
        common = {key: value for key, value in self.options.items() if key in FrontendConfig.model_fields}
        nodes = [member["url"] for member in members]
        values = {**common, "listen": f"{HOST}:{self.port}", "nodes": nodes, **self._frontend_tls()}
        self._write_config(FRONTEND, values)
        FrontendConfig.load(self.config(FRONTEND))
        values = asdict(self) | {"version": 1}
        del values["dir"]  # the directory may be moved
        _manifest(self.dir).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def _write_certificates(self) -> None:
        from raftfs import certificates  # not without need: it is slow to import

        folder = self.certificates
        if not (folder / "ca.crt").exists():
            certificates.make_ca(folder, subject=f"raftfs {self.cluster_id}")
        for name in [*self.ids, FRONTEND]:
            if not (folder / f"{name}.crt").exists():
                certificates.issue(folder, name, hosts=[HOST, "localhost"])

    def _files(self, name: str) -> dict[str, str]:
        folder = self.certificates
        return {"cert": str(folder / f"{name}.crt"), "key": str(folder / f"{name}.key")}

    def _node_tls(self, node: str) -> dict[str, Any]:
        if not self.tls:
            return {}
        files = {**self._files(node), "ca": str(self.certificates / "ca.crt")}
        return {"peer_tls": files, "client_tls": files}

    def _frontend_tls(self) -> dict[str, Any]:
        if not self.tls:
            return {}
        ca = str(self.certificates / "ca.crt")
        return {"tls": self._files(FRONTEND), "nodes_tls": {**self._files(FRONTEND), "ca": ca}}

    def _write_config(self, name: str, values: dict[str, Any]) -> None:
        self.home(name).mkdir(exist_ok=True)
        self.config(name).write_text(tomli_w.dumps(values), encoding="utf-8")

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether a cluster was ever started in this directory."""
        return _manifest(directory).exists()

    @classmethod
    def plan(
        cls, directory: Path, nodes: int | None, port: int | None, options: dict[str, Any], tls: bool | None = None
    ) -> Layout:
        """The cluster of this directory with what is given changed; a new one if there is none.

        None means what the directory says, or 3 nodes on a free block of ports. Raises ConfigError for another
        number of nodes than the directory has.
        """
        if not cls.exists(directory):
            nodes = 3 if nodes is None else nodes
            return cls(directory.resolve(), nodes, port or free_block(), options=options, tls=bool(tls))
        old = cls.load(directory)
        if nodes not in (None, old.nodes):
            raise ConfigError(
                f"the cluster in {directory} has {old.nodes} nodes, not {nodes}: leave that out to run it as it is, "
                "or choose another directory"
            )
        if tls not in (None, old.tls):
            raise ConfigError(
                f"the cluster in {directory} {'speaks' if old.tls else 'does not speak'} TLS, and its members know "
                "each other by those URLs: leave that out to run it as it is, or choose another directory"
            )
        return replace(old, port=port or old.port, options=old.options | options)

    @classmethod
    def load(cls, directory: Path) -> Layout:
        """Read a cluster's directory. Raises NoCluster if there is none in it."""
        path = _manifest(directory)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("version") != 1:
                raise ConfigError(f"{path} was written by another version of raftfs: start anew in another directory")
            return cls(dir=directory.resolve(), **values)
        except FileNotFoundError:
            raise NoCluster(
                f"there is no local cluster in {directory}: start one with `raftfs dev up --dir {directory}`"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path} is damaged ({error}): remove the directory to start anew") from None


def _manifest(directory: Path) -> Path:
    return directory / "cluster.json"


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """One process at a time starts and stops servers of a cluster; the others wait their turn."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
