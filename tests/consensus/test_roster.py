"""Who is listened to, under which name, and when a node without data may vote."""

from __future__ import annotations

import pytest

from raftfs.consensus import Configuration, MemberRecord, Roster, decode_configuration
from raftfs.consensus.membership import check_step, encode_configuration


def records(**uuids: str) -> Configuration:
    return Configuration(tuple(MemberRecord(n, f"{n}:1", f"http://{n}", uuid) for n, uuid in uuids.items()))


def roster(configuration: Configuration, index: int = 5, *, fresh: bool = False) -> Roster:
    return Roster(me="a", uuid="ua", configuration=configuration, index=index, fresh=lambda: fresh)


def learner(name: str, uuid: str = "") -> MemberRecord:
    return MemberRecord(name, f"{name}:1", f"http://{name}", uuid, voter=False)


def test_only_members_are_admitted() -> None:
    found = roster(records(a="ua", b="ub"))
    assert found.admit("b", "ub", False) is None
    assert "raftfs cluster add x" in str(found.admit("x", "ux", True))


def test_a_name_stands_for_one_data_directory() -> None:
    found = roster(records(a="ua", b="ub"))
    assert "raftfs cluster replace b" in str(found.admit("b", "another", True))
    assert "raftfs cluster replace b" in str(found.admit("b", "", False))


def test_at_the_formation_the_first_directory_that_comes_is_bound() -> None:
    found = roster(records(a="", b="", c=""), index=0)
    assert found.admit("b", "ub", True) is None
    assert found.admit("b", "another", True) is not None
    assert found.bound() == records(a="ua", b="ub", c="")


def test_a_new_member_comes_empty() -> None:
    found = roster(records(a="ua").with_member(learner("b")))
    assert "empty data directory" in str(found.admit("b", "ub", False))
    assert found.admit("b", "ub", True) is None
    assert found.admit("b", "ub", False) is None, "the same one, after it has got its first entries"


def test_a_replaced_member_is_another_directory() -> None:
    found = roster(records(a="ua", b="ub"))
    assert found.admit("b", "ub", False) is None
    found.follow(6, records(a="ua").with_member(learner("b")))
    found.settle(6)
    assert found.admit("b", "ub", False) is not None, "the old one"
    assert found.admit("b", "new", True) is None
    assert found.bound().get("b") == learner("b", "new")


def test_who_is_removed_is_heard_until_that_is_committed() -> None:
    """If it never is, another log wins, and it may be that member's: it must be heard to replace ours."""
    found = roster(records(a="ua", b="ub", c="uc"))
    found.follow(6, records(a="ua", c="uc"))
    found.settle(5)
    assert found.admit("b", "ub", False) is None
    found.follow(5, records(a="ua", b="ub", c="uc"))
    found.settle(9)
    assert found.admit("b", "ub", False) is None, "the removal was never committed, and is no part of the log any more"
    found.follow(10, records(a="ua", c="uc"))
    found.settle(10)
    assert "raftfs cluster add b" in str(found.admit("b", "ub", False))


def test_who_is_replaced_is_heard_until_that_is_committed() -> None:
    found = roster(records(a="ua", b="ub", c="uc"))
    found.follow(6, records(a="ua", c="uc").with_member(learner("b")))
    assert found.admit("b", "new", True) is not None
    assert found.admit("b", "ub", False) is None
    assert found.bound().get("b") == learner("b"), "and its old directory is not bound again"
    found.settle(6)
    assert found.admit("b", "ub", False) is not None
    assert found.admit("b", "new", True) is None
    assert found.bound().get("b") == learner("b", "new")


def gone(name: str) -> bool:
    return False


def newcomers(*uuids: str, fresh: bool = True) -> Roster:
    """``b`` listens and is bound to ``ub``; these other directories come under its name."""
    found = roster(records(a="ua").with_member(learner("b", "ub")))
    for uuid in uuids:
        assert found.admit("b", uuid, fresh) is not None
    return found


def test_a_listener_whose_directory_is_away_may_be_another_one() -> None:
    found = newcomers("new", "newer")
    assert found.bound().get("b") == learner("b", "ub"), "the bound one is connected"
    assert found.bound(gone).get("b") == learner("b", "newer")
    found.follow(6, found.bound(gone))
    assert found.admit("b", "newer", True) is None
    assert found.admit("b", "ub", False) is not None
    assert found.bound(gone) == found.configuration


def test_nobody_takes_a_name_over_with_data_nor_that_of_one_who_votes() -> None:
    assert newcomers("old", fresh=False).bound(gone).get("b") == learner("b", "ub")
    voting = roster(records(a="ua", b="ub"))
    assert voting.admit("b", "new", True) is not None
    assert voting.bound(gone) == voting.configuration


def test_a_listener_that_comes_back_keeps_its_name() -> None:
    found = newcomers("new")
    assert found.admit("b", "ub", False) is None
    assert found.bound(gone).get("b") == learner("b", "ub")


