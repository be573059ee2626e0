"""Who may talk to this node on the peer port, and under which identity.

A name alone proves nothing: a member whose disk was replaced has the same name and address, and has forgotten what it
voted for and acknowledged. So each data directory has a UUID that every greeting carries. The configuration binds names
to UUIDs; whoever comes with another one is refused. An unbound name (at the formation of a cluster, or added just now)
is bound to the first directory that is seen under it.

A member that does not vote has promised nothing yet. If another directory without data comes under its name while the
bound one is away, the leader binds the name to that one: as a removal and an addition would, or a `replace`.

A node without any data of its own cannot know whether it had some before. It votes only after it has heard all members
of its bootstrap configuration, each without data, too: whoever knew it under another UUID would have refused it then.
That is remembered durably. A node that joins a cluster never comes so far, and votes only by a configuration of the
log: the file that it began with may name other newcomers, and a majority of them is none of the cluster's. Sans-IO.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftfs.consensus.membership import Configuration, MemberRecord


class Roster:
    """``configuration`` is what the log or the bootstrap says; ``index`` is where in the log (0: bootstrap).

    ``uuid`` is this node's own; empty (tests of what lies below) means that nobody's is looked at. ``fresh`` says
    whether this node has no data of its own. ``founder``: it was there when the cluster was formed, which
    ``keep_founder`` remembers (durably when it returns).
    """

    def __init__(
        self, *, me: str, uuid: str, configuration: Configuration, index: int = 0,
        fresh: Callable[[], bool] = lambda: False, founder: bool = False,
        keep_founder: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.me, self.uuid, self.fresh = me, uuid, fresh
        self._founder, self._keep_founder = founder, keep_founder
        self.on_change: Callable[[], None] = lambda: None
        self.configuration, self.index = configuration, index
        self._learned: tuple[int, Configuration] = (0, configuration)
        self._settled = 0
        self._leaving: dict[str, MemberRecord] = {}  # whose end, as members or as this directory, is not committed
        self._seen: dict[str, str] = {me: uuid}
        self._without_data: set[str] = set()
        self._newcomers: dict[str, str] = {}  # UUIDs without data that came in the place of one that does not vote

    @property
    def checks(self) -> bool:
        """Whether identities are looked at."""
        return bool(self.uuid)

    @property
    def book(self) -> dict[str, MemberRecord]:
        """The other members to talk to. A configuration that somebody else showed, newer than this node's log, says
        where members are and nothing more: majorities are counted by the log alone."""
        records = {member.id: member for member in self.configuration.members} | self._leaving
        if self._learned[0] > self.index:
            records |= {member.id: member for member in self._learned[1].members}
        records.pop(self.me, None)
        return records

    def follow(self, index: int, configuration: Configuration) -> None:
        """The configuration that counts in this node's log. Who is no member by it any more, or with another data
        directory, is listened to until it is committed: if it never is, just that member may be the leader that has
        to replace it."""
        back = index < self.index  # entries were removed: nobody leaves by that, and who was seen was seen
        for member in (*self.configuration.members, *self._leaving.values()):
            record = configuration.get(member.id)
            if not back and (record is None or (member.uuid and not record.uuid)):
                self._leaving.setdefault(member.id, member)
            else:
                self._leaving.pop(member.id, None)
        self._leaving.pop(self.me, None)
        for name in [name for name in self._seen if name != self.me]:
            before, record = self.configuration.get(name), configuration.get(name)
            released = not back and before is not None and before.uuid and record is not None and not record.uuid
            if record is None or released or record.uuid not in ("", self._seen[name]):
                del self._seen[name]
        self._newcomers.clear()  # they come again
        self.index, self.configuration = index, configuration
        self.on_change()

    def settle(self, commit_index: int) -> None:
        """Entries up to ``commit_index`` are committed. What somebody showed of an index up to there is in this log,
        too, or will never be in any."""
        self._settled = max(self._settled, commit_index)
        if self.index < self._learned[0] <= self._settled:
            self._learned = (0, self.configuration)
            self.on_change()
        if self._leaving and commit_index >= self.index:
            for name in self._leaving:
                self._seen.pop(name, None)
            self._leaving.clear()
            self.on_change()

    def learn(self, index: int, configuration: Configuration) -> None:
        """A member shows what counts in its log."""
        if index > max(self.index, self._learned[0], self._settled):
            self._learned = index, configuration
            self.on_change()

    def admit(self, name: str, uuid: str, fresh: bool) -> str | None:
        """Whether a greeting by ``name`` from the data directory ``uuid`` is answered; if not, why."""
        record = self.book.get(name)
        if record is None:
            return f"{name!r} is not a member of this cluster; on one of its members: raftfs cluster add {name}"
        if not self.checks:
            return None
        known = record.uuid or self._seen.get(name)
        if known is not None and known != uuid:
            if fresh and uuid and record.uuid and not record.voter:
                self._newcomers[name] = uuid
            return (
                f"{name!r} comes with another data directory (uuid {uuid or 'none'}) than the member of that name "
                f"({known}); bring that directory back, or, if it is lost: raftfs cluster replace {name}"
            )
        if known is None and not record.voter and not fresh:
            return f"{name!r} is to join with data of another time; start it with an empty data directory"
        self._seen[name] = uuid
        self._newcomers.pop(name, None)
        if fresh:
            self._without_data.add(name)
        return None

    @property
    def formed(self) -> bool:
        """Whether this node may vote: by a configuration of the log, or by that of the bootstrap as a founder."""
        return not self.checks or self.index > 0 or self._founder

    def form(self) -> None:
        """Become a founder once all members of the bootstrap were heard, each without data. Raises OSError."""
        if not self.formed and self.fresh() and not self.awaited:
            self._keep_founder()
            self._founder = True

    @property
    def awaited(self) -> list[str]:
        """Members that a node without data has not heard yet without data of their own."""
        return sorted(self.configuration.ids - self._without_data - {self.me})

    def bound(self, is_here: Callable[[str], bool] = lambda name: True) -> Configuration:
        """The configuration with every UUID that was seen. ``is_here`` says of a member whether the directory that its
        name is bound to is connected: then nobody takes its place."""
        found = self.configuration
        for member in found.members:
            came: str | None = None
            if not member.uuid and member.id not in self._leaving:
                came = self._seen.get(member.id)
            elif member.uuid and not member.voter and not is_here(member.id):
                came = self._newcomers.get(member.id)
            if came:
                found = found.with_member(msgspec.structs.replace(member, uuid=came))
        return found
