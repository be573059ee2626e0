"""What runs behind a blocking client in one process, and what a fork leaves of it."""

from __future__ import annotations

import os

from raftfs.client.asyncclient import AsyncClient
from raftfs.client.loopthread import LoopThread
from raftfs.client.options import Options


class Core:
    """The running half of a client: thread, loop and asynchronous client of one process."""

    def __init__(self, options: Options) -> None:
        self.pid = os.getpid()
        self.thread = LoopThread()
        self.client = AsyncClient.from_options(options)

    def stop(self) -> None:
        if self.pid == os.getpid():
            try:
                self.thread.run(self.client.close())
            finally:
                self.thread.stop()


abandoned: list[Core] = []
"""Cores of a parent process: kept, because destroying them would touch sockets and selectors the parent uses."""
