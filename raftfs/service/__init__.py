"""The use cases: what a client asks for, made of consensus, the state and the chunk store.

A path, options and perhaps a body come in; stats, pages, verified bytes or one of ``raftfs.errors`` go out. A write
is answered only when a majority holds it durably, and a refused or broken-off one leaves nothing visible. Reads are
as current as the caller asked and say so. Everything runs on one asyncio loop with hashing and disks in worker
threads; time and the other nodes are passed in. What may never happen here: a body held whole in memory, an
acknowledgement before durability, an unverified byte served, or a path of a client that becomes a path of the machine.
"""

from raftfs.service.cluster import Cluster
from raftfs.service.files import Files, OpenFile
from raftfs.service.options import Ack, ReadInfo, ReadOptions, WriteOptions

__all__ = ["Ack", "Cluster", "Files", "OpenFile", "ReadInfo", "ReadOptions", "WriteOptions"]
