"""What became of a batch: the offset moves over the longest settled prefix, and over nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from relay.drains.outbox import Settlement, settlement
from relay.models import Failure, Message

NOW = "2026-01-01T00:00:00.000000Z"


def messages(ids):
    return [Message(id_, None, b"1", b"{}", NOW) for id_ in ids]


def failure(index, permanent):
    return Failure(index, permanent, "too_large" if permanent else "timeout", "why")


@st.composite
def outcomes(draw):
    """Messages with gaps between their ids, and for some of them a failure, in any order."""
    gaps = draw(st.lists(st.integers(1, 5), max_size=20))
    ids = [10 + sum(gaps[: n + 1]) for n in range(len(gaps))]
    kinds = draw(st.lists(st.sampled_from(["ok", "ok", "dead", "later"]), min_size=len(ids), max_size=len(ids)))
    failures = [failure(n, kind == "dead") for n, kind in enumerate(kinds) if kind != "ok"]
    return ids, kinds, draw(st.permutations(failures))


@given(outcomes())
def test_everything_up_to_the_first_temporary_failure_is_settled_and_nothing_else(outcome):
    ids, kinds, failures = outcome
    settled = kinds.index("later") if "later" in kinds else len(kinds)
    found = settlement(messages(ids), failures, 10)
    assert found.offset_id == (ids[settled - 1] if settled else 10)
    assert found.delivered == kinds[:settled].count("ok")
    dead = {id_ for id_, kind in zip(ids[:settled], kinds[:settled], strict=True) if kind == "dead"}
    assert {id_ for id_, _ in found.dead} == dead
    assert found.delivered + len(found.dead) == settled
    assert (found.failure is None) == ("later" not in kinds)
    if found.failure:
        assert found.failure.index == settled


@given(outcomes())
def test_each_dead_letter_keeps_its_own_reason(outcome):
    ids, _, failures = outcome
    for id_, why in settlement(messages(ids), failures, 10).dead:
        assert why.permanent
        assert ids[why.index] == id_


def test_all_delivered():
    assert settlement(messages([3, 5, 9]), [], 0) == Settlement(9, 3)


def test_none_delivered_leaves_the_offset_where_it_was():
    lost = failure(0, permanent=False)
    assert settlement(messages([3, 5]), [lost], 2) == Settlement(2, failure=lost)


def test_a_dead_letter_lets_its_neighbours_go_on():
    dead = failure(1, permanent=True)
    assert settlement(messages([3, 5, 9]), [dead], 0) == Settlement(9, 2, ((5, dead),))


def test_a_dead_letter_after_a_temporary_failure_is_not_one_yet():
    """It is sent again, and then judged again."""
    lost, dead = failure(1, permanent=False), failure(2, permanent=True)
    assert settlement(messages([3, 5, 9]), [dead, lost], 0) == Settlement(3, 1, (), lost)


def test_an_empty_batch_settles_nothing():
    assert settlement([], [], 7) == Settlement(7)
