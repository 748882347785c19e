"""Outboxes, pipelines and messages, made in SQL as an application would."""

import random
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.faults.audit import Verdict, confirmed_ids, judge, read_publishes
from tests.fleets.recording_sink import Control
from tests.waiting import wait_until

Connection = psycopg.Connection[Any]

KEYS = (None, *(f"customer {number}" for number in range(24)))


class Pipelines:
    """The pipelines of a test, each from an outbox to a recording sink."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.outbox_of: dict[str, str] = {}
        self.with_lanes: set[str] = set()
        """Those that have, or had, several lanes: order is that of each key."""

    def connect(self) -> Connection:
        return psycopg.connect(self.url, autocommit=True)

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def make(self, name: str, outbox: str | None = None, **config: Any) -> None:
        """A new pipeline, or a new configuration of this one."""
        self.outbox_of[name] = outbox or name
        self.run("select tide.outbox_create_if_not_exists(%s)", self.outbox_of[name])
        self.set(name, **config)

    def set(self, name: str, **config: Any) -> None:
        recording = {"sink_type": "recording", "folder": str(self.folder)}
        given = config if "sink_type" in config else recording | config
        self.with_lanes |= {name} if "lanes" in config else set()
        self.run("select tide.relay_set_outbox(%s, %s, %s)", name, self.outbox_of[name], Jsonb(given))

    def clear(self) -> None:
        """Removes all pipelines and outboxes, and what they left. An outbox that is made again begins at 1."""
        self.run("select tide.relay_delete(name) from tide.pipeline")
        self.run("delete from tide.consumer_group")
        self.run("select tide.outbox_drop(name) from tide.outbox")
        self.run("truncate tide.dead_letter, tide.retention_loss, tide.pipeline_history")
        for path in self.folder.iterdir():
            path.unlink()
        self.outbox_of.clear()
        self.with_lanes.clear()

    def control(self, name: str, **how: Any) -> None:
        Control(**how).write(self.folder, name)

    def publish(self, outbox: str, count: int = 1) -> list[int]:
        """In one transaction."""
        statement = "select tide.outbox_publish_many(%s, array_fill('{\"n\": 1}'::jsonb, array[%s]))"
        return list(self.run(statement, outbox, count)[0][0])

    def delivered(self, name: str) -> list[int]:
        return confirmed_ids(self.folder, name)

    def attempts(self, name: str) -> int:
        """How many publishes began."""
        return len(read_publishes(self.folder, name))

    def wait_delivered(self, name: str, ids: list[int], timeout_seconds: float = 20) -> None:
        def has_all() -> bool:
            return set(ids) <= set(self.delivered(name))

        wait_until(has_all, timeout_seconds, f"pipeline {name} has delivered {ids[0]}..{ids[-1]}")

    def wait_settled(self, timeout_seconds: float = 30) -> None:
        """Until every message of every pipeline is."""
        for name in self.outbox_of:
            wait_until(partial(self.settled, name), timeout_seconds, f"pipeline {name} has settled everything")

    def wait_outcome(self, name: str, outcome: str = "idle", timeout_seconds: float = 20) -> None:
        """Until its last drain ended so."""
        wait_until(lambda: self.drain(name)["outcome"] == outcome, timeout_seconds, f"a drain of {name} ends {outcome}")

    def wait_attempts(self, name: str, count: int = 1, timeout_seconds: float = 20) -> None:
        """Until so many publishes have begun."""
        wait_until(lambda: self.attempts(name) >= count, timeout_seconds, f"{count} publishes of {name} have begun")

    def drain(self, name: str) -> dict[str, Any]:
        """Its row in tide.drain, and its offset."""
        with psycopg.connect(self.url, row_factory=psycopg.rows.dict_row) as connection:
            row = connection.execute(
                """select d.*, g.offset_id, d.lease_until > clock_timestamp() as leased
                     from tide.drain d join tide.pipeline p on p.name = d.pipeline
                     join tide.consumer_group g on g.group_id = p.group_id where d.pipeline = %s""",
                [name],
            ).fetchone()
            assert row is not None, f"there is no pipeline {name}"
            return row

    def dead_letters(self, name: str) -> list[int]:
        rows = self.run("select message_id from tide.dead_letter where pipeline = %s order by 1", name)
        return [row[0] for row in rows]

    def committed(self, outbox: str) -> list[int]:
        rows = self.run(
            "select m.id from tide.message m join tide.outbox o using (outbox_id) where o.name = %s order by 1", outbox
        )
        return [row[0] for row in rows]

    def keys(self, outbox: str) -> dict[int, str | None]:
        """Of each message."""
        rows = self.run(
            "select m.id, m.key from tide.message m join tide.outbox o using (outbox_id) where o.name = %s", outbox
        )
        return {row[0]: row[1] for row in rows}

    def settled(self, name: str) -> bool:
        """Whether every message is, with no transaction open that could add one."""
        [(done,)] = self.run(
            """select tide.settled_id(g.group_id) >= (tide.outbox_status(o.name)).last_id
                 from tide.pipeline p join tide.consumer_group g using (group_id) join tide.outbox o using (outbox_id)
                where p.name = %s""",
            name,
        )
        return bool(done)

    def judge(self, name: str, **processes: Any) -> Verdict:
        """`kills` and `frozen` of the fleet, see `audit.judge`."""
        publishes, outbox = read_publishes(self.folder, name), self.outbox_of[name]
        keys = self.keys(outbox) if name in self.with_lanes else None
        return judge(name, publishes, self.committed(outbox), self.dead_letters(name), keys=keys, **processes)

    def judge_all(self, **processes: Any) -> Verdict:
        verdict = Verdict()
        for name in self.outbox_of:
            verdict.add(self.judge(name, **processes))
        return verdict


class Writers:
    """Applications that publish at a rate, each in a thread: single messages and bulk, some rolled back, some slow.

    Every commit that was confirmed is in `confirmed`, by outbox. They outlive the loss of PostgreSQL.
    """

    def __init__(self, pipelines: Pipelines, outboxes: list[str], messages_per_second: float, threads: int = 3) -> None:
        self._pipelines, self._outboxes = pipelines, outboxes
        self._pause_seconds = threads / messages_per_second
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.confirmed: dict[str, list[int]] = {name: [] for name in outboxes}
        self.rolled_back = 0
        self._threads = [threading.Thread(target=self._write, args=(seed,), daemon=True) for seed in range(threads)]

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a writer did not stop"

    @property
    def published(self) -> int:
        with self._lock:
            return sum(map(len, self.confirmed.values()))

    def have_published(self, count: int) -> bool:
        return self.published >= count

    def _write(self, seed: int) -> None:
        chance = random.Random(seed)
        due = time.monotonic()
        connection: Connection | None = None
        while not self._stop.is_set():
            count = chance.choice((1, 1, 2, 5, 20, 50))
            try:
                connection = connection or self._pipelines.connect()
                self._transaction(connection, chance, count)
            except psycopg.OperationalError:
                connection = None
                self._stop.wait(0.1)
            due = max(due + count * self._pause_seconds, time.monotonic() - 1)
            self._stop.wait(max(0.0, due - time.monotonic()))
        if connection:
            connection.close()

    def _transaction(self, connection: Connection, chance: random.Random, count: int) -> None:
        outbox, rolled_back = chance.choice(self._outboxes), chance.random() < 0.05
        many = "select tide.outbox_publish_many(%s, array_fill('{}'::jsonb, array[%s]), %s)"
        keys = [chance.choice(KEYS) for _ in range(count)]
        with connection.transaction(force_rollback=rolled_back):
            # An unconfirmed commit may have happened: the audit takes what is committed from the table.
            if count > 2:
                [(ids,)] = connection.execute(many, [outbox, count, keys]).fetchall()
            else:
                one = "select tide.outbox_publish(%s, '{}', key => %s)"
                ids = [connection.execute(one, [outbox, key]).fetchall()[0][0] for key in keys]
            if chance.random() < 0.05:
                self._stop.wait(chance.uniform(0, 0.2))
        with self._lock:
            if rolled_back:
                self.rolled_back += count
            else:
                self.confirmed[outbox] += ids
