"""Clusters to test against. A number of nodes comes in; real processes on loopback go out, and are gone afterwards.

``LocalCluster`` is for programs that use raftfs, for raftfs' own tests and for ``raftfs dev``. A process that it did
not start is never signalled, and none that it started (and was not asked to detach) may outlive it.
"""

from __future__ import annotations

from raftfs.testing.cluster import ClusterError, LocalCluster

__all__ = ["ClusterError", "LocalCluster"]
