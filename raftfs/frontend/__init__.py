"""Finding the leader and forwarding to it: alone as the frontend process, and inside every node.

A client's request comes in; it goes on, as a stream, to the leader (writes) or to any node (reads), and the answer
comes back untouched. A small body is kept and sent again across a change of leader, under an idempotency key, so the
client does not notice; what was cut off and cannot be repeated is answered with its true outcome. What may never
happen here: a whole large body in memory, a write tried twice without a key, a request that outlives its deadline,
or a guess about an outcome. The package keeps nothing and imports nothing of a node.
"""

from raftfs.frontend.app import FrontendApp
from raftfs.frontend.directory import Directory
from raftfs.frontend.forward import Forwarder, Local
from raftfs.frontend.run import Frontend, serve_frontend

__all__ = ["Directory", "Forwarder", "Frontend", "FrontendApp", "Local", "serve_frontend"]
