"""Machines to try playbooks on by hand: ``python -m tests.deploy.machines up --detach``, then ``inventory``, ``ssh``,
``cut``, ``boot``, ``run`` and at the end ``down``. Needs root; everything is removed again."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from raftfs.errors import NotFound, RaftfsError
from raftfs.testing.nemesis.machine import is_alive

from .base import ADMINISTRATOR
from .fleet import TOOL, Fleet, remove_leftovers

NODES: Final = ("n1", "n2", "n3")
FRONTENDS: Final = ("f1",)
SPARES: Final = ("n4", "n5", "r1", "r2", "r3")
ALL: Final = (*NODES, *FRONTENDS, *SPARES)
_DEFAULT: Final = " ".join([*NODES, *FRONTENDS])
_UP_S_MAX: Final = 1200.0
_CANNOT_RUN: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        return int(given.do(given) or 0)
    except RaftfsError as error:
        print(f"machines: {error}", file=sys.stderr)
        return _CANNOT_RUN


def inventory(addresses: dict[str, str], ssh_config: Path, nodes: Sequence[str], frontends: Sequence[str]) -> str:
    """An Ansible inventory (YAML, of which JSON is a part)."""
    hosts = {name: {"ansible_host": addresses[name]} for name in [*nodes, *frontends]}
    common = {
        "ansible_user": ADMINISTRATOR,
        "ansible_become": True,
        "ansible_ssh_common_args": f"-F {ssh_config}",
        # Kept connections know nothing of networks: those of another run lead to another run's machines.
        "ansible_control_path_dir": str(ssh_config.parent / "kept"),
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    groups = {
        "raftfs_nodes": {"hosts": {name: hosts[name] for name in nodes}},
        "raftfs_frontends": {"hosts": {name: hosts[name] for name in frontends}},
    }
    return json.dumps({"all": {"vars": common, "children": groups}}, indent=2) + "\n"


class _Run(msgspec.Struct):
    """What later commands have to know of a run that is up. ``inside``: what to write before a command, so that it runs
    where the administrator sits."""

    folder: str
    pid: int
    addresses: dict[str, str]
    ssh_config: str
    inside: list[str]

    @property
    def name(self) -> str:
        return Path(self.folder).name


class _Orders(socketserver.UnixStreamServer):
    """Takes the orders of later commands: ``boot NAME``, ``cut NAME``."""

    fleet: Fleet


class _Order(socketserver.StreamRequestHandler):
    server: _Orders

    def handle(self) -> None:
        word, name = self.rfile.readline().decode().split()
        try:
            if word == "boot":
                self.server.fleet.boot([name])
            else:
                self.server.fleet.machines[name].cut()
            self.wfile.write(b"done\n")
        except (RaftfsError, AssertionError, KeyError) as error:
            self.wfile.write(f"failed: {error!r}\n".encode())


def _up(given: argparse.Namespace) -> int:
    if given.detach:
        return _detach(given)
    remove_leftovers()
    signal.signal(signal.SIGTERM, _stop)
    fleet = Fleet(ALL)
    with suppress(KeyboardInterrupt):
        try:
            _keep(fleet, given.names)
        finally:
            fleet.close()
    return 0


def _keep(fleet: Fleet, names: Sequence[str]) -> None:
    """Boot machines, and carry out orders until this is interrupted."""
    fleet.boot(names)
    with _Orders(str(fleet.folder / "orders"), _Order) as orders:
        orders.fleet = fleet
        addresses = {name: machine.address for name, machine in fleet.machines.items()}
        run = _Run(str(fleet.folder), os.getpid(), addresses, str(fleet.ssh_config), fleet.inside)
        (fleet.folder / "run.json").write_bytes(msgspec.json.encode(run))
        print(f"machines: run {fleet.run} is up: {', '.join(names)}", flush=True)
        orders.serve_forever()


def _detach(given: argparse.Namespace) -> int:
    TOOL.root.mkdir(parents=True, exist_ok=True)
    log = TOOL.root.parent / f"up-{os.getpid()}.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "tests.deploy.machines", "up", *given.names]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    end = time.monotonic() + _UP_S_MAX
    while time.monotonic() < end and process.poll() is None:
        if "is up" in log.read_text():
            print(log.read_text(), end="")
            return 0
        time.sleep(0.2)
    print(log.read_text(), end="", file=sys.stderr)
    return 1


def _down(given: argparse.Namespace) -> None:
    for run in _runs(given.run):
        os.kill(run.pid, signal.SIGTERM)
        while Path(run.folder).exists():
            time.sleep(0.1)
        print(f"machines: run {run.name} is gone")


def _inventory(given: argparse.Namespace) -> None:
    run = _one(given.run)
    print(inventory(run.addresses, Path(run.ssh_config), given.nodes, given.frontends), end="")


def _ssh(given: argparse.Namespace) -> int:
    run = _one(given.run)
    return subprocess.call([*run.inside, "ssh", "-F", run.ssh_config, given.name, *given.command])


def _do(given: argparse.Namespace) -> int:
    return subprocess.call([*_one(given.run).inside, *given.command])


def _order(given: argparse.Namespace) -> int:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(Path(_one(given.run).folder) / "orders"))
        client.sendall(f"{given.word} {given.name}\n".encode())
        said = client.makefile().readline()
    print(said, end="")
    return 0 if said == "done\n" else 1


def _clean(given: argparse.Namespace) -> None:
    print("cleaned up:", ", ".join(remove_leftovers()) or "nothing was left over")


def _runs(name: str | None) -> list[_Run]:
    """Those that are up; ``name`` None: all."""
    paths = [path for path in sorted(TOOL.root.glob("*/run.json")) if is_alive(path.parent.name, TOOL)]
    return [msgspec.json.decode(path.read_bytes(), type=_Run) for path in paths if name in (None, path.parent.name)]


def _one(name: str | None) -> _Run:
    found = _runs(name)
    if len(found) != 1:
        raise NotFound(f"{len(found)} runs are up: {', '.join(run.name for run in found)}; --run says which")
    return found[0]


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.machines", description=__doc__)
    parser.add_argument("--run", help="which run, if several are up")
    commands = parser.add_subparsers(required=True)

    def command(name: str, do: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text)
        found.set_defaults(do=do, word=name)
        return found

    up = command("up", _up, "boot machines, and keep them until Ctrl-C")
    up.add_argument("names", nargs="*", default=[*NODES, *FRONTENDS], help=f"of {' '.join(ALL)}; default {_DEFAULT}")
    up.add_argument("--detach", action="store_true", help="keep them in the background, until `down`")
    command("down", _down, "remove the machines")
    command("cleanup", _clean, "remove what a run that was killed has left behind")
    for name, text in (("boot", "switch a machine on, and wait until it is up"), ("cut", "cut a machine's power")):
        command(name, _order, text).add_argument("name", choices=ALL)
    found = command("inventory", _inventory, "print an Ansible inventory")
    found.add_argument("--nodes", nargs="+", default=NODES, choices=ALL, metavar="NAME")
    found.add_argument("--frontends", nargs="*", default=FRONTENDS, choices=ALL, metavar="NAME")
    found = command("ssh", _ssh, "log in, or run a command, as the administrator (who may use sudo)")
    found.add_argument("name", choices=ALL)
    found.add_argument("command", nargs=argparse.REMAINDER)
    found = command("do", _do, "run a command of this machine in the machines' network, e.g. ansible-playbook or curl")
    found.add_argument("command", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
