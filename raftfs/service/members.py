"""Members come and go: add, promote, replace, remove, and hand the leadership over.

A new member first only listens. It votes as soon as it has the log and every chunk, which the leader sees to by itself.
Nobody's vote is taken away while the others do not have every chunk on a majority of their own: the bytes of a file
are on a majority of the members that voted when they were written, and must be on a majority of those who vote now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import msgspec
from pydantic import ValidationError

from raftfs import limits
from raftfs.config import MemberConfig
from raftfs.consensus import Configuration, MemberRecord
from raftfs.errors import Conflict, InvalidRequest, NotFound, Unavailable
from raftfs.service.cluster import Cluster, NodeStatus
from raftfs.service.ports import ConsensusPort
from raftfs.service.proposals import Proposer

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Overtaken(Exception):
    """Another change of the same member came first."""


def bootstrap(members: Iterable[MemberConfig]) -> Configuration:
    """The members with which a cluster begins, as the configuration file lists them."""
    return Configuration(tuple(MemberRecord(member.id, member.peer, member.url) for member in members))


class Members:
    """Changes of the membership. Every method raises NotLeader on a node that does not lead, and what a proposal does;
    a request that was carried out already is answered as if it were done now."""

    def __init__(self, *, consensus: ConsensusPort, cluster: Cluster, proposer: Proposer) -> None:
        self._consensus, self._cluster, self._proposer = consensus, cluster, proposer
        self._awaited: dict[str, int] = {}  # member that listens → the index from which on it has to have every chunk

    async def add(self, name: str, peer: str, url: str, *, timeout_s: float | None = None) -> bool:
        """Let a member listen; True if it is new. Its machine must start with an empty data directory. Conflict if a
        member has that id or address."""
        record = _record(name, peer, url)
        return await self._carry_out(lambda left_s: self._add(record, left_s), timeout_s)

    async def _add(self, record: MemberRecord, timeout_s: float) -> bool:
        present = self._consensus.configuration
        known = present.get(record.id)
        if known is not None and (known.peer, known.url) == (record.peer, record.url):
            await self._confirm(record.id, known, timeout_s)
            return False
        for member in present.members:
            if member.id == record.id or member.peer == record.peer or member.url == record.url:
                raise Conflict(
                    f"{member.id} is a member already, at {member.peer} and {member.url}; to put another machine in "
                    f"its place: raftfs cluster replace {member.id}",
                    outcome="not_applied",
                )
        await self._change(record.id, None, record, timeout_s)
        log.info("added %s at %s; it votes when it has caught up", record.id, record.peer)
        return True

    async def remove(self, name: str, *, force: bool = False, timeout_s: float | None = None) -> None:
        """End a membership. NotFound, Conflict; Unavailable (not applied) while the others lack chunks, which
        ``force`` puts up with."""
        self._proposer.require_leader()
        known = self._consensus.configuration.get(name)
        meant = "" if known is None else known.uuid
        await self._carry_out(lambda left_s: self._remove(name, meant, force, left_s), timeout_s)

    async def _remove(self, name: str, meant: str, force: bool, timeout_s: float) -> None:
        record = self._consensus.configuration.get(name)
        if record is None or meant not in ("", record.uuid):
            await self._confirm(name, record, timeout_s)
            self._known(name)
            return  # it went, and this is one that came meanwhile
        rest = self._consensus.configuration.without(name)
        if not rest.voters:
            raise Conflict(f"{name} is the only member that votes", outcome="not_applied")
        if name == self._cluster.node_id:
            await self._consensus.transfer(timeout_s=timeout_s)
            self._proposer.require_leader()
            raise Unavailable("no member can take the leadership over", outcome="not_applied", retry_after_s=1.0)
        if record.voter:
            await self._require_chunks(rest, force, timeout_s)
        await self._change(name, record, None, timeout_s)
        log.info("removed %s", name)

    async def replace(
        self, name: str, peer: str | None = None, url: str | None = None, *, uuid: str | None = None,
        force: bool = False, timeout_s: float | None = None,
    ) -> None:  # fmt: skip
        """Put an empty machine in the place of a member that is lost: its old data directory is never listened to
        again. Addresses default to the old ones. ``uuid``: that of the lost directory. Whoever names it may ask as
        often as he likes, as a second request does nothing to the machine that came after the first. Conflict if the
        member is reachable, or was some seconds ago."""
        self._proposer.require_leader()
        old = self._known(name)
        new = _record(name, peer or old.peer, url or old.url)
        meant = old.uuid if uuid is None else uuid
        await self._carry_out(lambda left_s: self._replace(new, meant, force, left_s), timeout_s)

    async def _replace(self, new: MemberRecord, meant: str, force: bool, timeout_s: float) -> None:
        name, old = new.id, self._known(new.id)
        moves = (old.peer, old.url) != (new.peer, new.url)
        for member in self._consensus.configuration.members:
            if member.id != name and (member.peer == new.peer or member.url == new.url):
                raise Conflict(f"{member.id} has that address", outcome="not_applied")
        if not moves and not old.voter and not old.uuid:
            return await self._confirm(name, old, timeout_s)  # done already, and nobody has come yet
        alive = (await self._cluster.ask_all())[name] is not None or self._is_connected(name)
        if old.uuid != meant:
            if alive and meant and not moves:
                return await self._confirm(name, old, timeout_s)  # done already, and the new machine has come
            raise Conflict(
                f"the data directory of {name} is another one now (uuid {old.uuid or 'none yet'}) than the one that is "
                f"to be replaced ({meant or 'none yet'}); look at the members again: raftfs cluster status",
                outcome="not_applied",
            )
        if alive:
            # One that is busy may not answer in time. To replace it would shut its data directory out for good.
            raise Conflict(f"{name} is alive; stop it first, or remove it", outcome="not_applied")
        if old.voter:
            await self._require_chunks(self._consensus.configuration.without(name), force, timeout_s)
        await self._change(name, old, new, timeout_s)
        log.info("%s gets a new data directory, at %s; it votes when it has caught up", name, new.peer)

    async def transfer(self, to: str | None = None, *, timeout_s: float | None = None) -> None:
        """Hand the leadership to ``to``, or to the member with the newest log. NotFound, Conflict, Unavailable."""
        self._proposer.require_leader()
        if to == self._cluster.node_id:
            return
        if to is not None and not self._known(to).voter:
            raise Conflict(f"{to} does not vote yet, so it cannot lead", outcome="not_applied")
        if not self._consensus.configuration.voters - {self._cluster.node_id}:
            raise Conflict("there is no other member that votes", outcome="not_applied")
        if not await self._consensus.transfer(timeout_s=self._proposer.timeout_s(timeout_s), to=to):
            raise Unavailable(
                f"{to or 'no other member'} did not take the leadership over in time", outcome="not_applied",
                retry_after_s=1.0,
            )  # fmt: skip

    async def round(self) -> None:
        """As leader, let members vote that have caught up: log, state and chunks."""
        configuration = self._consensus.configuration
        listening = {member.id: member for member in configuration.members if not member.voter}
        self._awaited = {name: index for name, index in self._awaited.items() if name in listening}
        if not self._consensus.is_leader or not listening:
            return
        commit = self._consensus.commit_index
        answers = await self._cluster.ask_all()
        for name, listener in sorted(listening.items()):
            since, answer = self._awaited.setdefault(name, commit), answers.get(name)
            if answer is not None and listener.uuid and _caught_up(answer, since, commit):
                await self._promote(listener)
                return  # one at a time

    async def _promote(self, listener: MemberRecord) -> None:
        """``listener`` as it was before it was asked what it has: that tells nothing of another data directory."""
        voter = msgspec.structs.replace(listener, voter=True)
        with suppress(_Overtaken):
            await self._change(listener.id, listener, voter, self._proposer.timeout_s(None))
            log.info("%s has caught up, and votes from now on", listener.id)

    async def _require_chunks(self, rest: Configuration, force: bool, timeout_s: float) -> None:
        """Wait until a majority of ``rest`` holds every chunk that is referenced by now. Raises Unavailable."""
        commit, loop = self._consensus.commit_index, asyncio.get_running_loop()
        ends_s = loop.time() + timeout_s
        need = len(rest.voters) // 2 + 1
        while True:
            answers = await self._cluster.ask_all()
            alive = {name: answer for name in rest.voters if (answer := answers.get(name)) is not None}
            whole = [name for name, answer in alive.items() if answer.complete_index >= commit]
            if len(whole) >= need or (force and len(alive) >= need):
                return
            self._proposer.require_leader()
            if loop.time() >= ends_s:
                raise Unavailable(
                    f"{need} of the members that would remain have to be there with every chunk; reachable are "
                    f"{', '.join(sorted(alive)) or 'none'}, complete {', '.join(sorted(whole)) or 'none'}. Try again "
                    "when they have caught up",
                    outcome="not_applied", retry_after_s=1.0,
                )  # fmt: skip
            await asyncio.sleep(limits.MEMBERS_POLL_S)

    async def _carry_out(self, work: Callable[[float], Awaitable[T]], timeout_s: float | None) -> T:
        """Do ``work``, which gets the seconds that are left, on the members as they are then: again if they became
        others while it waited."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + self._proposer.timeout_s(timeout_s)
        while True:
            self._proposer.require_leader()
            try:
                return await work(max(0.1, ends_s - loop.time()))
            except _Overtaken as overtaken:
                if loop.time() >= ends_s:
                    raise Conflict(str(overtaken), outcome="not_applied", retry_after_s=1.0) from None

    async def _confirm(self, name: str, known: MemberRecord | None, timeout_s: float) -> None:
        """That the member is what this leader's log says. The log may end with a change that another leader began and
        that will be lost: an equal configuration behind it, once committed, shows that it will not."""
        await self._change(name, known, known, timeout_s)

    async def _change(self, name: str, known: MemberRecord | None, new: MemberRecord | None, timeout_s: float) -> None:
        """Put ``new`` in the place of ``known`` (None: no member) as soon as the leader may. Raises _Overtaken once it
        is another one that has the name: whatever was looked at before says nothing of that one."""

        def change(now: Configuration) -> Configuration:
            if now.get(name) != known:
                raise ValueError(f"{name} became another member meanwhile")
            return now.without(name) if new is None else now.with_member(new)

        loop = asyncio.get_running_loop()
        ends_s = loop.time() + timeout_s
        while True:
            try:
                return await self._consensus.change_members(change, timeout_s=max(0.1, ends_s - loop.time()))
            except Conflict as conflict:
                if self._consensus.configuration.get(name) != known:
                    raise _Overtaken(f"{name} became another member meanwhile") from conflict
                if loop.time() >= ends_s:
                    raise
            await asyncio.sleep(limits.MEMBERS_POLL_S)

    def _is_connected(self, name: str) -> bool:
        peer = self._consensus.status().peers.get(name)
        return peer is not None and peer.connected

    def _known(self, name: str) -> MemberRecord:
        record = self._consensus.configuration.get(name)
        if record is None:
            members = ", ".join(sorted(self._consensus.configuration.ids))
            raise NotFound(f"{name!r} is not a member; members are {members}", outcome="not_applied")
        return record


def _caught_up(answer: NodeStatus, since: int, commit: int) -> bool:
    return answer.complete_index >= since and commit - answer.applied_index <= limits.PROMOTION_LAG_ENTRIES_MAX


def _record(name: str, peer: str, url: str) -> MemberRecord:
    """A member that listens, and whose data directory nobody has seen. Raises InvalidRequest."""
    try:
        checked = MemberConfig(id=name, peer=peer, url=url)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'member'}: {e['msg']}" for e in error.errors())
        raise InvalidRequest(f"not a member: {wrong}", outcome="not_applied") from None
    return MemberRecord(checked.id, checked.peer, checked.url.rstrip("/"), voter=False)
