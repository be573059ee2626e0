"""The deterministic simulator: a seed comes in; a report, or the broken promise and the seed that repeats it, go out.

The real node code (engine, guard, elections, barriers, proposals, journal, state machine, use cases, the client's
retries) runs in one process on virtual time (``loop``), a simulated network (``network``) and simulated disks
(``disk``); ``faults`` does harm, ``client`` asks for reads and writes, and ``judge`` looks at everything after each
step. Nothing here may ask the real clock, the real random source or the order of a set: the same seed must give the
same run, event for event, in any process.
"""

from raftfs.testing.simulation.simulation import Plant, Report, Simulation, SimulationFailed

__all__ = ["Plant", "Report", "Simulation", "SimulationFailed"]
