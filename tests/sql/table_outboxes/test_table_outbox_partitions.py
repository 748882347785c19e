"""Partitioned tables as outboxes: each change is published once, whichever table the statement names."""

import pytest

from tests.sql.support import refused
from tests.sql.table_outboxes.table_outboxes import enable, payloads, published, status

pytestmark = pytest.mark.each_postgres


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


@pytest.fixture
def events(db):
    """A partitioned table: p1 and p2 by id, p2 partitioned again."""
    db.execute("""
        create table events (id int primary key, note text) partition by range (id);
        create table p1 partition of events for values from (0) to (10);
        create table p2 partition of events for values from (10) to (20) partition by range (id);
        create table p2a (note text, id int not null);
        alter table p2 attach partition p2a for values from (10) to (20)""")
    return db


def test_statements_on_a_partitioned_table_and_on_its_partitions_are_seen_once(events):
    enable(events, "events")
    events.execute("insert into events values (1, 'a'), (11, 'b')")
    events.execute("insert into p1 values (2, 'c')")
    events.execute("insert into p2 values (12, 'd')")
    events.execute("insert into p2a (id, note) values (13, 'e')")
    events.execute("delete from events where id in (2, 12)")
    events.execute("delete from p2a")
    assert [(op, len(new) + len(old)) for op, new, old in published(events, "public.events")] == [
        ("insert", 2),
        ("insert", 1),
        ("insert", 1),
        ("insert", 1),
        ("delete", 2),
        ("delete", 2),
    ]
    assert events.execute("select distinct headers ->> 'table' from tide.message").fetchall() == [("public.events",)]


def test_pairs_stay_pairs_when_rows_move_between_partitions(db):
    db.execute("""
        create table moves (id int, place text, note text) partition by list (place);
        create table moves_a partition of moves for values in ('a');
        create table moves_b partition of moves for values in ('b')""")
    enable(db, "moves")
    db.execute("insert into moves select i, case when i % 2 = 0 then 'a' else 'b' end, i from generate_series(1, 30) i")
    db.execute("update moves set place = case when id % 3 = 0 then 'b' else 'a' end, note = note || '!'")
    _, (_, new, old) = published(db, "public.moves")
    assert len(new) == 30
    assert sum(after["place"] != before["place"] for after, before in zip(new, old, strict=True)) > 10
    assert [(row["id"], row["note"]) for row in new] == [(row["id"], row["note"] + "!") for row in old]


def test_truncating_is_published_once_for_what_was_truncated(events):
    enable(events, "events")
    events.execute("truncate events")
    events.execute("truncate p1")
    events.execute("truncate p2")
    events.execute("truncate p1, events")
    events.execute("do $$ begin truncate events; insert into p1 values (1); truncate p1; end $$")
    assert [p.get("partition") for p in payloads(events, "public.events")] == [
        None,
        "public.p1",
        "public.p2",
        None,
        None,
        None,
        "public.p1",
    ]
    assert events.execute("select count(*) from tide.truncating").fetchone() == (0,)


def test_partitions_made_later_are_seen_through_their_parent_shown_and_mended(events):
    enable(events, "events")
    events.execute("create table p3 partition of events for values from (20) to (30)")
    events.execute("insert into events values (21, 'a')")
    assert len(payloads(events, "public.events")) == 1
    seen = status(events, "events")
    assert (seen["intact"], seen["tables"]) == (False, 5)
    assert "trigger tide_outbox_insert of public.p3 is missing" in seen["problem"]
    events.execute(seen["problem"].split(": ")[-1])
    assert status(events, "events")["problem"] is None
    events.execute("insert into p3 values (22, 'b')")
    assert len(payloads(events, "public.events")) == 2


def test_a_partition_that_was_detached_refuses_changes_until_told_what_it_is(events):
    enable(events, "events")
    events.execute("alter table events detach partition p1")
    with refused("55000", "public.p1", hint="tide.table_outbox_disable"):
        events.execute("insert into p1 values (1, 'a')")
    events.execute("select tide.table_outbox_disable('p1')")
    events.execute("insert into p1 values (1, 'a')")
    assert status(events, "events")["intact"]


def test_an_outbox_that_became_a_partition_says_so(events):
    events.execute("create table orders (id int primary key, note text)")
    enable(events)
    events.execute("alter table events attach partition orders for values from (100) to (200)")
    assert "is now a partition" in status(events)["problem"]
