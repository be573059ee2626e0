"""The cluster's format version: chosen when the cluster is formed, raised when every member runs newer code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from raftfs import limits
from raftfs.errors import RaftfsError
from raftfs.service.cluster import Cluster
from raftfs.service.ports import Clock, ConsensusPort
from raftfs.service.proposals import Proposer
from raftfs.state import Reader, SwitchVersion
from raftfs.versions import FORMAT_VERSION, UNDECIDED

log = logging.getLogger(__name__)


class Understood(NamedTuple):
    """The formats that a member's code understands, from ``min`` to ``max``."""

    min: int
    max: int


def next_version(present: int, members: Sequence[Understood | None], *, patient: bool) -> int | None:
    """The format to switch to: the newest that all members understand; None to stay with ``present``.

    ``members`` are all of them; None for one that has not answered. It might run older code, so the cluster waits for
    it. Only a cluster without a format cannot wait for ever: not ``patient``, it goes by those that answer.
    """
    known = [member for member in members if member is not None]
    if not known or (len(known) < len(members) and (patient or present != UNDECIDED)):
        return None
    newest = min(member.max for member in known)
    return newest if newest > present and all(member.min <= newest for member in known) else None


class VersionGate:
    """As leader, looks what the members run and proposes the switch. ``hold``: never raise a format by itself.
    ``newest``: the newest format that this code understands."""

    def __init__(
        self, *, reader: Reader, consensus: ConsensusPort, cluster: Cluster, proposer: Proposer, clock: Clock,
        hold: bool, newest: int = FORMAT_VERSION,
    ) -> None:  # fmt: skip
        self._reader, self._consensus, self._cluster = reader, consensus, cluster
        self._proposer, self._clock, self._hold, self._newest = proposer, clock, hold, newest
        self._asked_since_s: float | None = None

    async def run(self) -> None:
        """Until the newest format of this code is active."""
        present = UNDECIDED
        while present < self._newest:
            try:
                present = self._reader.applied().version
                await self.round(present)
            except RaftfsError as error:
                log.info("format version: %s", error.detail)
            except Exception:
                log.exception("looking after the format version failed; the next round tries again")
            await asyncio.sleep(limits.FORMING_POLL_S if present == UNDECIDED else limits.UPGRADE_POLL_S)

    async def round(self, present: int) -> None:
        """Once, with ``present`` as the active format."""
        if present == self._newest or not self._consensus.is_leader:
            self._asked_since_s = None
            return
        if self._hold and present != UNDECIDED:
            return
        now_s = self._clock.monotonic()
        if self._asked_since_s is None:
            self._asked_since_s = now_s
        # What was said to an earlier leader, or before a restart, does not count: all are asked anew.
        answers = await self._cluster.ask_all()
        members = [None if one is None else Understood(one.format_min, one.format_max) for one in answers.values()]
        patient = now_s - self._asked_since_s < limits.FORMING_S_MAX
        version = next_version(present, members, patient=patient)
        if version is not None:
            log.info("switching from format %d to %d", present, version)
            await self._proposer.propose(SwitchVersion(present, version))
