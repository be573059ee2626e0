"""A nemesis for real clusters. A duration and a seed come in; nodes start, each in a network of its own, clients work,
and faults fall on them (kills, freezes, partitions, lost packets, full disks, clocks that jump); what the clients saw
goes to the linearizability checker, and a verdict comes out. It needs root and Linux. It may never touch an address,
a process, a mount or a namespace that is not its own, may leave none of them behind, and may never call a run clean in
which too little happened to say so.
"""

from __future__ import annotations

from raftfs.testing.nemesis.run import Options, run
from raftfs.testing.nemesis.trial import Report

__all__ = ["Options", "Report", "run"]
