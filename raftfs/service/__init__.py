"""The use cases: what a client asks for, made of consensus, the state and the chunk store.

A path, options and perhaps a body come in; stats, pages, verified bytes or one of ``raftfs.errors`` go out. A write
is answered only when a majority holds it durably, and a refused or broken-off one leaves nothing visible. Reads are
as current as the caller asked and say so. Everything runs on one asyncio loop with hashing and disks in worker
threads; time and the other nodes are passed in. What may never happen here: a body held whole in memory, an
acknowledgement before durability, an unverified byte served, or a path of a client that becomes a path of the machine.
"""

from raftfs.service.cluster import Cluster
from raftfs.service.files import Files
from raftfs.service.members import Members
from raftfs.service.options import Ack, ReadInfo, ReadOptions, WriteOptions
from raftfs.service.ports import SystemClock
from raftfs.service.reads import OpenFile
from raftfs.service.service import Service

__all__ = [
    "Ack",
    "Cluster",
    "Files",
    "Members",
    "OpenFile",
    "ReadInfo",
    "ReadOptions",
    "Service",
    "SystemClock",
    "WriteOptions",
]
