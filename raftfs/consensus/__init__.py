"""Consensus: PySyncObj made safe.

Commands come in as bytes (``Consensus.propose``), are batched into entries, and go through PySyncObj's Raft, which
never touches a socket or a file of its own: ``journal`` keeps the log, ``peers`` is the network, and ``guard`` stands
between, restoring each Raft rule that PySyncObj breaks. Committed entries come out in order to an ``Applier`` whose
results answer the proposals; ``Consensus.barrier`` makes reads current. It may never happen here that something is
acknowledged, counted or applied before it is durable on this node, that a matching entry is removed, that an unknown
outcome is called known, or that bytes from the network or the disk are unpickled.
"""

from raftfs.consensus.compatibility import our_versions
from raftfs.consensus.guard import NO_OP
from raftfs.consensus.journal import Journal
from raftfs.consensus.member import Consensus
from raftfs.consensus.membership import Configuration, MemberRecord, decode_configuration, encode_configuration
from raftfs.consensus.parts import Applier, ConsensusStatus, Entry, LogSizes, PeerStatus, decode_entry
from raftfs.consensus.peers import PeerTransport
from raftfs.consensus.rejoin import Stage
from raftfs.consensus.rejoinfile import RejoinFile
from raftfs.consensus.roster import Roster
from raftfs.consensus.termfile import TermFile

__all__ = [
    "NO_OP",
    "Applier",
    "Configuration",
    "Consensus",
    "ConsensusStatus",
    "Entry",
    "Journal",
    "LogSizes",
    "MemberRecord",
    "PeerStatus",
    "PeerTransport",
    "RejoinFile",
    "Roster",
    "Stage",
    "TermFile",
    "decode_configuration",
    "decode_entry",
    "encode_configuration",
    "our_versions",
]
