"""Ports that are handed out: free ones, and never the same to two processes."""

from __future__ import annotations

import socket
import subprocess
import sys

from raftfs.testing.ports import BLOCK_PORTS, HOST, free_block, free_ports, is_free
from raftfs.testing.processes import raftfs_environment

BLOCKS = 30
"""More than the first range has: who needs more takes another one."""

HANDED_OUT = f"""
import sys
from raftfs.testing.ports import free_block
print(*(free_block() for _ in range({BLOCKS})), flush=True)
sys.stdin.read()
"""


def listener(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    sock.listen()
    return sock


def test_a_free_block_is_free_and_a_taken_port_is_not() -> None:
    port = free_block()
    assert all(is_free(port + offset) for offset in range(BLOCK_PORTS))
    with listener(port + 3):
        assert not is_free(port + 3)
    assert is_free(port + 3)


def test_blocks_with_a_taken_port_are_passed_over_and_another_range_is_taken() -> None:
    taken: list[socket.socket] = []
    try:
        for _ in range(BLOCKS):
            taken.append(listener(free_block() + 1))
        ports = [sock.getsockname()[1] for sock in taken]
    finally:
        for sock in taken:
            sock.close()
    assert len(set(ports)) == BLOCKS
    assert len(set(free_ports(BLOCK_PORTS))) == BLOCK_PORTS


def test_no_two_processes_are_given_the_same_ports() -> None:
    """All hold theirs at the same time, and nobody listens on any of them."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", HANDED_OUT], env=raftfs_environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    handed_out = [{free_block() for _ in range(BLOCKS)}]
    for child in children:
        assert child.stdout is not None
        handed_out.append({int(word) for word in child.stdout.readline().split()})
    for child in children:
        child.communicate()
    assert all(handed_out)
    assert len(set.union(*handed_out)) == sum(map(len, handed_out))


FORKED = f"""
import os
from raftfs.testing.ports import free_block
ours = {{free_block() for _ in range({BLOCKS})}}
child = os.fork()
if not child:
    os._exit(free_block() in ours)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_does_not_share_the_range_of_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=raftfs_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
