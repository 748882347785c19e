"""What follows from each look at a queue. No services: see `workers/jobs/queues.py`."""

import math

import pytest

from relay.models import Drain
from workers.jobs.queues import DISARM_AFTER, LONGEST_MORE_SECONDS, MORE_SECONDS, WARM_SECONDS, Look, Queue

QUIET = Look(open_publishers=False, gaps=0, due_seconds=None, limited=False)


@pytest.fixture
def queue() -> Queue:
    made = Queue("mail", 1, 1, "jobs.mail")
    made.take(Drain("jobs.mail", 1, 1, 5000), 0.0)
    return made


def armed(queue: Queue, now: float = 0.0) -> Queue:
    """It found one job, then nothing, and has armed the bell."""
    queue.claimed(1, 100, None, now, listens=True)
    queue.claimed(0, 100, None, now, listens=True)
    assert queue.bell == "arm"
    assert queue.hungry
    queue.bell_set()
    return queue


def outcomes(queue: Queue) -> list[str]:
    return [end.result.outcome for end in queue.ended]


def test_a_backlog_wakes_another_process_at_once_and_then_every_so_often(queue):
    queue.claimed(100, 100, None, 1.0, listens=True)
    assert outcomes(queue) == ["more"]
    assert queue.hungry  # it goes on by itself
    queue.take(Drain("jobs.mail", 1, 2, 5000), 1.0)
    queue.claimed(100, 100, None, 1.01, listens=True)
    assert outcomes(queue) == ["more"]
    queue.claimed(100, 100, None, 1.01 + MORE_SECONDS, listens=True)
    assert outcomes(queue) == ["more", "more"]


def backlog_of(queue: Queue, seconds: float, began: float = 100.0) -> list[float]:
    """When it asked for another process, though each drain came back at once; full claims every 10 ms."""
    asked: list[float] = []
    for step in range(round(seconds * 100)):
        now = began + step / 100
        queue.claimed(100, 100, None, now, listens=True)
        if queue.drain is None:
            asked.append(now)
            queue.take(Drain("jobs.mail", 1, 2 + step, 5000), now)
    return asked


def test_a_backlog_that_no_other_process_takes_asks_for_one_less_and_less_often(queue):
    asked = backlog_of(queue, 62.0)
    assert len(asked) <= 6 + 60 / LONGEST_MORE_SECONDS
    assert asked[1] - asked[0] == pytest.approx(MORE_SECONDS, abs=0.011)
    assert asked[-1] - asked[-2] == pytest.approx(LONGEST_MORE_SECONDS, abs=0.011)
    # The next backlog asks at once, and soon again.
    assert backlog_of(queue, 0.2, began=300.0) == pytest.approx([300.0, 300.0 + MORE_SECONDS], abs=0.011)


def test_a_queue_that_had_work_is_listened_to_until_it_has_been_silent_for_a_while(queue):
    armed(queue).claimed(0, 100, QUIET, 0.0, listens=True)
    assert (outcomes(queue), queue.hungry) == ([], False)
    queue.rang()
    assert queue.hungry
    assert not queue.visited()  # a claim at once, without a look
    queue.claimed(0, 100, None, 4.9, listens=True)
    assert queue.hungry
    assert queue.visited()
    queue.claimed(0, 100, QUIET, 5.0, listens=True)
    assert not queue.hungry
    queue.ticked(WARM_SECONDS + 1, listens=True)
    assert outcomes(queue) == ["idle"]


def test_the_process_that_found_jobs_last_follows_the_bell_until_others_are_faster(queue):
    armed(queue).claimed(0, 100, QUIET, 0.0, listens=True)
    queue.ticked(WARM_SECONDS + 1, listens=True)
    assert (queue.drain, queue.rang(), queue.visited()) == (None, True, False)
    queue.claimed(1, 100, None, 20.0, listens=True)
    queue.visited()
    queue.claimed(0, 100, None, 20.0, listens=True)  # all that there was
    assert not queue.hungry
    assert queue.rang()
    queue.visited()
    queue.claimed(0, 100, None, 30.0, listens=True)
    assert not queue.rang()


def test_a_bell_that_rings_while_a_claim_is_under_way_is_heard(queue):
    assert armed(queue).visited()
    queue.rang()
    queue.claimed(0, 100, QUIET, 1.0, listens=True)
    assert queue.hungry


@pytest.mark.parametrize(
    ("look", "outcome"),
    [
        (QUIET, "idle"),
        (QUIET._replace(due_seconds=1.0), "later"),
        (QUIET._replace(due_seconds=600.0), "idle"),
        (QUIET._replace(open_publishers=True), "again"),
        (QUIET._replace(gaps=1), "again"),
    ],
)
def test_without_ears_a_drain_ends_when_nothing_is_found(queue, look, outcome):
    armed(queue).claimed(0, 100, look, 0.0, listens=False)
    assert outcomes(queue) == [outcome]


def test_what_no_bell_tells_of_is_looked_for_again_sooner_and_then_later(queue):
    armed(queue)
    pauses = []
    for _ in range(10):
        queue.claimed(0, 100, QUIET._replace(gaps=1), 0.0, listens=True)
        pauses.append(queue.look_at)
        queue.look_at = math.inf
    assert pauses[0] < 0.01 < pauses[-1] < 0.5
    assert pauses == sorted(pauses)
    # A publisher that was open when the bell was armed may not ring; one that came later does.
    queue.claimed(0, 100, QUIET, 0.0, listens=True)
    queue.claimed(0, 100, QUIET._replace(open_publishers=True), 0.0, listens=True)
    assert queue.look_at == math.inf


def test_a_drain_whose_pipeline_was_changed_unheard_ends_when_its_lease_is_renewed(queue):
    armed(queue).answered(queue.revision, 2.0)
    assert (outcomes(queue), queue.renew_at) == ([], pytest.approx(2.0 + 5 / 3))
    queue.answered(queue.revision + 1, 3.0)
    assert (outcomes(queue), queue.drain, queue.follows_bell) == (["more"], None, False)


def test_an_abandoned_drain_is_not_ended_here(queue):
    queue.answered(None, 2.0)
    assert (outcomes(queue), queue.drain) == ([], None)


def test_publishers_do_not_ring_while_each_claim_finds_something(queue):
    armed(queue)
    for _ in range(DISARM_AFTER):
        assert queue.bell is None
        queue.claimed(1, 100, QUIET, 0.0, listens=True)
    assert queue.bell == "disarm"
    queue.bell_set()
    queue.claimed(0, 100, None, 0.0, listens=True)
    assert queue.bell == "arm"


def test_a_drain_does_not_wait_long_for_a_slot(queue):
    queue.waits_for_room(0.5)
    assert outcomes(queue) == []
    queue.waits_for_room(1.5)
    assert outcomes(queue) == ["later"]
