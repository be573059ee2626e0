"""What is wrong with a cluster, and what to do about it: every member is asked over its own client port.

``look`` asks; ``examine`` judges what was answered, and does nothing else, so that it can be tested with answers that
no healthy cluster gives. A finding says what is wrong, where, and what to do; no finding means that nothing is wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal

from raftfs import limits
from raftfs.errors import RaftfsError
from raftfs.models import CertificateReport, ClusterStatus, Member, NodeReport

if TYPE_CHECKING:
    from raftfs.client.asyncclient import AsyncClient

Severity = Literal["critical", "warning"]

_CHECKS_OF_THEIR_OWN: Final = ("leader", "lag", "format", "disk", "whole")
"""What is judged here with more knowledge than the one node has whose readiness check failed."""

_PASSING: Final = frozenset({"member", "endpoint", "peer", "leader", "quorum", "lag", "chunks", "ready", "states"})
"""Findings that may be gone a moment later by themselves."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``critical``: the cluster does not serve, or data are in danger. ``warning``: it serves, with less to spare than
    it should have. ``about`` is a stable word, ``where`` a member's id, a URL or ``cluster``."""

    severity: Severity
    about: str
    where: str
    what: str
    do: str


@dataclass(frozen=True, slots=True)
class View:
    """What came back from one member's own client port. ``asked_ms`` and ``answered_ms`` are by the clock of whoever
    asked, around the question. Without a ``status``, ``error`` says why."""

    id: str
    url: str
    status: ClusterStatus | None
    error: str
    asked_ms: float
    answered_ms: float

    @property
    def report(self) -> NodeReport | None:
        return None if self.status is None else self.status.node

    @property
    def ahead_ms(self) -> tuple[float, float] | None:
        """How far its clock is ahead of that of whoever asked: at least and at most."""
        if self.report is None:
            return None
        return self.report.time_ms - self.answered_ms, self.report.time_ms + 1 - self.asked_ms


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, the most severe first, and what it was judged by."""

    cluster_id: str
    findings: tuple[Finding, ...]
    views: tuple[View, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape of ``raftfs doctor --json``."""
        members = [
            {
                "id": view.id,
                "url": view.url,
                "answers": view.status is not None,
                "error": view.error or None,
                "node": None if view.report is None else view.report.model_dump(),
            }
            for view in self.views
        ]
        findings = [asdict(finding) for finding in self.findings]
        return {"cluster_id": self.cluster_id, "ok": not findings, "findings": findings, "members": members}


async def diagnose(client: AsyncClient) -> Diagnosis:
    """Examine the cluster of a client. Looks again, a few times, while something is wrong that may pass by itself; and
    for longer, if all that is wrong are chunks that members lack, of those that were referenced at the first look.

    Raises Unavailable or DeadlineExceeded if none of the client's endpoints answers.
    """
    begin, goal, looks = time.monotonic(), None, 0
    while True:
        found, applied = await _once(client, goal)
        goal, looks = applied if goal is None else goal, looks + 1
        passing = {finding.about for finding in found.findings} & _PASSING
        fetching = passing == {"chunks"} and time.monotonic() - begin < limits.DOCTOR_CHUNKS_S_MAX
        if not passing or not (looks < limits.DOCTOR_LOOKS_MAX or fetching):
            return found
        await asyncio.sleep(limits.DOCTOR_LOOK_PAUSE_S)


async def _once(client: AsyncClient, goal: int | None) -> tuple[Diagnosis, int]:
    """And up to where the log was applied."""
    first = await client.cluster_status()
    views = await look(client, first.members)
    endpoints = await _endpoints(client) if len(client.options.endpoints) > 1 else []
    findings = [*endpoints, *examine(first, views, goal)]
    findings.sort(key=lambda finding: finding.severity)  # "critical" comes before "warning"
    applied = max((member.applied_index or 0 for member in first.members), default=0)
    return Diagnosis(first.cluster_id, tuple(findings), tuple(views)), applied


async def look(client: AsyncClient, members: Iterable[Member]) -> list[View]:
    """Ask every member at once over its own URL."""
    return list(await asyncio.gather(*(_ask(client, member.id, member.url) for member in members)))


async def _ask(client: AsyncClient, name: str, url: str) -> View:
    seconds = min(limits.DOCTOR_ASK_S_MAX, client.options.deadline_s)
    options = replace(client.options, endpoints=(url,), deadline_s=seconds, attempt_s=seconds)
    asked_ms = time.time() * 1000
    try:
        async with type(client).from_options(options) as own:
            asked_ms = time.time() * 1000
            status, error = await own.cluster_status(), ""
    except RaftfsError as problem:
        status, error = None, problem.detail
    return View(name, url, status, error, asked_ms, time.time() * 1000)


async def _endpoints(client: AsyncClient) -> list[Finding]:
    """Every server that the client was told of has to answer, frontends too."""
    views = await asyncio.gather(*(_ask(client, url, url) for url in client.options.endpoints))
    return [
        Finding(
            "warning",
            "endpoint",
            view.url,
            f"this endpoint does not answer: {view.error}",
            "start the frontend or node there, or do not name it any more",
        )
        for view in views
        if view.status is None
    ]


