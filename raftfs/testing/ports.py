"""Free ports of the loopback interface, which no other process that asks here is given at the same time.

A port that was free a moment ago may be taken before its server listens, and is free again while the server restarts.
So a process takes a whole range of ports for as long as it lives, and hands them out from there. Whose a range is says
an abstract Unix socket: like a port, it can be bound once in a network namespace, and the kernel drops it when its
process ends, however that ends.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import threading
from collections import deque

from raftfs.errors import ConfigError

HOST = "127.0.0.1"
BLOCK_PORTS = 20
_RANGE_PORTS = 20 * BLOCK_PORTS
# Below the range from which Linux draws the ports of outgoing connections, so that none of those sits on ours.
_RANGES = range(10_000, 32_000, _RANGE_PORTS)

_lock = threading.Lock()
_blocks = deque[int]()
"""First ports of the blocks that are ours; the one that was handed out last is the last one."""
os.register_at_fork(after_in_child=_blocks.clear)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def free_block() -> int:
    """The first of BLOCK_PORTS free ports in a row. No other process is given them while this one lives, and this one
    not before its other blocks. Raises ConfigError if there are none."""
    with _lock:
        while True:
            for _ in range(len(_blocks)):
                _blocks.rotate(-1)
                if all(is_free(_blocks[-1] + offset) for offset in range(BLOCK_PORTS)):
                    return _blocks[-1]
            _blocks.extendleft(_take_range())


def free_ports(count: int) -> list[int]:
    """So many free ports, at most BLOCK_PORTS, as in ``free_block``."""
    first = free_block()
    return list(range(first, first + count))


def _take_range() -> range:
    """The blocks of a range that was nobody's and is this process's from now on."""
    for first in random.sample(_RANGES, len(_RANGES)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
            try:
                holder.bind(f"\0raftfs-ports-{first}")
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise
            holder.detach()  # the kernel closes it, with the process
            return range(first, first + _RANGE_PORTS, BLOCK_PORTS)
    raise ConfigError(f"found no {BLOCK_PORTS} free ports in a row from {_RANGES.start} to {_RANGES.stop}")
