"""Any role that can connect can send any text on the channels that schedulers listen to."""

import json
import re
from pathlib import Path

from tests.waiting import wait_until

CHANNELS = ["tide_outbox_notify", "tide_relay_drain", "tide_relay_config"]
LATE = 1_000_000_000
# Whatever a program might take apart; what is a name may be that of a pipeline here.
TEXTS = [
    "garbage", "", "[]", "{}", "null", "true", "1e999", "NaN", '"orders"', "orders\n", "órders", "\ud7ff\U0010ffff",
    "[" * 7999, "9" * 7999, "[9" + "9" * 5000 + "]", "orders" * 1000, "\x01\x1b[2J", "-", ".", "%s%n", "orders\u202e",
    *(json.dumps(value) for value in (
        ["orders"], ["orders", 1, 1, "idle", None], [["orders"], {}, [], 5, "x", "y"],
        ["orders", True, 1.5, None, [], {}], ["orders", 2**70, -1, "failed", LATE, True], [None] * 6,
        {"orders": 1}, ["orders", 1, 1, "failed", "soon", 0],
    )),
]  # fmt: skip


def resident_mb(pid: int) -> int:
    """The most memory that a process ever had."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) // 1024


def test_no_notification_ends_a_scheduler_delays_a_pipeline_or_fills_the_memory(fleet, pipelines):
    pipelines.make("orders")
    scheduler = fleet.scheduler(RELAY_DISCOVERY_INTERVAL="1h", RELAY_LOG_LEVEL="info")
    fleet.workers()
    pipelines.wait_delivered("orders", pipelines.publish("orders"), 60)
    peak = resident_mb(scheduler.pid)
    with pipelines.connect() as attacker:
        for channel in CHANNELS:
            for text in TEXTS:
                attacker.execute("select pg_notify(%s, %s)", [channel, text])
        row = pipelines.drain("orders")
        forged = [["orders", row["epoch"], row["number"] + n, "failed", LATE, False] for n in range(1, 20)]
        for text in (*map(json.dumps, forged), *["orders"] * 20):
            attacker.execute("select pg_notify('tide_relay_drain', %s)", [text])
        for _ in range(3):
            pipelines.wait_delivered("orders", pipelines.publish("orders"), 5)
        # Bursts are all on their way before the next statement of a listener is answered.
        for channel in CHANNELS:
            attacker.execute(
                "select count(pg_notify(%s, i || repeat('x', 7900))) from generate_series(1, 12000) i", [channel]
            )
            attacker.execute("select count(pg_notify(%s, 'n' || i)) from generate_series(1, 50000) i", [channel])
            pipelines.wait_delivered("orders", pipelines.publish("orders"), 20)
    ignored = "tide_relay_notifications_ignored_total"
    wait_until(lambda: scheduler.metric(ignored) >= 36_000, 20, "they are counted")
    assert scheduler.metric(ignored, channel="tide_relay_drain") >= 12_000
    assert 1 <= scheduler.text().count("hold no name") <= 2, "one line a minute"
    assert scheduler.is_running and scheduler.metric("tide_relay_database_losses_total") == 0
    assert resident_mb(scheduler.pid) < peak + 20
    verdict = pipelines.judge("orders")
    assert verdict.is_right and verdict.duplicates == 0, verdict