def examine(first: ClusterStatus, views: list[View], goal: int | None = None) -> list[Finding]:
    """What is wrong by these answers; ``first`` is that of the server that was asked first. ``goal``: up to which entry
    of the log members have to have every chunk; None: all that are referenced by now."""
    findings = [*_reachable(first, views), *_leader(views), *_redundancy(first)]
    best = _best(first, views)
    answering = {view.id for view in views if view.status is not None}
    findings += [*_members(best, answering, goal), *_states(views), *_formats(best), *_versions(views), *_clocks(views)]
    for view in views:
        findings += _node(view)
    return findings


def _best(first: ClusterStatus, views: list[View]) -> ClusterStatus:
    """The leader's view, which knows the most; else that of the newest term."""
    answers = [first, *(view.status for view in views if view.status is not None)]
    leading = [a for a in answers if a.leader is not None and a.node is not None and a.leader.id == a.node.id]
    return max(leading or answers, key=lambda answer: (answer.quorum, answer.term))


def _voters(status: ClusterStatus) -> list[Member]:
    return [member for member in status.members if member.role != "learner"]


def _reachable(first: ClusterStatus, views: list[View]) -> Iterator[Finding]:
    voters = {member.id for member in _voters(first)}
    up = {view.id for view in views if view.status is not None} & voters
    majority = len(voters) // 2 + 1
    for view in views:
        if view.status is None:
            spare = len(up) - majority
            rest = f"{spare} more may fail" if spare > 0 else "no other one may fail"
            yield Finding(
                "warning",
                "member",
                view.id,
                f"does not answer at {view.url}: {view.error}" + (f"; {rest}" if spare >= 0 else ""),
                "look at its machine, its service and its log; if its disk is lost, `raftfs cluster replace` puts an "
                "empty one in its place",
            )
        elif view.report is not None and (view.report.id, view.status.cluster_id) != (view.id, first.cluster_id):
            yield Finding(
                "critical",
                "member",
                view.id,
                f"at {view.url} answers {view.report.id} of cluster {view.status.cluster_id} instead",
                "correct the addresses: each member's url must lead to its own node",
            )
    if len(up) < majority:
        yield Finding(
            "critical",
            "quorum",
            "cluster",
            f"only {len(up)} of {len(voters)} voting members answer: no quorum, so "
            "nothing can be written, and only stale reads are answered",
            "bring members back until a majority runs; only if disks are lost for good: `raftfs recover --dry-run`",
        )


def _leader(views: list[View]) -> Iterator[Finding]:
    """A member goes on naming a leader that has fallen silent; ``quorum`` says whether it has heard from it lately."""
    claims = {
        (view.status.term, view.status.leader.id)
        for view in views
        if view.status is not None and view.status.leader is not None and view.status.quorum
    }
    if not claims:
        yield Finding(
            "critical",
            "leader",
            "cluster",
            "no member that answers hears a leader",
            "see to it that a majority runs and that the members reach each other's peer ports",
        )
        return
    newest = max(term for term, _ in claims)
    leaders = sorted(leader for term, leader in claims if term == newest)
    if len(leaders) > 1:
        yield Finding(
            "critical",
            "leader",
            "cluster",
            f"two leaders in term {newest}: {', '.join(leaders)}",
            "stop all but one of them and keep all data directories: this must never happen",
        )
    for view in views:
        status = view.status
        if status is not None and (status.leader is None or not status.quorum or status.term < newest):
            yield Finding(
                "warning",
                "leader",
                view.id,
                "it does not hear the leader that others hear",
                "see whether it reaches the others' peer ports, and they its own",
            )


def _redundancy(first: ClusterStatus) -> Iterator[Finding]:
    count = len(_voters(first))
    if count == 1 and len(first.members) == 1:
        yield Finding(
            "warning", "redundancy", "cluster", "one member alone keeps all data", "add two: `raftfs cluster add`"
        )
    elif count % 2 == 0:
        yield Finding(
            "warning",
            "redundancy",
            "cluster",
            f"{count} members may lose no more of them than {count - 1} may",
            "add one, or remove one",
        )


def _members(best: ClusterStatus, answering: set[str], goal: int | None) -> Iterator[Finding]:
    asked = "the server that was asked first" if best.node is None else best.node.id
    for member in best.members:
        if member.id in answering and not member.reachable and not member.refused:
            yield Finding(
                "warning",
                "peer",
                member.id,
                f"answers on its client port, but not {asked} on its peer port",
                f"see whether {member.peer} can be reached from the other members (address, firewall, certificates)",
            )
        if member.role == "learner":
            yield Finding(
                "warning",
                "learner",
                member.id,
                "does not vote yet: it is still getting log and chunks",
                "wait; `raftfs cluster status` shows how far it is",
            )
        if member.refused:
            yield Finding("warning", "refused", member.id, f"refuses a node: {member.refused}", "do what it says")
        if member.rejoining:
            yield Finding(
                "warning",
                "rejoining",
                member.id,
                f"takes no part while it gets its data back: {member.rejoining}",
                "wait, and keep the others running; think about its disk",
            )
        elif member.lag is not None and member.lag > limits.DOCTOR_LAG_ENTRIES_MAX:
            yield Finding(
                "warning",
                "lag",
                member.id,
                f"is {member.lag} log entries behind",
                "wait until it has caught up; if the number grows, its disk or network is too slow",
            )
        if member.missing_chunks and not _has_chunks(member, goal):
            yield Finding(
                "warning",
                "chunks",
                member.id,
                f"lacks {member.missing_chunks} chunks, which have a copy less",
                "wait until it has fetched them; if the number stays, its log says why",
            )


