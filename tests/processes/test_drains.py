"""Single drains, run in this process on a real database: what each kind leaves behind, and when it ends."""

import json
import threading
import time
from contextlib import contextmanager

import pytest
from psycopg.types.json import Jsonb

from relay.models import Drain
from relay.settings import Settings
from relay.sinks import memory as sinks
from relay.sources import memory as sources
from tests.waiting import wait_until
from workers import drain as drains
from workers.tools import Tools


class Bench:
    """Tools of one worker, and a database with what drains need."""

    def __init__(self, database, threads=4, others_wait=lambda: False):
        self.database = database
        self.tools = Tools(Settings(postgres_url=database.url), threads, others_wait)
        self.db = database.connect()
        self.numbers = {}

    def close(self):
        self.tools.stop.set()
        self.tools.close()
        self.db.close()

    def query(self, statement, *parameters):
        cursor = self.db.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []

    def receive_into(self, inbox, pipeline="p", **config):
        self.query(
            "select tide.inbox_create(%s) where not exists (select from tide.inbox where name = %s)", inbox, inbox
        )
        config = {"source_type": "memory", "name": inbox, "batch_size": 10} | config
        self.query("select tide.relay_set_inbox(%s, %s, %s)", pipeline, inbox, Jsonb(config))
        return sources.log(config["name"])

    def publish_to(self, pipeline="p", **config):
        self.query("select tide.outbox_create_if_not_exists('orders')")
        self.query("select tide.relay_set_outbox(%s, 'orders', %s)", pipeline, Jsonb(config))

    def publish(self, count=1, payload=None):
        payloads = [Jsonb({"n": n} if payload is None else payload) for n in range(count)]
        return self.query("select tide.outbox_publish_many('orders', %s)", payloads)[0][0]

    def drain(self, pipeline="p"):
        """One drain; how it ended."""
        number = self.numbers[pipeline] = self.numbers.get(pipeline, 0) + 1
        drains.run(self.tools, Drain(pipeline, 0, number, 30_000))
        return self.query("select outcome from tide.drain where pipeline = %s", pipeline)[0][0]

    @contextmanager
    def draining(self, pipeline="p"):
        thread = threading.Thread(target=self.drain, args=[pipeline], daemon=True)
        thread.start()
        yield thread
        thread.join(20)
        assert not thread.is_alive(), "the drain did not end"

    def event_ids(self, inbox="commands"):
        return [row[0] for row in self.query(f"select event_id from tide.{inbox} order by inbox_seq")]

    def last(self, column, pipeline="p"):
        return self.query(f"select {column} from tide.drain where pipeline = %s", pipeline)[0][0]


@pytest.fixture
def bench(database):
    made = Bench(database)
    yield made
    made.close()
    for name in ("commands", "others"):
        sources.forget(name)
    sinks.forget()


# Reverse -------------------------------------------------------------------------------------------------------------


def test_a_backlog_becomes_rows_in_order_and_is_acknowledged(bench):
    log = bench.receive_into("commands", slice_ms=300)
    for n in range(57):
        log.send(b'{"n": %d}' % n)
    assert bench.drain() == "more"
    assert bench.event_ids() == [f"commands/{n}" for n in range(57)]
    assert log.acknowledged == set(range(57))
    assert bench.last("delivered") == 57


def test_a_message_that_comes_while_the_drain_waits_lands_at_once(bench):
    log = bench.receive_into("commands", slice_ms=20_000)
    with bench.draining():
        wait_until(lambda: bench.tools.waiting._free < 3, 10, "the drain waits on its source")
        for n in range(3):
            log.send(b"{}")
            wait_until(lambda n=n: len(bench.event_ids()) == n + 1, 5, "the message is in the inbox")
            wait_until(lambda n=n: n in log.acknowledged, 5, "and acknowledged, with nothing else coming")
        bench.tools.stop.set()


def test_nothing_is_acknowledged_before_it_is_committed(bench):
    log = bench.receive_into("commands", slice_ms=300)
    bench.query("alter table tide.commands add column slow text default pg_sleep(0.3)::text")
    log.send(b"{}")
    with bench.draining():
        while True:
            acknowledged = set(log.acknowledged)  # looked at before the rows: they may be committed in between
            if bench.event_ids():
                break
            assert not acknowledged
    assert log.acknowledged == {0}


def test_a_bad_message_is_a_dead_letter_and_its_neighbours_are_rows(bench):
    log = bench.receive_into("commands", slice_ms=200)
    for body in (b"1", b"{no", b"\xff", b"2"):
        log.send(body)
    bench.drain()
    assert bench.event_ids() == ["commands/0", "commands/3"]
    assert bench.query("select event_id, body, code from tide.dead_letter order by event_id") == [
        ("commands/1", b"{no", "refused"),
        ("commands/2", b"\xff", "not_utf8"),
    ]
    assert log.acknowledged == {0, 1, 2, 3}


