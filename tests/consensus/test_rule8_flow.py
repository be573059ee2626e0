"""Rule 8: bounded bytes in flight to each follower, no quadratic resending, no unbounded queue."""

from __future__ import annotations

from pysyncobj import FAIL_REASON

from raftfs.consensus import messages as m
from raftfs.consensus.journal import Journal, PyEntry
from raftfs.limits import COMMAND_BYTES_MAX, ENTRY_BYTES_MAX, PEER_BYTES_IN_FLIGHT_MAX, PEER_ENTRIES_IN_FLIGHT_MAX

from .guarded_cluster import GuardedCluster, GuardedMaker
from .plain_cluster import DiskJournal, PlainCluster, PlainMaker, Proposal

BATCH_BYTES = 1024


def entries_sent(cluster: PlainCluster, source: str, target: str) -> int:
    return sum(len(message.get("entries", ())) for message in cluster.network.in_flight(source, target))


def test_plain_pysyncobj_sends_200_commands_to_two_followers_as_40200_entries(plain: PlainMaker) -> None:
    cluster = plain(appendEntriesUseBatch=False)
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)
    for number in range(200):
        cluster.put("a", number)
    cluster.tick("a")
    sent = 0
    for follower in "bc":
        sent += entries_sent(cluster, "a", follower)
        network.deliver("a", follower, len(network.in_flight("a", follower)))
    assert sent == 400  # each entry once to each follower, as it should be
    while network.in_flight("b", "a"):  # but then, the followers' answers, one after the other
        before = sum(entries_sent(cluster, "a", follower) for follower in "bc")
        network.deliver("b", "a")
        network.deliver("c", "a")
        cluster.tick("a")
        sent += sum(entries_sent(cluster, "a", follower) for follower in "bc") - before
    assert cluster.values("a") == list(range(200))
    assert sent == 40_200


def test_plain_pysyncobj_cannot_replicate_payloads_of_some_sizes(plain: PlainMaker) -> None:
    """An entry over the batch size travels in parts; for some sizes the last part but one is marked as the last."""
    failing = []
    for size in range(2 * BATCH_BYTES - 60, 2 * BATCH_BYTES + 10):
        cluster = plain("ab", appendEntriesBatchSizeBytes=BATCH_BYTES)
        cluster.elect("a")
        cluster.run(0.2)
        command = Proposal(size)
        cluster.nodes["a"]._applyCommand(b"." * (size - 1), command, 0x10)
        try:
            cluster.run(0.5)
        except Exception:  # whatever unpickling half an entry raises, in the follower's message handler
            failing.append(size)
        else:
            assert command.answers == [(None, FAIL_REASON.SUCCESS)]
    assert len(failing) > 10
    assert failing == list(range(failing[0], 2 * BATCH_BYTES + 1))


def test_plain_pysyncobj_answers_after_a_tick_and_a_heartbeat_over_links_that_take_no_time(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    waits = []
    for number in range(10):
        cluster.run(0.5)
        started_s = cluster.clock.now_s
        write = cluster.put("a", number)
        while not write.acknowledged:
            cluster.run(0.05)
        waits.append(cluster.clock.now_s - started_s)
    assert sum(waits) / len(waits) > 0.1


def test_plain_pysyncobj_slices_its_whole_log_for_each_message(plain: PlainMaker) -> None:
    cluster = plain(appendEntriesBatchSizeBytes=BATCH_BYTES)
    cluster.elect("a")
    cluster.run(0.2)
    cluster.network.isolate("c")
    for number in range(4000):
        cluster.put("a", number)
    cluster.run(1.0)
    journal = cluster.nodes["a"]._SyncObj__raftLog
    assert isinstance(journal, DiskJournal)
    cluster.network.connect("a", "c")
    journal.largest_slice = 0
    cluster.clock.advance(0.2)
    cluster.tick("a")
    assert max(len(message["entries"]) for message in cluster.network.in_flight("a", "c")) < 100
    assert journal.largest_slice >= 4000


def appended(cluster: GuardedCluster, source: str, target: str) -> list[m.WireEntry]:
    """The entries in flight on a link."""
    messages = [m.decode(raw) for raw in cluster.network.in_flight(source, target)]
    return [entry for message in messages if isinstance(message, m.Append) for entry in message.entries]


def test_raftfs_sends_200_commands_to_two_followers_as_400_entries(guarded: GuardedMaker) -> None:
    cluster = guarded()
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)
    for number in range(200):
        cluster.put("a", f"{number}")
    sent = 0
    for follower in "bc":
        sent += len(appended(cluster, "a", follower))
        network.deliver("a", follower, len(network.in_flight("a", follower)))
    while network.in_flight("b", "a"):
        network.deliver("b", "a")
        network.deliver("c", "a")
        cluster.tick("a")
    sent += sum(len(appended(cluster, "a", follower)) for follower in "bc")
    assert cluster.values("a") == [f"{number}" for number in range(200)]
    assert sent == 400


