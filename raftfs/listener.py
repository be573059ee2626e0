"""A listening socket whose connections speak TLS: each handshake with the contexts of its moment, all of them bounded.

asyncio's own server would bind one context for good, and let any number of silent connections wait for their handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from raftfs.limits import TLS_HANDSHAKE_S_MAX, TLS_HANDSHAKES_MAX, TLS_REFUSALS_LOGGED_MAX
from raftfs.tls import Contexts

log = logging.getLogger(__name__)

_ACCEPTED_AT_ONCE_MAX: Final = 64
_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_DESCRIPTORS_PAUSE_S: Final = 0.5
_HANDSHAKE: Final = b"\x16"
"""First byte of every TLS connection (RFC 8446, 5.1: the content type of a handshake record)."""
_REFUSAL_LOGGED_S: Final = 60.0
_PEEKED_BYTES: Final = 16
_PLAIN: Final = "no TLS"


class TlsListener:
    """Listens on ``host:port`` (all addresses of a name); every connection whose handshake succeeds gets a protocol of
    ``factory``. What begins with something else than a handshake is answered with what
    ``plain`` makes of its first bytes, and closed.

    ``handshakes_max`` and ``handshake_s`` bound how many handshakes there are at once and how long each may take.
    """

    def __init__(
        self,
        name: str,
        tls: Contexts,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        plain: Callable[[bytes], bytes] = lambda _: b"",
        handshakes_max: int = TLS_HANDSHAKES_MAX,
        handshake_s: float = TLS_HANDSHAKE_S_MAX,
    ) -> None:
        self.sockets: list[socket.socket] = []
        self.refused = 0
        """handshakes that failed, were too slow, or never began"""
        self._name = name
        self._tls = tls
        self._factory = factory
        self._plain = plain
        self._handshakes_max = handshakes_max
        self._handshake_s = handshake_s
        self._shaking: dict[asyncio.Task[None], None] = {}  # oldest first
        self._logged: dict[tuple[str, str], float] = {}

    async def start(self, host: str, port: int, *, backlog: int = 100) -> None:
        """Raises OSError if an address cannot be had."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                self.sockets.append(_bind(family, kind, protocol, address, backlog))
        except BaseException:
            self.close()
            raise
        for sock in self.sockets:
            loop.add_reader(sock.fileno(), self._accept, sock)

    def close(self) -> None:
        """Accept no more, and break off handshakes that are under way. Connections that stand live on."""
        loop = asyncio.get_running_loop()
        for sock in self.sockets:
            loop.remove_reader(sock.fileno())
            sock.close()
        self.sockets.clear()
        for task in self._shaking:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._shaking, return_exceptions=True)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE_MAX):
            try:
                conn, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS:
                    raise
                log.error("%s: cannot accept a connection: %s", self._name, error)
                self._pause(sock)
                return
            conn.setblocking(False)
            if len(self._shaking) >= self._handshakes_max:
                oldest = next(iter(self._shaking))
                del self._shaking[oldest]
                oldest.cancel()
            task = asyncio.get_running_loop().create_task(self._shake(conn, str(address[0])), name="tls-handshake")
            self._shaking[task] = None
            task.add_done_callback(lambda done: self._shaking.pop(done, None))

    def _pause(self, sock: socket.socket) -> None:
        """The connection stays in the queue, and the selector would report it again at once, for ever."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock.fileno())

        def resume() -> None:
            if sock in self.sockets:
                loop.add_reader(sock.fileno(), self._accept, sock)

        loop.call_later(_NO_DESCRIPTORS_PAUSE_S, resume)

    async def _shake(self, conn: socket.socket, address: str) -> None:
        try:
            async with asyncio.timeout(self._handshake_s):
                if not await self._begins(conn, address):
                    return
                await self._connect(conn)
        except TimeoutError:
            self._refuse(address, "the handshake took too long")
        except ssl.SSLError as error:
            self._refuse(address, error.reason or str(error))
        except OSError as error:
            self._refuse(address, error.strerror or str(error) or type(error).__name__)

    async def _connect(self, conn: socket.socket) -> None:
        """The handshake. Who fails is told why, over a second descriptor: the first one is asyncio's to close."""
        spare = conn.dup()
        spare.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._factory, conn, ssl=self._tls.server, ssl_handshake_timeout=self._handshake_s
            )
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):
                await _answer(spare, getattr(error, "alert", b""))
            raise
        finally:
            spare.close()

    async def _begins(self, conn: socket.socket, address: str) -> bool:
        """Whether it begins with a handshake. If not, the connection is ours to close."""
        mine = True
        try:
            first = await _peek(conn)
            mine = not first.startswith(_HANDSHAKE)
            if mine and first:
                self._refuse(address, _PLAIN)
                await _answer(conn, self._plain(first))
        finally:
            if mine:
                conn.close()
        return not mine

    def _refuse(self, address: str, reason: str) -> None:
        """Count it, and log each address and reason once in a while: whoever is refused comes again."""
        self.refused += 1
        now_s = asyncio.get_running_loop().time()
        level = logging.WARNING
        if now_s - self._logged.get((address, reason), float("-inf")) < _REFUSAL_LOGGED_S:
            level = logging.DEBUG
        else:
            while len(self._logged) >= TLS_REFUSALS_LOGGED_MAX:
                del self._logged[next(iter(self._logged))]
            self._logged[(address, reason)] = now_s
        log.log(level, "%s port: no connection from %s: %s", self._name, address, reason)


def _bind(family: int, kind: int, protocol: int, address: tuple[object, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _peek(conn: socket.socket) -> bytes:
    """The first bytes, left where they are; empty at the end of the stream."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return conn.recv(_PEEKED_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            pass
        readable = asyncio.Event()
        loop.add_reader(conn.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(conn.fileno())


async def _answer(conn: socket.socket, answer: bytes) -> None:
    """Send it and read until the other side has it and closes: what lies unread when a socket is closed resets the
    connection, and the answer would be lost."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(conn, answer)
    conn.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(conn, 65536):
        pass
