"""A network of namespaces: one for each server, all joined by a bridge in one more, the hub, where the clients are.

Nothing of it is seen from the machine's own network, so its addresses (from the block that RFC 2544 sets aside for
tests) cannot meet any other. Packets are dropped where they arrive, by nftables in the receiver's namespace: the
connections stay half-open, as they do when a cable is pulled.
"""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from raftfs.testing.nemesis.machine import NEMESIS, CannotRun, Tool, call

HUB: Final = "hub"
_CLONE_NEWNET: Final = 0x40000000
_SUBNET: Final = "198.18.7"

Drop = tuple[str, str]
"""(sender, receiver) whose packets do not arrive."""


class Network:
    """``hosts`` and the hub. ``up`` makes it; what is left of it is removed by ``machine.clean_up``."""

    def __init__(self, run: str, hosts: Iterable[str], tool: Tool = NEMESIS) -> None:
        self._run, self._tool = run, tool
        self.hosts = list(hosts)
        self.addresses = {host: f"{_SUBNET}.{number}" for number, host in enumerate([HUB, *self.hosts], start=1)}
        self._drops: Counter[Drop] = Counter()
        self._losses: Counter[str] = Counter()
        self._can_kill_sockets = True

    def up(self) -> None:
        """Raises CannotRun where namespaces cannot be made."""
        for host in (HUB, *self.hosts):
            call("ip", "netns", "add", self.namespace(host))
            self._in(host, "ip", "link", "set", "lo", "up")
        self._in(HUB, "ip", "link", "add", "bridge0", "type", "bridge")
        self._in(HUB, "ip", "address", "add", f"{self.addresses[HUB]}/24", "dev", "bridge0")
        self._in(HUB, "ip", "link", "set", "bridge0", "up")
        for host in self.hosts:
            ends = ("ip", "link", "add", f"to-{host}", "type", "veth", "peer", "name", "eth0")
            self._in(HUB, *ends, "netns", self.namespace(host))
            self._in(HUB, "ip", "link", "set", f"to-{host}", "master", "bridge0", "up")
            self._in(host, "ip", "address", "add", f"{self.addresses[host]}/24", "dev", "eth0")
            self._in(host, "ip", "link", "set", "eth0", "up")
            rules = "table inet nemesis {\nchain input {\ntype filter hook input priority -10; policy accept;\n}\n}\n"
            self._in(host, "nft", "-f", "-", text=rules)
        self._can_kill_sockets = self._try_socket_kill()

    def inside(self, host: str) -> list[str]:
        """What to write before a command so that it runs in this host's namespace."""
        return ["ip", "netns", "exec", self.namespace(host)]

    @contextmanager
    def enter_hub(self) -> Iterator[None]:
        """Put this thread, and those that it starts from now on, into the hub. Call it before there are others."""
        libc = ctypes.CDLL(None, use_errno=True)
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        hub = os.open(f"/run/netns/{self.namespace(HUB)}", os.O_RDONLY)
        try:
            if libc.setns(hub, _CLONE_NEWNET):
                raise CannotRun(f"setns: {os.strerror(ctypes.get_errno())}")
            yield
        finally:
            libc.setns(own, _CLONE_NEWNET)
            os.close(own)
            os.close(hub)

    # Faults. What two faults drop stays dropped until both are over.

    def drop(self, drops: Iterable[Drop]) -> None:
        drops = list(drops)
        self._drops.update(drops)
        self._apply(drop[1] for drop in drops)

    def restore(self, drops: Iterable[Drop]) -> None:
        drops = list(drops)
        self._drops.subtract(drops)
        self._apply(drop[1] for drop in drops)

    def lose(self, host: str, percent: int) -> None:
        """From now on ``percent`` more of the packets from the other servers to ``host`` are lost."""
        self._losses[host] += percent
        self._apply([host])

    def heal(self) -> None:
        """Every packet arrives again."""
        self._drops.clear()
        self._losses.clear()
        self._apply(self.hosts)

    def _apply(self, hosts: Iterable[str]) -> None:
        for host in sorted(set(hosts) - {HUB}):
            lines = ["flush chain inet nemesis input"]
            senders = sorted({sender for (sender, to), count in self._drops.items() if to == host and count > 0})
            lines += [f"add rule inet nemesis input ip saddr {self.addresses[sender]} drop" for sender in senders]
            if (percent := min(90, self._losses[host])) > 0:
                others = f"ip saddr != {self.addresses[HUB]} ip saddr {_SUBNET}.0/24"
                lines.append(f"add rule inet nemesis input {others} numgen random mod 100 < {percent} drop")
            self._in(host, "nft", "-f", "-", text="\n".join(lines) + "\n")

    def break_connections(self, host: str) -> int:
        """End every TCP connection of a host, so that both ends are told (a reset). Returns how many there were."""
        where = ("state", "established", "dst", f"{_SUBNET}.0/24")
        if self._can_kill_sockets:
            return len(self._in(host, "ss", "--kill", "--no-header", "--tcp", "--numeric", *where).splitlines())
        found = len(self._in(host, "ss", "--no-header", "--tcp", "--numeric", *where).splitlines())
        rule = "add rule inet nemesis input meta l4proto tcp tcp flags & (syn | ack) == ack reject with tcp reset\n"
        self._in(host, "nft", "-f", "-", text=rule)
        self._apply([host])
        return found

    def _try_socket_kill(self) -> bool:
        """Whether the kernel lets ``ss --kill`` end connections (INET_DIAG_DESTROY)."""
        try:
            self._in(self.hosts[0], "ss", "--kill", "--tcp", "dst", "127.0.0.2")
        except CannotRun:
            return False
        return True

    def namespace(self, host: str) -> str:
        """The name of this host's namespace, for ``ip netns``."""
        return f"{self._tool.prefix}-{self._run}-{host}"

    def plug(self, host: str, *, into: bool) -> None:
        """Plug this host's cable into the bridge, or pull it."""
        self._in(HUB, "ip", "link", "set", f"to-{host}", "up" if into else "down")

    def _in(self, host: str, *command: str, text: str | None = None) -> str:
        return call(*self.inside(host), *command, text=text)