def test_raftfs_replicates_payloads_of_every_size(guarded: GuardedMaker) -> None:
    cluster = guarded("ab")
    cluster.elect("a")
    cluster.run(0.2)
    sizes = [1, *(2**power + more for power in range(10, 20) for more in (-30, -1, 0, 1))]
    sizes.append(ENTRY_BYTES_MAX + COMMAND_BYTES_MAX)  # the largest batch, and more than its framing needs
    writes = [cluster.put("a", "." * size) for size in sizes]
    cluster.run(0.5)
    assert all(write.acknowledged for write in writes)
    assert [len(value) for value in cluster.values("b")] == sizes


def test_raftfs_bounds_what_is_in_flight_to_a_follower_that_does_not_answer(guarded: GuardedMaker) -> None:
    cluster = guarded()
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)
    network.hold("a", "b")
    writes = [cluster.put("a", f"{number}" + "." * ENTRY_BYTES_MAX) for number in range(20)]
    for _ in range(8):
        cluster.run(0.05)
    in_flight = sum(len(entry.data) for entry in appended(cluster, "a", "b"))
    assert PEER_BYTES_IN_FLIGHT_MAX <= in_flight <= PEER_BYTES_IN_FLIGHT_MAX + ENTRY_BYTES_MAX + COMMAND_BYTES_MAX
    assert all(write.acknowledged for write in writes)  # c is quick, and is not held up by b
    network.release("a", "b")
    cluster.run(1.0)
    assert cluster.values("b") == cluster.values("a")


def test_raftfs_sends_a_long_log_of_small_entries_in_parts(guarded: GuardedMaker) -> None:
    """Thousands of entries fit into the bytes in flight; reading them all at once would hold up the leader's loop."""
    cluster = guarded()
    cluster.elect("a")
    cluster.network.isolate("c")
    count = 4 * PEER_ENTRIES_IN_FLIGHT_MAX
    for number in range(count):
        cluster.put("a", str(number))
    cluster.run(0.5)
    cluster.network.connect("a", "c")
    cluster.network.hold("a", "c")
    cluster.run(0.5)
    waiting = [m.decode(raw) for raw in cluster.network.in_flight("a", "c")]
    in_flight = sum(len(message.entries) for message in waiting if isinstance(message, m.Append))
    assert 0 < in_flight <= PEER_ENTRIES_IN_FLIGHT_MAX
    cluster.network.release_all()
    cluster.run(2)
    assert len(cluster.values("c")) == count


class WatchedJournal(Journal):
    looked_at = 0

    def py_entry(self, index: int) -> PyEntry:
        self.looked_at += 1
        return super().py_entry(index)


def test_a_leader_does_not_walk_over_all_that_a_member_lacks_for_each_part_of_it(guarded: GuardedMaker) -> None:
    """For each message, PySyncObj would look at every entry up to four megabytes; the guard sends 512 of them."""
    cluster = guarded(journal=WatchedJournal)
    cluster.elect("a")
    cluster.network.isolate("c")
    count = 4 * PEER_ENTRIES_IN_FLIGHT_MAX
    for number in range(count):
        cluster.put("a", str(number))
    cluster.run(0.5)
    journal = cluster.nodes["a"].journal
    assert isinstance(journal, WatchedJournal)
    before = journal.looked_at
    cluster.network.connect("a", "c")
    cluster.run(2)
    assert len(cluster.values("c")) == count
    assert journal.looked_at - before < count


def test_raftfs_answers_at_once_over_links_that_take_no_time(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    started_s = cluster.clock.now_s
    for number in range(10):
        write = cluster.put("a", f"{number}")
        cluster.network.drain()
        cluster.tick("a")
        assert write.acknowledged
    assert cluster.clock.now_s - started_s < 0.01  # virtual: a few readings of the clock


def test_raftfs_reads_as_much_of_its_log_as_it_sends(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2)
    cluster.network.isolate("c")
    for number in range(400):
        cluster.put("a", f"{number}")
    cluster.run(0.2)
    journal = cluster.nodes["a"].journal
    tail = journal[0:]
    assert len(tail) == len(tail[:-1]) + 1 > 400
    assert not isinstance(tail, list)  # a view: nothing is read before it is asked for
    cluster.network.connect("a", "c")
    cluster.run(0.5)
    assert cluster.values("c") == cluster.values("a")