@pytest.mark.parametrize("bad", [b"{no", b"\xff"], ids=["refused by PostgreSQL", "not decoded"])
def test_a_bad_message_may_stop_the_pipeline_and_loses_nothing(bench, bad):
    log = bench.receive_into("commands", slice_ms=200, on_invalid="stop")
    for body in (b"1", bad, b"2"):
        log.send(body)
    for _ in range(2):
        assert bench.drain() == "failed"
        assert bench.event_ids() == ["commands/0"]
    assert bench.query("select count(*) from tide.dead_letter") == [(0,)]
    assert "commands/1" in bench.last("error")
    assert log.acknowledged == {0}
    bench.receive_into("commands", slice_ms=200)
    assert bench.drain() == "more"
    assert bench.event_ids() == ["commands/0", "commands/2"]


def test_a_drain_resumes_from_the_position_even_if_no_acknowledgement_arrived(bench):
    log = bench.receive_into("commands", slice_ms=200)
    log.send(b"1")
    bench.drain()
    log.acknowledged.clear()
    bench.tools.sources.close()
    log.send(b"2")
    bench.drain()
    assert bench.event_ids() == ["commands/0", "commands/1"]
    assert bench.query("select position from tide.position") == [("1",)]


def test_a_source_is_kept_between_drains_but_not_if_another_worker_drained_meanwhile(bench):
    bench.receive_into("commands", slice_ms=50)
    bench.drain()
    [(_, first)] = bench.tools.sources._idle.values()
    bench.drain()
    [(_, again)] = bench.tools.sources._idle.values()
    assert again is first
    bench.numbers["p"] += 1  # another worker had the drain between
    bench.drain()
    [(_, new)] = bench.tools.sources._idle.values()
    assert new is not first


def test_a_source_that_is_down_fails_the_drain_and_works_later(bench):
    log = bench.receive_into("commands", slice_ms=200)
    log.send(b"1")
    log.stop()
    assert bench.drain() == "failed"
    assert bench.last("error_code") == "not_connected"
    log.start()
    assert bench.drain() == "more"
    assert bench.event_ids() == ["commands/0"]


def test_a_source_lost_in_the_middle_keeps_what_was_received(bench):
    log = bench.receive_into("commands", slice_ms=20_000)
    log.send(b"1")
    with bench.draining():
        wait_until(lambda: bench.event_ids() == ["commands/0"], 10, "the first is in the inbox")
        log.stop()
    assert bench.last("outcome") == "failed"
    assert not bench.tools.sources._idle


def test_a_disabled_pipeline_stops_receiving(bench):
    log = bench.receive_into("commands", slice_ms=20_000)
    with bench.draining():
        bench.query("select tide.relay_disable('p')")
        log.send(b"1")  # a batch more, and the change is seen
    assert bench.last("lease_until") is None


# Sharing threads -----------------------------------------------------------------------------------------------------


def test_one_thread_never_waits(database):
    bench = Bench(database, threads=2)
    try:
        bench.receive_into("commands", "p", slice_ms=20_000)
        bench.receive_into("others", "q", slice_ms=20_000)
        with bench.draining("p"):
            wait_until(lambda: bench.tools.waiting._free == 0, 10, "one waits")
            began = time.monotonic()
            assert bench.drain("q") == "later"
            assert time.monotonic() - began < 5
        assert bench.last("outcome", "p") == "later", "whoever waits makes room for who was turned away"
        with bench.draining("q"):
            wait_until(lambda: bench.tools.waiting._free == 0, 10, "who was turned away waits next")
            bench.tools.stop.set()
    finally:
        bench.close()


def test_whoever_waits_gives_its_thread_to_a_drain_that_has_none(database):
    queued = threading.Event()
    bench = Bench(database, others_wait=queued.is_set)
    try:
        bench.receive_into("commands", slice_ms=60_000)
        with bench.draining():
            wait_until(lambda: bench.tools.waiting._free < 3, 10, "it waits")
            queued.set()
        assert bench.last("outcome") == "later"
    finally:
        bench.close()
        sources.forget("commands")


# Gathering -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "objects"
    made.mkdir()
    return made


def gather(bench, folder, **config):
    keys = {"sink_type": "object_storage", "path": str(folder), "compression": "none", "poll_interval_ms": 50}
    bench.publish_to(**keys | config)


