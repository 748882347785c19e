"""Who can write to the broker can put messages on the queues of workers that no scheduler emitted."""

from typing import Any

import dramatiq
import pytest

from relay.broker.factory import make_broker, serve
from relay.broker.queues import (
    DRAIN_ACTOR,
    DRAIN_QUEUES,
    MAINTENANCE_ACTOR,
    MAINTENANCE_QUEUE,
    drain_from,
    enqueue_drain,
    enqueue_maintenance,
)
from relay.models import Drain
from tests.waiting import wait_until

LARGEST = 2**63 - 1
GOOD = ("orders", 7, 1, 30_000)
NO_NAMES: list[Any] = [None, 1, [], "", "-", "a b", "orders\n", "x" * 101, "órders", "\ud800", "a\0b"]
NO_NUMBERS: list[Any] = [
    None,
    "7",
    True,
    False,
    7.0,
    1.5,
    -1,
    LARGEST + 1,
    10**400,
    float("nan"),
    float("inf"),
    [7],
    {},
]
NO_LEASES: list[Any] = [None, "9", True, 0, -5, 3_600_001, 10**30, 1e308]
WRONG: list[Any] = [
    (), ("orders",), (*GOOD, 1), [GOOD], "four", 4, None, {"pipeline": "orders"},
    *((wrong, 7, 1, 30_000) for wrong in NO_NAMES),
    *(("orders", wrong, 1, 30_000) for wrong in NO_NUMBERS),
    *(("orders", 7, wrong, 30_000) for wrong in NO_NUMBERS),
    *(("orders", 7, 1, wrong) for wrong in NO_LEASES),
]  # fmt: skip


def put(broker, queue, actor, args, **kwargs):
    broker.enqueue(
        dramatiq.Message(queue_name=queue, actor_name=actor, args=args, kwargs=kwargs, options={"max_age": 60_000})
    )


def test_only_what_a_scheduler_could_have_written_is_a_drain():
    assert drain_from(GOOD) == drain_from(list(GOOD)) == Drain(*GOOD)
    assert drain_from(("x" * 100, LARGEST, LARGEST, 3_600_000)).number == LARGEST
    for wrong in WRONG:
        with pytest.raises((ValueError, TypeError)):
            drain_from(wrong)


@pytest.mark.timeout(200)
def test_forged_messages_neither_hold_up_a_pipeline_nor_do_maintenance(fleet, pipelines):
    pipelines.make("orders", visibility_timeout_ms=600_000)
    scheduler = fleet.scheduler(RELAY_MAINTENANCE_INTERVAL="1h")
    workers = fleet.workers()
    pipelines.wait_delivered("orders", pipelines.publish("orders"), 60)
    done = "select done_at from tide.chore"
    wait_until(lambda: pipelines.run(done)[0][0], 30, "the first turn of maintenance is done")
    first = pipelines.run(done)
    broker = make_broker(fleet.broker_url)
    [(identity,)] = pipelines.run("select tide.database_identity()")
    serve(broker, lambda: identity)
    for args in WRONG:
        if isinstance(args, tuple) and "\ud800" not in args:
            put(broker, DRAIN_QUEUES["forward"], DRAIN_ACTOR, args)
    put(broker, DRAIN_QUEUES["forward"], DRAIN_ACTOR, GOOD, more=1)
    put(broker, MAINTENANCE_QUEUE, MAINTENANCE_ACTOR, (1, 2), more=1)
    for _ in range(20):
        enqueue_maintenance(broker, 3600)
    for ahead in (1, 5, LARGEST):
        before = pipelines.drain("orders")["epoch"]

        def has_cost_an_epoch(ahead=ahead, before=before):
            """A forged drain is dropped while another one runs."""
            row = pipelines.drain("orders")
            number = min(LARGEST, row["number"] + ahead)
            enqueue_drain(broker, Drain("orders", row["epoch"], number, 600_000), "forward")
            return row["epoch"] > before

        wait_until(has_cost_an_epoch, 10, "the next drain has another epoch")
        pipelines.wait_delivered("orders", pipelines.publish("orders"), 10)
    broker.close()
    refused = "tide_relay_refused_messages_total"
    wait_until(lambda: workers.metric(refused, code="arguments") >= 30, 20, "they are counted")
    assert workers.text().count("refused messages that the relay did not send") <= 2  # one for each process
    assert "Traceback" not in workers.text()
    assert scheduler.says("a drain ran that no scheduler emitted")
    assert pipelines.run(done) == first
    verdict = pipelines.judge("orders")
    assert verdict.is_right and verdict.duplicates == 0, verdict