def test_one_that_came_before_the_change_has_to_come_again() -> None:
    found = newcomers("new")
    found.follow(6, records(a="ua", b="ub"))  # it votes now
    found.follow(7, records(a="ua").with_member(learner("b", "uc")))  # replaced, and bound to another one
    assert found.bound(gone).get("b") == learner("b", "uc")


def test_what_another_member_shows_says_where_members_are_and_not_who_counts() -> None:
    found = roster(records(a="ua", b="ub"))
    newer = records(a="ua", b="ub", c="uc")
    found.learn(9, newer)
    assert set(found.book) == {"b", "c"}
    assert found.configuration == records(a="ua", b="ub")
    assert found.admit("c", "uc", False) is None
    found.learn(7, records(a="ua", x="ux"))  # older than what is known
    assert set(found.book) == {"b", "c"}
    found.follow(10, records(a="ua", b="ub"))  # c was removed again, and this log knows it
    assert set(found.book) == {"b"}


def test_what_another_member_showed_and_then_lost_is_forgotten() -> None:
    """The entry that it showed was replaced by another: the member that it named is none."""
    found = roster(records(a="ua", b="ub"))
    lost = records(a="ua", b="ub", c="uc")
    found.learn(9, lost)
    found.settle(8)
    assert found.admit("c", "uc", False) is None
    found.settle(9)
    assert set(found.book) == {"b"}
    assert found.admit("c", "uc", False) is not None
    found.learn(9, lost)  # by one that has not heard yet
    assert set(found.book) == {"b"}
    found.learn(10, lost)
    assert set(found.book) == {"b", "c"}


def test_a_node_without_data_votes_only_when_everybody_has_none() -> None:
    found = roster(records(a="", b="", c=""), index=0, fresh=True)
    assert not found.formed
    found.admit("b", "ub", True)
    found.admit("c", "uc", False)  # has data: a cluster is there already, and may have known this node
    assert not found.formed
    assert found.awaited == ["c"]
    found.admit("c", "uc", True)
    found.form()
    assert found.formed


def test_a_binding_that_is_lost_with_its_entry_is_made_again() -> None:
    """The new member has got entries by then, and is no stranger for that."""
    added = records(a="ua", c="uc").with_member(learner("b"))
    found = roster(added)
    assert found.admit("b", "ub", True) is None
    found.follow(6, found.bound())
    found.follow(5, added)
    found.settle(5)
    assert found.admit("b", "ub", False) is None
    assert found.bound().get("b") == learner("b", "ub")


def test_a_founder_is_remembered() -> None:
    kept: list[bool] = []
    bootstrap = records(a="", b="")
    found = Roster(
        me="a", uuid="ua", configuration=bootstrap, fresh=lambda: True, keep_founder=lambda: kept.append(found.formed)
    )
    found.form()
    assert kept == []
    found.admit("b", "ub", True)
    found.form()
    found.form()
    assert kept == [False], "once, before it votes"
    again = Roster(me="a", uuid="ua", configuration=bootstrap, founder=True)
    assert again.formed


def test_who_joins_does_not_vote_by_its_file() -> None:
    """It has learned a term, or a part of the log, and no configuration yet. Its file names another newcomer: together
    they are a majority of that file, and none of the cluster."""
    found = roster(records(a="", b="", c=""), index=0)
    found.admit("b", "ub", True)
    found.admit("c", "uc", False)
    found.form()
    assert not found.formed
    found.follow(7, records(c="uc").with_member(learner("a", "ua")).with_member(learner("b", "ub")))
    assert found.formed


def test_a_node_with_a_configuration_votes() -> None:
    assert roster(records(a="ua", b="ub")).formed


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (records(a="ua", b="ub", c="uc", d="", e=""), "at a time"),
        (records(a="ua"), "at a time"),
        (Configuration((learner("a"),)), "needs a voting member"),
        (records(a="ua", b="ub", c="another"), "data directory cannot become another"),
        (Configuration(tuple(MemberRecord(f"n{n}", "", "") for n in range(10))), "at most"),
        (Configuration((*records(a="ua", b="ub", c="uc").members, learner("b"))), "same id"),
    ],
)
def test_steps_that_are_refused(new: Configuration, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_step(records(a="ua", b="ub", c="uc"), new)


@pytest.mark.parametrize(
    "new",
    [
        records(a="ua", b="ub"),
        records(a="ua", b="ub", c="uc", d="ud"),
        records(a="ua", b="ub", c="uc").with_member(learner("d")),
        records(a="ua", b="ub", c="uc").with_member(learner("c")),
    ],
)
def test_steps_that_may_be_done(new: Configuration) -> None:
    check_step(records(a="ua", b="ub", c="uc"), new)


def test_a_configuration_survives_its_encoding_and_nothing_else_is_one() -> None:
    present = records(a="ua", b="").with_member(learner("c"))
    assert decode_configuration(encode_configuration(present)) == present
    for data in (b"", b"\x10", b"\x11", b"\x11\x91\x90", encode_configuration(Configuration((learner("a"),)))):
        with pytest.raises(ValueError, match="configuration"):
            decode_configuration(data)
