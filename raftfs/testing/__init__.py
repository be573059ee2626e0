"""Clusters to test against. A number of nodes comes in; real processes on loopback go out, and are gone afterwards.

``LocalCluster`` is for programs that use raftfs, for raftfs' own tests and for ``raftfs dev``. A process that it did
not start is never signalled, and none that it started (and was not asked to detach) may outlive it. ``Simulation`` is
a whole cluster in this process, on virtual time, decided by a seed; it is imported only when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from raftfs.testing.cluster import ClusterError, LocalCluster

if TYPE_CHECKING:
    from raftfs.testing.simulation import Simulation, SimulationFailed

__all__ = ["ClusterError", "LocalCluster", "Simulation", "SimulationFailed"]


def __getattr__(name: str) -> Any:
    if name not in ("Simulation", "SimulationFailed"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("raftfs.testing.simulation"), name)