def objects(folder):
    """name -> the ids in it."""
    return {
        path.name: [json.loads(line)["message_id"] for line in path.read_text().splitlines()]
        for path in sorted(folder.rglob("*.jsonl"))
    }


def test_messages_wait_until_there_is_an_object_of_them(bench, folder):
    gather(bench, folder, max_rows=10)
    ids = bench.publish(7)
    assert bench.drain() == "later"
    assert objects(folder) == {}
    assert bench.query("select armed from tide.bell") == [(False,)], "nobody need ring for each of them"
    ids += bench.publish(5)
    assert bench.drain() == "later"
    assert list(objects(folder).values()) == [ids[:10]]
    assert bench.query("select offset_id from tide.consumer_group") == [(ids[9],)]
    assert bench.last("delivered") == 10


def test_the_oldest_message_waits_no_longer_than_it_may(bench, folder):
    gather(bench, folder, max_age_ms=1000)
    ids = bench.publish(3)
    wait_until(lambda: bench.drain() == "idle", 10, "everything is written")
    assert list(objects(folder).values()) == [ids]
    assert bench.query("select armed from tide.bell") == [(True,)]


def test_a_size_closes_an_object(bench, folder):
    gather(bench, folder, max_bytes=1024 * 1024)
    ids = bench.publish(5, payload="x" * 500_000)
    bench.drain()
    assert list(objects(folder).values()) == [ids[:3]]


def test_an_object_of_a_drain_that_died_is_written_again_under_the_same_name(bench, folder):
    gather(bench, folder, max_rows=10)
    ids = bench.publish(10)
    bench.drain()
    [name] = objects(folder)
    # As if the worker had died between the object and its settle; meanwhile more was published.
    bench.query("update tide.consumer_group set offset_id = 0")
    ids += bench.publish(4)
    bench.drain()
    assert objects(folder) == {name: ids[:10]}


def test_a_bad_record_is_a_dead_letter_of_the_object(bench, folder):
    gather(bench, folder, max_age_ms=1000, wire_format="raw", max_rows=3)
    ids = bench.publish(3)
    bench.drain()
    assert bench.query("select count(*) from tide.dead_letter") == [(0,)]
    assert bench.query("select offset_id from tide.consumer_group") == [(ids[2],)]


# Joining -------------------------------------------------------------------------------------------------------------


def test_a_local_inbox_and_the_offset_are_one_transaction(bench):
    bench.query("select tide.inbox_create('commands')")
    bench.publish_to(sink_type="inbox", inbox="commands", batch_size=4)
    bench.query("alter table tide.commands add column tx xid8 default pg_current_xact_id()")
    bench.query("create table public.settled (offset_id bigint, tx xid8 default pg_current_xact_id())")
    bench.query("""create function public.note() returns trigger language plpgsql as
                   $$ begin insert into public.settled (offset_id) values (new.offset_id); return null; end $$""")
    bench.query("create trigger note after update on tide.consumer_group for each row execute function public.note()")
    ids = bench.publish(10)
    assert bench.drain() == "idle"
    assert bench.event_ids() == [f"orders:{n}" for n in ids]
    assert bench.query("select offset_id from tide.consumer_group") == [(ids[-1],)]
    assert bench.last("delivered") == 10
    committed = bench.query("select tx, count(*) from tide.commands group by 1 order by min(inbox_seq)")
    assert [count for _, count in committed] == [4, 4, 2]
    assert bench.query("select tx from public.settled order by offset_id") == [(tx,) for tx, _ in committed]


def test_a_refused_row_of_a_local_inbox_is_a_dead_letter(bench):
    bench.query("select tide.inbox_create('commands')")
    bench.query("alter table tide.commands add check (payload <> '{\"n\": 2}')")
    bench.publish_to(sink_type="inbox", inbox="commands")
    ids = bench.publish(5)
    assert bench.drain() == "idle"
    assert bench.event_ids() == [f"orders:{n}" for n in ids if n != ids[2]]
    assert bench.query("select message_id from tide.dead_letter") == [(ids[2],)]


def test_a_fenced_drain_leaves_nothing_in_a_local_inbox(bench):
    bench.query("select tide.inbox_create('commands')")
    bench.publish_to(sink_type="inbox", inbox="commands")
    bench.publish(5)
    bench.query("""create function fence() returns trigger language plpgsql as
                   $$ begin update tide.drain set epoch = epoch + 1; return null; end $$""")
    bench.query("create trigger fence after insert on tide.commands execute function fence()")
    bench.drain()
    assert bench.event_ids() == []
    assert bench.query("select offset_id from tide.consumer_group") == [(0,)]