def _has_chunks(member: Member, goal: int | None) -> bool:
    """Whether all that it lacks came after ``goal``: while files are written, some chunk is always about to come. If it
    has looked at everything that it has applied, what it lacks is what nobody can give it."""
    if goal is None or member.complete_index is None or member.applied_index is None:
        return False
    return goal <= member.complete_index < member.applied_index


def _states(views: list[View]) -> Iterator[Finding]:
    hashes: dict[int, dict[str, str]] = {}
    for view in views:
        if view.status is not None and view.status.applied_index and view.status.state_hash:
            hashes.setdefault(view.status.applied_index, {})[view.id] = view.status.state_hash
    for index, by_member in hashes.items():
        if len(set(by_member.values())) > 1:
            yield Finding(
                "critical",
                "states",
                ",".join(sorted(by_member)),
                f"their states differ at entry {index}",
                "stop writing, keep all data directories and report this: it must never happen",
            )


def _formats(best: ClusterStatus) -> Iterator[Finding]:
    understood = [member.formats for member in best.members if member.formats is not None]
    if not understood or best.format is None:
        return
    if best.format == 0:
        yield Finding(
            "critical",
            "format",
            "cluster",
            "it is being formed: not all of its members have been heard",
            "start every member; a new cluster needs all of them once",
        )
    elif best.format < (newest := max(formats.max for formats in understood)):
        behind = [member.id for member in best.members if member.formats is None or member.formats.max < newest]
        held_by = f"{', '.join(behind)} run an older release or are down" if behind else "auto_switch may be false"
        yield Finding(
            "warning",
            "format",
            "cluster",
            f"the data have format {best.format}, some members know {newest}: {held_by}",
            "finish the upgrade: install the same release on every member",
        )


def _versions(views: list[View]) -> Iterator[Finding]:
    versions = {view.id: view.report.version for view in views if view.report is not None}
    if len(set(versions.values())) > 1:
        shown = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield Finding(
            "warning",
            "version",
            "cluster",
            f"the members run different releases: {shown}",
            "finish the upgrade: install the same release on every member",
        )


def _clocks(views: list[View]) -> Iterator[Finding]:
    """Each against the middle of all. What the answer's way may explain is no difference."""
    spans = {view.id: span for view in views if (span := view.ahead_ms) is not None}
    if len(spans) < 2:
        return
    middle_ms = median(sum(span) / 2 for span in spans.values())
    for name, (least_ms, most_ms) in spans.items():
        apart_ms = max(least_ms - middle_ms, middle_ms - most_ms)
        if apart_ms > limits.DOCTOR_CLOCKS_APART_MS_MAX:
            side = "ahead of" if least_ms > middle_ms else "behind"
            yield Finding(
                "warning",
                "clock",
                name,
                f"its clock is {apart_ms / 1000:.1f} s {side} the others'",
                "see to its time synchronisation (chrony, systemd-timesyncd)",
            )


def _node(view: View) -> Iterator[Finding]:
    """What a node says of itself."""
    report = view.report
    if report is None:
        return
    where = f"{report.free_bytes} of {report.total_bytes} bytes are free on the disk of {report.data_dir}"
    if report.free_bytes < limits.DISK_FREE_BYTES_MIN:
        yield Finding("critical", "disk", view.id, f"{where}: writes will be refused", "make room, or enlarge the disk")
    elif report.free_bytes * 100 < report.total_bytes * limits.DOCTOR_DISK_FREE_PERCENTS_MIN:
        yield Finding("warning", "disk", view.id, where, "make room, or enlarge the disk, before it is full")
    for certificate in report.certificates:
        yield from _certificate(view.id, certificate)
    for check in report.checks:
        if not check.ok and check.name not in _CHECKS_OF_THEIR_OWN:
            yield Finding("warning", "ready", view.id, f"is not ready ({check.name}): {check.text}", "see its log")


def _certificate(where: str, certificate: CertificateReport) -> Iterator[Finding]:
    """By the clock of whoever asks."""
    if certificate.expires_ms is None:
        return
    left_s = certificate.expires_ms / 1000 - time.time()
    if left_s < limits.CERTIFICATE_WARNING_S:
        when = "has expired" if left_s < 0 else f"expires in {left_s / 86_400:.1f} days"
        yield Finding(
            "critical" if left_s < 0 else "warning",
            "certificate",
            where,
            f"its certificate ({certificate.name}) {when}",
            "put a new one in its place; the node takes it over by itself, or at once on SIGHUP",
        )
