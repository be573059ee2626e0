"""What systemd is told about a server (``sd_notify(3)``): that it serves, how it does, that it lives, that it stops.

The protocol is one datagram of ``KEY=value`` lines to the socket that ``NOTIFY_SOCKET`` names. Without that variable
nobody wants to know, and nothing is sent. Nothing here may delay the server: what the socket does not take at once is
dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from raftfs.errors import ConfigError

log = logging.getLogger("raftfs.systemd")

_STATUS_S: Final = 1.0  # how often is looked whether there is something new to say
_BEATS: Final = 3  # in the time after which systemd takes the server for hung


class ServiceManager:
    """The service manager that started this process, if one did. ``environment`` is that of the process."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._socket: socket.socket | None = None
        self._status = ""
        self.watchdog_s = _watchdog_s(environment)
        """after this time without a sign of life it kills the process; None if it does not watch"""
        if name := environment.get("NOTIFY_SOCKET"):
            self._socket = _connect(name)

    def ready(self) -> None:
        """The ports listen."""
        self._tell("READY=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=stopping")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Around the answer to SIGHUP: ``systemctl reload`` waits for its end."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._tell("READY=1")

    async def keep_informed(self, describe: Callable[[], str]) -> None:
        """Until cancelled: what ``describe`` says (one line, for people), and signs of life. They come from the event
        loop, so they end when it hangs."""
        if self._socket is None:
            return
        period_s = _STATUS_S if self.watchdog_s is None else min(_STATUS_S, self.watchdog_s / _BEATS)
        while True:
            lines = [] if self.watchdog_s is None else ["WATCHDOG=1"]
            if (status := _in_words(describe)) != self._status:
                self._status = status
                lines.append(f"STATUS={status}")
            if lines:
                self._tell(*lines)
            await asyncio.sleep(period_s)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send("\n".join(lines).encode())
        except OSError as error:
            log.warning("the service manager was not told %s: %s", lines[0], error.strerror)


def _in_words(describe: Callable[[], str]) -> str:
    try:
        return describe()
    except Exception:  # a defect, but no reason to let the watchdog kill a server that serves
        log.exception("bug in describing the server")
        return "serving; how it does cannot be told, the log says why"


def _connect(name: str) -> socket.socket:
    """``name``: a path, or an abstract name that begins with ``@``. Raises ConfigError."""
    if name[0] not in "/@":
        raise ConfigError(f"NOTIFY_SOCKET={name} is neither a path nor an abstract name (@...)")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        connection.connect("\0" + name[1:] if name.startswith("@") else name)
    except OSError as error:
        connection.close()
        raise ConfigError(f"NOTIFY_SOCKET={name}: {error.strerror or error}") from error
    return connection


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000
