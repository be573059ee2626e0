"""Random schedules: one seed, one sequence of everything that may happen to a cluster, checked after each step.

Messages arrive in the order in which they were sent and are lost only when a connection breaks; nodes are killed or
lose power and start again; disks take their time; clocks jump. At the end all is well again, and the cluster must come
to rest with every promise kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from raftfs.testing.invariants import Acknowledged, Checker, Violation

from .cluster import Cluster
from .guarded_cluster import GuardedCluster, Read

WEIGHTS = {
    "deliver": 60.0,
    "tick": 30.0,
    "put": 6.0,
    "disk": 14.0,
    "connect": 4.0,
    "start": 1.5,
    "reset": 1.2,
    "crash": 0.6,
    "sleep": 0.7,
    "hold": 0.6,
    "release": 2.0,
    "late": 2.0,
    "read": 3.0,
    "checkpoint": 0.5,
    "damage": 1.0,
}
DAMAGES = [
    (log, state, term) for log in (False, True) for state in (False, True) for term in (False, True)
    if log or state or term
]  # fmt: skip
REST_S_MAX = 60.0  # virtual: after that a cluster that has not come to rest is stuck


class Schedule:
    def __init__(self, cluster: Cluster, seed: int, *, power: bool) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.power = power
        self.step = 0
        self.checker = Checker()
        self.proposals: list[tuple[int, Any]] = []
        self.unanswered: list[Any] = []
        self.answered_at: dict[str, int] = {}
        self.seen: dict[str, tuple[int, int]] = {}
        self.reads: list[tuple[str, Read]] = []
        for name in cluster.names:
            self._began(name)
        actions: dict[str, Callable[[], None]] = {
            "deliver": self._deliver, "tick": self._tick, "put": self._put, "disk": self._disk,
            "connect": self._connect, "start": self._start, "reset": self._reset, "crash": self._crash,
            "sleep": self._sleep, "hold": self._hold, "release": self._release,
        }  # fmt: skip
        if isinstance(cluster, GuardedCluster):
            actions |= {"late": self._late, "read": self._read, "checkpoint": self._checkpoint}
            if cluster.damages:
                actions |= {"damage": self._damage}
        self._actions = list(actions.values())
        self._weights = [WEIGHTS[name] for name in actions]

    def run(self, steps: int) -> None:
        """Raises Violation, or whatever a node raises that finds itself in a state that must not be."""
        for _ in range(steps):
            self.step += 1
            self.random.choices(self._actions, self._weights)[0]()
        self._come_to_rest()

    # --- what may happen -----------------------------------------------------------------------------------------

    def _live(self) -> list[str]:
        return sorted(self.cluster.nodes)

    def _any(self) -> str | None:
        live = self._live()
        return self.random.choice(live) if live else None

    def _deliver(self) -> None:
        busy = self.cluster.network.busy()
        if busy:
            source, target = self.random.choice(busy)
            self.cluster.network.deliver(source, target)
            self._look(target)

    def _late(self) -> None:
        late = self.cluster.network.late()
        if late:
            source, target = self.random.choice(late)
            self.cluster.network.deliver_late(source, target)
            self._look(target)

    def _tick(self) -> None:
        name = self._any()
        if name is not None:
            self.cluster.clock.advance(self.random.uniform(0, 0.04))
            self.cluster.tick(name)
            self._look(name)

    def _sleep(self) -> None:
        self.cluster.clock.advance(self.random.uniform(0.1, 1.0))

    def _put(self) -> None:
        leaders = [name for name in self._live() if self.cluster.is_leader(name)]
        if leaders:
            name = self.random.choice(leaders)
            for _ in range(self.random.choice((1, 1, 2, 6))):
                self._propose(name, f"{len(self.proposals)} " + "." * self.random.choice((0, 20, 60)))
            self._look(name)

    def _disk(self) -> None:
        name = self._any()
        if name is not None:
            self.cluster.disk_step(name)
            self._look(name)

    def _connect(self) -> None:
        network = self.cluster.network
        down = [link for link in network.links if not network.connected(*link) and set(link) <= set(self.cluster.nodes)]
        if down:
            link = self.random.choice(down)
            if isinstance(self.cluster, GuardedCluster):
                network.connect_one(*link)
            else:
                network.connect(*link)

    def _reset(self) -> None:
        network = self.cluster.network
        source, target = self.random.choice(network.links)
        for _ in range(self.random.randrange(4)):  # some of what is in flight still arrives
            if target in self.cluster.nodes and network.deliver(source, target):
                self._look(target)
        if isinstance(self.cluster, GuardedCluster):
            network.reset_one(source, target, late=self.random.random() < 0.5)
        else:
            network.reset(source, target)

    def _crash(self) -> None:
        name = self._any()
        if name is not None:
            self._crash_one(name)

    def _crash_one(self, name: str) -> None:
        power = self.power and self.random.random() < 0.6
        if isinstance(self.cluster, GuardedCluster):
            torn = random.Random(self.random.random()) if self.random.random() < 0.7 else None
            self.cluster.crash(name, power=power, torn=torn)
        else:
            self.cluster.crash(name, power=power)
        self.reads = [(at, read) for at, read in self.reads if at != name]

    def _damage(self) -> None:
        """A node dies and loses parts of its data, unless so many rejoin that another would leave no majority."""
        cluster = self.cluster
        assert isinstance(cluster, GuardedCluster)
        live = [name for name in self._live() if cluster.states[name].mark.stage is None]
        rejoining = sum(state.mark.stage is not None for state in cluster.states.values())
        if not live or 2 * (rejoining + 1) >= len(cluster.names):
            return
        name = self.random.choice(live)
        self._crash_one(name)
        log, state, term = self.random.choice(DAMAGES)
        cluster.damage(name, log=log, state=state, term=term)
        if term:
            del self.checker.terms[name]  # it was forgotten; that no harm comes of it is what is checked

    def _start(self) -> None:
        dead = [name for name in self.cluster.names if name not in self.cluster.nodes]
        if dead:
            name = self.random.choice(dead)
            self.cluster.start(name)
            self._began(name)

    def _hold(self) -> None:
        self.cluster.network.hold(*self.random.choice(self.cluster.network.links))

    def _release(self) -> None:
        self.cluster.network.release(*self.random.choice(self.cluster.network.links))

    def _checkpoint(self) -> None:
        name = self._any()
        if name is not None and isinstance(self.cluster, GuardedCluster):
            self.cluster.states[name].durable = self.cluster.applied_index(name)

    def _read(self) -> None:
        name = self._any()
        if name is not None and isinstance(self.cluster, GuardedCluster):
            self.reads.append((name, self.cluster.ask(name, list(self.answered_at))))

    # --- what must hold ------------------------------------------------------------------------------------------

    def _began(self, name: str) -> None:
        self.checker.restarted(name, self.cluster.applied_index(name))
        self._look(name)

    def _look(self, name: str) -> None:
        cluster, checker = self.cluster, self.checker
        term, leads = cluster.term(name), cluster.is_leader(name)
        begins_to_lead = leads and term not in checker.leaders
        # What was seen before stands, as long as the last of it does: two equal last entries, two equal logs.
        first, seen_term = (1, 0) if begins_to_lead or self.step % 64 == 0 else self.seen.get(name, (1, 0))
        log = cluster.log(name, first)
        if not log or (first > 1 and log[0][1] != seen_term):
            log = cluster.log(name)
        self.seen[name] = log[-1][:2]
        checker.observe(name, term=term, leads=leads, log=log)
        applied = cluster.applied_index(name)
        if applied > checker.positions[name]:
            for index, entry_term, data in cluster.log(name, checker.positions[name] + 1):
                if index <= applied:
                    checker.apply(name, node_term=term, index=index, term=entry_term, data=data)
        self._note_answers()
        self._check_reads(name, applied)

    def _note_answers(self) -> None:
        still_open = []
        for proposal in self.unanswered:
            if proposal.acknowledged:
                self.answered_at[proposal.value] = self.step
            else:
                still_open.append(proposal)
        self.unanswered = still_open

    def _check_reads(self, name: str, applied: int) -> None:
        for at, read in list(self.reads):
            if at != name or not read.answered or (read.index is not None and read.index > applied):
                continue
            self.reads.remove((at, read))
            if read.index is not None:
                missing = set(read.promised) - set(self.cluster.values(name))
                if missing:
                    raise Violation("linearizable read", f"{name} reads without {sorted(missing)}")

    def _come_to_rest(self) -> None:
        """Everybody starts, everything is connected, and one more write goes through."""
        cluster = self.cluster
        for name in cluster.names:
            if name not in cluster.nodes:
                cluster.start(name)
                self._began(name)
        cluster.network.connect_all()
        cluster.network.release_all()
        if isinstance(cluster, GuardedCluster):
            cluster.lazy_disk = False
        last: Any = None
        for _ in range(int(REST_S_MAX / 0.5)):
            cluster.run(0.5)
            for name in cluster.names:
                self._look(name)
            if last is None or last.refused or last.lost:
                last = self._last_put()
            elif last.acknowledged and self._all_are_back():
                break
        else:
            raise Violation("liveness", "the cluster did not come to rest")
        promises = [
            Acknowledged(proposal.value.encode(), proposed_at, self.answered_at[proposal.value])
            for proposed_at, proposal in self.proposals
            if proposal.value in self.answered_at
        ]
        states = {name: [value.encode() for value in cluster.values(name)] for name in self._members()}
        self.checker.finish(states, promises)

    def _members(self) -> list[str]:
        """Who has to have everything in the end."""
        return self.cluster.names

    def _all_are_back(self) -> bool:
        cluster = self.cluster
        if isinstance(cluster, GuardedCluster) and any(state.mark.stage for state in cluster.states.values()):
            return False
        return len({cluster.applied_index(name) for name in self._members()}) == 1

    def _last_put(self) -> Any:
        for name in self.cluster.names:
            if self.cluster.is_leader(name):
                self.step += 1
                return self._propose(name, f"last, at step {self.step}")
        return None

    def _propose(self, name: str, value: str) -> Any:
        proposal = self.cluster.put(name, value)
        self.proposals.append((self.step, proposal))
        self.unanswered.append(proposal)
        return proposal
