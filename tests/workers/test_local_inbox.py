"""Single drains from an outbox into an inbox of the same database, moved by PostgreSQL, and through the worker.

Whatever a test says of a pipeline holds for both; only the tests at the end know which of them it was.
"""

import json
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from relay.backends.postgresql.sink import InboxSink
from relay.process.metrics import PipelineLabels
from relay.process.metrics.workers import worker_metrics
from tests.waiting import wait_until

MOVED, THROUGH_WORKER = "moved", "through the worker"


@contextmanager
def going(way):
    """Drains go this way. Gives the number of messages that came through the worker, in a list."""
    with pytest.MonkeyPatch.context() as patched:
        publish, through_worker = InboxSink.publish, []

        def counted(self, records):
            through_worker.append(len(records))
            return publish(self, records)

        patched.setattr(InboxSink, "publish", counted)
        if way == THROUGH_WORKER:
            patched.setattr(InboxSink, "inbox", None)
        yield through_worker


@pytest.fixture(params=[MOVED, THROUGH_WORKER])
def through_worker(request):
    """The messages that came through the worker, by batches."""
    with going(request.param) as seen:
        yield seen


@pytest.fixture
def inbox(bench, through_worker):
    bench.query("select tide.inbox_create('commands')")
    bench.publish_to(sink_type="inbox", inbox="commands", batch_size=4)


def rows(bench, inbox="commands"):
    """All that a message determines of its row, and how many rows each transaction wrote."""
    return bench.query(f"""
        select event_id, event_type, source, aggregate_id, event_sequence, payload::text, headers::text, trace_id,
               count(*) over (partition by tx)
          from tide.{inbox} order by inbox_seq""")


def offset(bench):
    return bench.query("select offset_id from tide.consumer_group")[0][0]


