"""From what is known of a pipeline to its state: what failed, and whether that recovers."""

from datetime import UTC, datetime
from typing import Any

import pytest

from relay.operations.fleet import Process
from relay.operations.status_facts import Facts
from relay.operations.status_order import Rank, grouped, rank
from relay.operations.status_reasons import judge

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
WORKERS = Process("workers", "box", 8, "1", queues=["tide.reverse"], lacking=[])
SCHEDULER = {
    "scheduler_id": "s",
    "connected": True,
    "silent_seconds": 0.1,
    "host": "box",
    "pid": 7,
    "relay_group_id": "",
    "broker_trouble": None,
    "waiting": {},
}
FAILED: dict[str, Any] = {
    "outcome": "failed", "error_code": "timeout", "error": "pipeline 'p': NATS stream 'x': no answer", "retry_at": NOW,
    "retry_seconds": 12.0, "failures": 3, "needs_operator": False,
}  # fmt: skip
ERROR = "timeout: NATS stream 'x': no answer"
OVERDUE = "a retry is due but none begins: are workers running"


def facts(name: str = "p", **more: Any) -> Facts:
    """Of a reverse pipeline, which has no outbox that could say more."""
    row = {
        "name": name, "direction": "reverse", "enabled": True, "invalid_reason": None, "relay_group_id": None,
        "sink_type": None, "source_type": "memory", "inbox": "i", "outbox_id": None, "outbox": None,
        "outbox_enabled": None, "consumer_group": None, "offset_id": None, "lease_seconds": None, "lease_until": None,
        "outcome": None, "failures": 0, "error_code": None, "error": None, "error_at": None, "retry_at": None,
        "retry_seconds": None, "needs_operator": False, "ended_at": None, "delivered": 0, "dead_letters": 0,
        "dead_letters_ever": 0, "owner": "s", "lanes": 1, "lane": 0,
    }  # fmt: skip
    return Facts(row | more, [SCHEDULER], None, None, None, None, None, workers=[WORKERS])


@pytest.mark.parametrize(
    ("more", "state", "why"),
    [
        ({}, "retrying", ERROR),
        ({"needs_operator": True}, "broken", ERROR),
        ({"retry_seconds": -1.0}, "retrying", ERROR),
        ({"needs_operator": True, "retry_seconds": -60.0}, "broken", f"{ERROR}; {OVERDUE}"),
        ({"retry_seconds": -60.0}, "waiting", OVERDUE),
        ({"error": None}, "retrying", "its last drain failed"),
        # Someone has changed the pipeline: what was wrong may be so no more.
        ({"needs_operator": True, "retry_at": None, "retry_seconds": None}, "idle", "nothing to receive"),
        (
            {"needs_operator": True, "lease_seconds": 9.0, "lease_until": NOW},
            "draining",
            "a drain holds the lease until",
        ),
        ({"needs_operator": True, "enabled": False}, "disabled", "disabled: relay pipeline enable p"),
    ],
)
def test_what_failed_is_retrying_or_broken_until_a_drain_ends_otherwise(
    more: dict[str, Any], state: str, why: str
) -> None:
    status = judge(facts(**FAILED | more))
    assert status.state == state and status.why.startswith(why)
    assert status.why.count("no answer") == (0 if more.get("error", "") is None else 1), "each error is shown once"


def test_the_next_try_is_never_in_the_past_and_known_only_where_there_is_one() -> None:
    assert judge(facts(**FAILED)).retry_seconds == 12.0
    assert judge(facts(**FAILED | {"retry_seconds": -3.0})).retry_seconds == 0
    assert judge(facts(**FAILED | {"outcome": "idle"})).retry_seconds is None


def test_what_is_urgent_comes_first_and_those_with_the_same_reason_together() -> None:
    named: dict[str, dict[str, Any]] = {
        "a": {}, "b": FAILED, "c": FAILED | {"needs_operator": True}, "d": {"dead_letters": 1},
        "e": FAILED | {"error": "pipeline 'e': NATS stream 'x': no answer"}, "f": {"invalid_reason": "no"},
        "g": {"owner": None}, "h": FAILED | {"needs_operator": True, "error": "x"}, "i": {"enabled": False},
    }  # fmt: skip
    named["b"] = named["b"] | {"error": "pipeline 'b': NATS stream 'x': no answer"}
    found = [judge(facts(name, **more)) for name, more in named.items()]
    assert [[status.name for status in group] for group in grouped(found)] == [
        ["c"], ["f"], ["h"], ["b", "e"], ["g"], ["d"], ["a"], ["i"],
    ]  # fmt: skip
    assert [rank(status) for status in found if status.name in "fbd"] == [Rank.FAILING, Rank.DEAD, Rank.BROKEN]
