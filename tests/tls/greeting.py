"""Somebody who dials a peer port and greets, with any certificate and under any name."""

from __future__ import annotations

import socket
import ssl
import struct

import msgspec

from raftfs.consensus.compatibility import our_versions
from raftfs.consensus.peers import Hello, Welcome

ANSWER_S_MAX = 60.0


def greet(address: str, hello: Hello, context: ssl.SSLContext | None) -> str:
    """What becomes of it: ``welcome``, ``refused: ...``, ``closed``, or ``handshake: ...``. No context: plain TCP."""
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_S_MAX) as plain:
            conn = plain if context is None else context.wrap_socket(plain, server_hostname=hello.receiver)
            with conn:
                body = msgspec.msgpack.encode(hello)
                conn.sendall(struct.pack(">I", len(body)) + body)
                return _read(conn)
    except ssl.SSLError as error:
        return f"handshake: {error.reason}"
    except ConnectionError:
        return "closed"


def _read(conn: socket.socket) -> str:
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        piece = conn.recv(65536)
        if not piece:
            return "closed"
        data += piece
    refused = msgspec.msgpack.decode(data[4:], type=Welcome).refused
    return "welcome" if refused is None else f"refused: {refused}"


def greeting(cluster_id: str, sender: str, receiver: str, *, uuid: str = "") -> Hello:
    return Hello(cluster_id, sender, receiver, "bulk", our_versions(), uuid)