@pytest.mark.usefixtures("inbox")
class TestEitherWay:
    def test_rows_and_offset_are_one_transaction(self, bench):
        bench.query("alter table tide.commands add column tx xid8 default pg_current_xact_id()")
        bench.query("create table public.settled (offset_id bigint, tx xid8 default pg_current_xact_id())")
        bench.query("""create function public.note() returns trigger language plpgsql as
                       $$ begin insert into public.settled (offset_id) values (new.offset_id); return null; end $$""")
        bench.query("create trigger note after update on tide.consumer_group for each row execute function note()")
        ids = bench.publish(10)
        assert bench.drain() == "idle"
        assert bench.event_ids() == [f"orders:{n}" for n in ids]
        assert offset(bench) == ids[-1]
        assert bench.last("delivered") == 10
        committed = bench.query("select tx, count(*) from tide.commands group by 1 order by min(inbox_seq)")
        assert [count for _, count in committed] == [4, 4, 2]
        settled = bench.query("select tx from public.settled where offset_id = any (%s) order by offset_id", ids)
        assert settled == [(tx,) for tx, _ in committed]

    def test_a_refused_row_is_a_dead_letter_and_its_neighbours_are_written(self, bench):
        bench.query("alter table tide.commands add check (payload <> '{\"n\": 2}')")
        ids = bench.publish(9)
        assert bench.drain() == "idle"
        assert bench.event_ids() == [f"orders:{n}" for n in ids if n != ids[2]]
        assert bench.query("select message_id, code from tide.dead_letter") == [(ids[2], "refused")]
        assert (offset(bench), bench.last("delivered"), bench.last("dead_letters")) == (ids[-1], 8, 1)

    def test_a_fenced_drain_leaves_nothing(self, bench):
        bench.publish(5)
        bench.query("""create function fence() returns trigger language plpgsql as
                       $$ begin update tide.drain set epoch = epoch + 1; return null; end $$""")
        bench.query("create trigger fence after insert on tide.commands for each row execute function fence()")
        bench.drain()
        assert (bench.event_ids(), offset(bench)) == ([], 0)

    def test_a_drain_that_was_abandoned_before_it_began_leaves_nothing(self, bench, through_worker, monkeypatch):
        """The fence itself, without an error that would undo what it missed."""
        ids = bench.publish(5)
        use = InboxSink.use_transaction

        def abandoned(self, connection):
            use(self, connection)
            bench.query("update tide.drain set epoch = epoch + 1, lease_until = null")

        with monkeypatch.context() as patched:
            patched.setattr(InboxSink, "use_transaction", abandoned)
            bench.drain()
        assert (bench.event_ids(), offset(bench), bench.last("delivered")) == ([], 0, 0)
        bench.query("update tide.drain set epoch = 0")
        assert bench.drain() == "idle"
        assert bench.event_ids() == [f"orders:{n}" for n in ids]

    def test_what_is_there_already_is_left_out_and_counted(self, bench):
        ids = bench.publish(6)
        bench.query("""select tide.inbox_write('commands', array['orders:' || %s], null, null, null, null, '{"1"}',
                       null, null)""", ids[1])  # fmt: skip
        bench.drain()
        bench.query("update tide.consumer_group set offset_id = 0")
        bench.drain()
        assert sorted(bench.event_ids()) == sorted(f"orders:{n}" for n in ids)
        assert bench.query("select payload from tide.commands where event_id = 'orders:' || %s", ids[1]) == [(1,)]
        assert bench.query("select sum(messages) from tide.inbox_duplicates") == [(7,)]

    def test_consumers_are_notified_once_for_each_batch(self, bench):
        with bench.database.connect() as listener:
            listener.execute("listen tide_inbox")
            bench.publish(10)
            bench.drain()
            heard = [notice.payload for notice in listener.notifies(timeout=5, stop_after=3)]
            heard += [notice.payload for notice in listener.notifies(timeout=0)]
        assert heard == ["commands"] * 3

    def test_it_is_counted_as_any_delivery_is(self, bench):
        labels = PipelineLabels("p", "forward", "inbox")
        metrics = worker_metrics()
        names = ("messages_published", "delivery_seconds", "publish_seconds")

        def counted():
            samples = [
                (sample.name, sample.labels.get("le", ""), sample.value)
                for name in names
                for metric in getattr(metrics, name).collect()
                for sample in metric.samples
                if sample.labels.items() >= labels._asdict().items() and sample.name.endswith(("_total", "_count"))
            ]
            return {name: value for name, _, value in samples}

        before = counted()
        bench.publish(10)
        bench.drain()
        after = counted()
        assert {name: value - before.get(name, 0) for name, value in after.items()} == {
            "tide_relay_messages_published_total": 10, "tide_relay_delivery_seconds_count": 3,
            "tide_relay_publish_seconds_count": 3,
        }  # fmt: skip

    def test_it_ends_when_it_is_asked_to_and_goes_on_later(self, bench):
        ids = bench.publish(10)
        bench.resources.stop.set()
        assert bench.drain() == "more"
        assert bench.event_ids() == [f"orders:{n}" for n in ids[:4]]

    def test_an_empty_outbox_arms_the_bell_and_settles_what_was_rolled_back(self, bench):
        ids = bench.publish(9)
        assert bench.drain() == "idle"
        bench.query("begin")
        lost = bench.publish(3)
        bench.query("rollback")
        bench.query("update tide.bell set armed = false")
        assert bench.drain() == "idle"
        assert bench.query("select armed from tide.bell") == [(True,)]
        assert (len(bench.event_ids()), offset(bench)) == (len(ids), lost[-1])

    def test_a_message_of_an_open_transaction_is_waited_for(self, bench):
        with bench.database.connect(autocommit=False) as slow:
            slow.execute("select tide.outbox_publish('orders', '1')")
            ids = bench.publish(5)
            assert bench.drain() == "again"
            assert bench.event_ids() == []
            slow.rollback()
        assert bench.drain() == "idle"
        assert bench.event_ids() == [f"orders:{n}" for n in ids]

    def test_an_inbox_that_is_gone_ends_the_drain_as_failed(self, bench):
        bench.publish(1)
        bench.drain()
        bench.query("drop table tide.commands cascade")
        ids = bench.publish(3)
        assert bench.drain() == "failed"
        assert "is gone" in bench.last("error")
        assert offset(bench) < ids[0]

    def test_a_server_process_that_is_killed_in_the_middle_moves_nothing(self, bench):
        """Exactly once: the next drain moves it all."""
        bench.query("""create function public.pause() returns trigger language plpgsql as
                       $$ begin perform pg_advisory_xact_lock_shared(7); return null; end $$""")
        bench.query("create trigger pause after insert on tide.commands execute function pause()")
        ids = bench.publish(4)
        bench.query("select pg_advisory_lock(7)")
        draining = Thread(target=bench.drain, daemon=True)
        draining.start()
        held_up = "select pid from pg_locks where locktype = 'advisory' and objid = 7 and not granted"
        with bench.database.connect() as other:
            [(pid,)] = wait_until(lambda: other.execute(held_up).fetchall(), 20, "the rows are written")
            other.execute("select pg_terminate_backend(%s, 5000)", [pid])
            wait_until(lambda: other.execute("select outcome = 'failed' from tide.drain").fetchone()[0], 20, "it ends")
            draining.join(20)
            found = other.execute("select count(*), (select offset_id from tide.consumer_group) from tide.commands")
            assert found.fetchone() == (0, 0)
        bench.query("select pg_advisory_unlock(7)")
        assert bench.drain() == "idle"
        assert bench.event_ids() == [f"orders:{n}" for n in ids]


