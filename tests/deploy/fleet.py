"""Machines that boot: each a systemd with sshd, in a container with a network of its own, on a disk of its own.

They are systemd-nspawn containers. A machine's files are an overlay over the common tree, its data lies on a mount of
its own, and its network is a namespace that is joined to the others by a bridge in one more, the hub, from which it is
administered. Nothing of it is seen from outside. ``cut`` is what happens when the power goes: the cable is pulled, so
that nobody is told anything, and all that runs ends at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from raftfs.testing.nemesis.machine import CannotRun, Claim, Tool, call, clean_up
from raftfs.testing.nemesis.network import HUB, Network

from .base import ADMINISTRATOR, CACHE, tree

TOOL: Final = Tool(CACHE / "runs", "rfd")
PROGRAMS: Final = {
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "mount": "mount",
    "nft": "nftables",
    "ss": "iproute2",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
}
_BOOT_S_MAX: Final = 120.0
_END_S_MAX: Final = 60.0
_POLL_S: Final = 0.2
_CGROUPS: Final = Path("/sys/fs/cgroup")
_LOG_LINES: Final = 200


def check_machine() -> None:
    """Raises CannotRun, saying what is missing and how to get it."""
    if os.geteuid() != 0:
        raise CannotRun("machines that boot need root")
    if missing := sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None}):
        raise CannotRun(f"programs are missing; on Debian: apt install {' '.join(missing)}")


def remove_leftovers() -> list[str]:
    """Remove what runs that died have left behind. Returns their names."""
    gone = clean_up(tool=TOOL)
    for run in gone:
        _remove_cgroups(run)
    return gone


class Machine:
    """One of a fleet. It is off until ``boot``."""

    def __init__(self, name: str, fleet: Fleet) -> None:
        self.name, self.address = name, fleet.network.addresses[name]
        self._fleet = fleet
        self.folder = fleet.folder / name
        self.root = self.folder / "root"
        self._nspawn: subprocess.Popen[bytes] | None = None

    @property
    def is_on(self) -> bool:
        return self._nspawn is not None and self._nspawn.poll() is None

    def boot(self) -> None:
        """Switch it on; ``Fleet.wait`` says when it is up. The first time, its disk is laid out."""
        if self.is_on:
            return
        parts = {part: self.folder / part for part in ("upper", "work", "root", "data")}
        is_new = not self.folder.exists()
        for part in parts.values():
            part.mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={self._fleet.tree},upperdir={parts['upper']},workdir={parts['work']}"
        call("mount", "-t", "overlay", "-o", layers, f"{TOOL.prefix}-disk", str(self.root))
        if is_new:
            self._lay_out()
        # The namespace outlives the machine; what the machine set in it does not.
        call(*self._fleet.network.inside(self.name), "nft", "flush", "ruleset")
        self._fleet.network.plug(self.name, into=True)
        self._nspawn = self._start()

    def cut(self) -> None:
        """The power goes, and with it the network."""
        assert self._nspawn is not None
        self._fleet.network.plug(self.name, into=False)
        for pid in (*_children(self._nspawn.pid), self._nspawn.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._end()

    def shut_down(self) -> None:
        """Let it end in order, or cut it if it does not."""
        if self._nspawn is None:
            return
        self._nspawn.terminate()  # nspawn asks the system inside to power off
        try:
            self._nspawn.wait(_END_S_MAX)
        except subprocess.TimeoutExpired:
            self.cut()
        else:
            self._end()

    def run(self, command: str, *, check: bool = True, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the machine as root, over ssh. Raises subprocess.CalledProcessError."""
        remote = f"sudo -n sh -c {_quote(command)}"
        return subprocess.run(
            [*self._fleet.ssh(self.name), remote],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            check=check,
        )

    def answers(self) -> bool:
        """Whether one can log in, and the system is up."""
        try:
            said = self.run("systemctl is-system-running", check=False, timeout_s=10).stdout.strip()
        except subprocess.TimeoutExpired:
            return False
        return said in ("running", "degraded")

    def journal(self) -> str:
        """The last lines of its log, also of a machine that is off."""
        folder = self.folder / "upper/var/log/journal"
        where = ("--directory", str(folder), "--no-pager", f"--lines={_LOG_LINES}")
        return call("journalctl", *where, check=False) if folder.exists() else ""

    def _start(self) -> subprocess.Popen[bytes]:
        fleet = self._fleet
        groups = _make_cgroups(f"{TOOL.prefix}-{fleet.run}-{self.name}")
        command = [
            "systemd-nspawn",
            "--quiet",
            "--settings=no",
            "--boot",
            f"--directory={self.root}",
            f"--machine={TOOL.prefix}-{fleet.run}-{self.name}",
            f"--hostname={self.name}",
            "--register=no",
            "--keep-unit",
            "--capability=CAP_NET_ADMIN",  # its firewall is its own
            f"--network-namespace-path=/run/netns/{fleet.network.namespace(self.name)}",
            "--console=pipe",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            f"--bind={self.folder / 'data'}:/var/lib/raftfs",
        ]
        # A shell that moves into the machine's cgroups before it becomes nspawn: what is inside sees them as its own.
        moves = "".join(f"echo $$ > {group}/cgroup.procs && " for group in groups)
        with (self.folder / "console.log").open("ab") as log:
            return subprocess.Popen(
                ["sh", "-c", f'{moves}exec "$@"', "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )

    def _end(self) -> None:
        assert self._nspawn is not None
        self._nspawn.wait(_END_S_MAX)
        self._nspawn = None
        call("umount", "--lazy", str(self.root))

    def _lay_out(self) -> None:
        """What an installer leaves on the disk: names, host keys, and the administrator's key."""
        etc, home = self.root / "etc", self.root / "home" / ADMINISTRATOR / ".ssh"
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        shutil.copy(self._fleet.host_key(self.name), etc / "ssh/ssh_host_ed25519_key")
        shutil.copy(f"{self._fleet.host_key(self.name)}.pub", etc / "ssh/ssh_host_ed25519_key.pub")
        home.mkdir(mode=0o700)
        shutil.copy(f"{self._fleet.key}.pub", home / "authorized_keys")
        owner = (self.root / "home" / ADMINISTRATOR).stat()
        for path in (home, home / "authorized_keys"):
            os.chown(path, owner.st_uid, owner.st_gid)


class Fleet:
    """``names``: the machines, all off. Their addresses exist from the beginning. ``close`` removes all again."""

    def __init__(self, names: Sequence[str]) -> None:
        check_machine()
        self.tree = tree()
        self._claim = Claim(TOOL)
        self.run, self.folder = self._claim.run, self._claim.folder
        try:
            self.network = Network(self.run, names, TOOL)
            self.network.up()
            self.key = self.folder / "administrator"
            _make_key(self.key)
            for name in names:
                _make_key(self.host_key(name))
            self.machines = {name: Machine(name, self) for name in names}
            self._write_ssh_config()
        except BaseException:
            self.close()
            raise

    def host_key(self, name: str) -> Path:
        return self.folder / f"host-{name}"

    @property
    def ssh_config(self) -> Path:
        """For ``ssh -F``, from the hub."""
        return self.folder / "ssh_config"

    @property
    def inside(self) -> list[str]:
        """What to write before a command, so that it runs in the hub."""
        return self.network.inside(HUB)

    def ssh(self, name: str) -> list[str]:
        return [*self.inside, "ssh", "-F", str(self.ssh_config), name]

    def boot(self, names: Iterable[str]) -> None:
        """Switch machines on, and wait until they are up. Raises CannotRun."""
        names = list(names)
        for name in names:
            self.machines[name].boot()
        for name in names:
            self.wait(name)

    def wait(self, name: str) -> None:
        """Raises CannotRun if the machine does not come up."""
        machine, end = self.machines[name], time.monotonic() + _BOOT_S_MAX
        while not machine.answers():
            if not machine.is_on or time.monotonic() > end:
                console = (machine.folder / "console.log").read_text(errors="replace")
                raise CannotRun(f"the machine {name} does not come up\n{console}\n{machine.journal()}")
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Cut all machines and remove all that was made. Idempotent."""
        for machine in getattr(self, "machines", {}).values():
            if machine.is_on:
                machine.cut()
        self._claim.release()
        clean_up(self.run, TOOL)
        _remove_cgroups(self.run)

    def _write_ssh_config(self) -> None:
        known = self.folder / "known_hosts"
        keys = {name: Path(f"{self.host_key(name)}.pub").read_text().rsplit(maxsplit=1)[0] for name in self.machines}
        known.write_text("".join(f"{one.address} {keys[name]}\n" for name, one in self.machines.items()))
        common = (
            f"Host *\n  User {ADMINISTRATOR}\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
            "  BatchMode yes\n  ConnectTimeout 10\n  ServerAliveInterval 5\n  LogLevel ERROR\n"
        )
        hosts = [f"Host {name}\n  HostName {one.address}\n" for name, one in self.machines.items()]
        self.ssh_config.write_text("".join([*hosts, common]))


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _make_key(path: Path) -> None:
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path))


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def _hierarchies() -> list[Path]:
    """Those that systemd wants a group in: the second version's, and its own of the first."""
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [
        Path(where)
        for _, where, kind, options, *_ in lines
        if Path(where).is_relative_to(_CGROUPS)
        and (kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")))
    ]


def _make_cgroups(name: str) -> list[Path]:
    groups = [hierarchy / name for hierarchy in _hierarchies()]
    for group in groups:
        group.mkdir(exist_ok=True)
    return groups


def _remove_cgroups(run: str) -> None:
    """Those of a run, from the leaves on. What still holds a process stays."""
    for hierarchy in _hierarchies():
        for top in hierarchy.glob(f"{TOOL.prefix}-{run}-*"):
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