# Both make the same rows ---------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBER = st.one_of(st.integers(-(10**30), 10**30), st.floats(allow_nan=False, allow_infinity=False))
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, TEXT),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
    max_leaves=6,
)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NAMES = TEXT | st.sampled_from(["type", "traceparent", "relay-id", "relay-created-at"])
MESSAGE = st.tuples(st.none() | TEXT, VALUE, st.dictionaries(NAMES, VALUE | st.sampled_from([TRACE, TRACE + "-x\n"])))

ODD: list[tuple[str | None, Any, dict[str, Any]]] = [
    (None, None, {}),
    ("", "", {"type": ""}),
    ("kéy \U0001f600", {"n": 12345678901234567890.5, "ü": "日本語"}, {"type": "order.paid", "traceparent": TRACE}),
    ("k", [[]], {"type": None, "traceparent": TRACE + "-later"}),
    ("k", 1, {"type": 1.50, "traceparent": TRACE + "\n"}),
    ("k", 1, {"type": {"a": [1, {"b": 'c" \\ : ,  d'}], "é\t": "\x7f\x01/"}, "traceparent": [TRACE]}),
    ("k", 1, {"type": [], "relay-id": "stolen", "relay-outbox": {}, "other": True, "a b": 10**40}),
    ("k" * 3000, "x" * 3_000_000, {"h": "y" * 10_000}),
    ("k", "x" * 900_000, {}),
    ("k", "x" * 900_000, {}),
    ("k", "x" * 900_000, {}),
    ("a:b", {"deep": json.loads("[" * 400 + "]" * 400)}, {"deep": json.loads("[" * 400 + "]" * 400)}),
]
MOMENTS = ["infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "10000-01-01 00:00:00+00", "0987-06-05 04:03:02.1+00"]


class TestBothWays:
    @pytest.fixture
    def pair(self, bench):
        """Two pipelines of one outbox, `a` and `b`, with an inbox each."""
        for name in "ab":
            bench.query("select tide.inbox_create(%s)", name)
            bench.query(f"alter table tide.{name} add column tx xid8 default pg_current_xact_id()")
            bench.publish_to(pipeline=name, sink_type="inbox", inbox=name, batch_size=5)
        bench.query("update tide.outbox set max_payload_bytes = 10000000")
        return bench

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(MESSAGE, min_size=1, max_size=12))
    @example(ODD)
    def test_equal_rows_in_equal_batches(self, pair, messages):
        for key, payload, headers in messages:
            pair.query("select tide.outbox_publish('orders', %s, %s, %s)", Jsonb(payload), Jsonb(headers), key)
        self.compare(pair, len(messages))

    def test_equal_rows_of_moments_that_python_does_not_have(self, pair):
        ids = pair.publish(len(MOMENTS))
        for message_id, moment in zip(ids, MOMENTS, strict=True):
            pair.query("update tide.message set created_at = %s where id = %s", moment, message_id)
        self.compare(pair, len(MOMENTS))

    def test_equal_rows_in_a_table_of_an_application(self, pair):
        pair.query("""create table public.mine (event_id varchar(40) primary key, event_type varchar(9),
                                                event_sequence int, mine int default 7)""")
        pair.query("select tide.enable_inbox_tracking('public.mine')")
        pair.query("create table public.others (like public.mine including all)")
        pair.query("select tide.enable_inbox_tracking('public.others')")
        for name, inbox in (("a", "mine"), ("b", "others")):
            pair.publish_to(pipeline=name, sink_type="inbox", inbox=inbox, batch_size=5)
        pair.publish(7)
        pair.query("select tide.outbox_publish('orders', '1', '{\"type\": \"too long for it\"}')")
        pair.publish(2)
        self.drain(pair)
        table = "select event_id, event_type, event_sequence, mine, payload, headers from public.{} order by inbox_seq"
        assert pair.query(table.format("mine")) == pair.query(table.format("others")) != []
        assert pair.query("select pipeline, count(*) from tide.dead_letter group by 1 order by 1") == [
            ("a", 1),
            ("b", 1),
        ]

    def drain(self, pair):
        with going(MOVED) as through_worker:
            assert pair.drain("a") == "idle"
            moved_all = not through_worker
        with going(THROUGH_WORKER) as through_worker:
            assert pair.drain("b") == "idle"
            assert through_worker
        return moved_all

    def compare(self, pair, messages):
        assert self.drain(pair), "a message was refused"
        moved, ordinary = rows(pair, "a"), rows(pair, "b")
        assert len(moved) == messages
        assert moved == ordinary
        pair.query("truncate tide.a, tide.b")


# Which way ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def moving(bench):
    bench.query("select tide.inbox_create('commands')")
    bench.publish_to(sink_type="inbox", inbox="commands", batch_size=4)
    with going(MOVED) as through_worker:
        yield through_worker


def test_what_needs_python_goes_through_the_worker(bench, moving):
    for keys, through_worker in (({}, []), ({"wire_format": "envelope"}, [3]), ({"subject_template": "{type}"}, [])):
        bench.publish_to(sink_type="inbox", inbox="commands", **keys)
        moving.clear()
        bench.publish(3)
        assert bench.drain() == "idle"
        assert moving == through_worker
    assert len(bench.event_ids()) == 9


def test_a_dropped_outbox_leaves_no_function_that_moves(bench, moving):
    copies = "select proname from pg_proc where proname ~ '^inbox_move_[0-9]+_[0-9]+$'"
    bench.publish(1)
    bench.drain()
    [(made,)] = bench.query(copies)
    number = int(made.split("_")[2])
    bench.query(f"create function tide.inbox_move_{number}0_1(int) returns int language sql return 1")
    bench.query("select tide.relay_delete('p')")
    bench.query("select tide.outbox_drop('orders')")
    assert bench.query(copies) == [(f"inbox_move_{number}0_1",)], "that of another outbox stays"


def test_a_refusal_sends_the_rest_of_one_drain_through_the_worker(bench, moving):
    bench.query("alter table tide.commands add check (payload <> '{\"n\": 5}')")
    bench.publish(12)
    assert bench.drain() == "idle"
    assert moving == [4, 4], "the first four were moved"
    bench.publish(3)
    assert bench.drain() == "idle"
    assert moving == [4, 4], "the next drain moves again"
    assert len(bench.event_ids()) == 14


def test_a_single_message_takes_two_round_trips(bench, moving, monkeypatch):
    from relay.drains.moving import Mover

    bench.publish(1)
    bench.drain()
    move, calls = Mover.move, []

    def counted(self, after, bell):
        calls.append(bell)
        return move(self, after, bell)

    monkeypatch.setattr(Mover, "move", counted)
    bench.publish(1)
    bench.drain()
    assert calls == [None, "arm"]
    assert len(bench.event_ids()) == 2


def test_a_session_that_is_lost_is_no_refusal(bench, moving, monkeypatch):
    from relay.drains.moving import Mover

    bench.publish(3)
    move = Mover._move

    def interrupted(self, *given):
        with bench.database.connect() as other:
            other.execute("select pg_terminate_backend(%s, 5000)", [self._connection.info.backend_pid])
        return move(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Mover, "_move", interrupted)
        assert bench.drain() == "failed"
    assert bench.last("error_code").startswith("database_")
    assert "the connection is closed" not in bench.last("error"), "the reason, not what follows from it"
    assert bench.drain() == "idle"
    assert (moving, len(bench.event_ids())) == ([], 3)
