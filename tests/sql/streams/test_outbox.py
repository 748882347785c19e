"""Stream tables with an outbox: each refresh publishes exactly what it changed, in its transaction."""

import json
import random
from collections import Counter

import psycopg
import pytest

from tests.sql.streams.plans import FIRST, JOINED, PLANS, SUMS, TABLES, TOTAL, Ids, keep
from tests.sql.streams.streams import create, refresh


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute(TABLES)
        yield connection


def published(connection, outbox="public.found"):
    return connection.execute(
        """select m.payload, m.headers from tide.message m join tide.outbox o using (outbox_id)
            where o.name = %s order by m.id""",
        [outbox],
    ).fetchall()


def rebuilt(connection):
    """The rows of the table, from what was published since the beginning."""
    rows: Counter[str] = Counter()
    for payload, _ in published(connection):
        rows.update(json.dumps(row) for row in payload["inserted"])
        rows.subtract(json.dumps(row) for row in payload["deleted"])
    assert min(rows.values(), default=0) >= 0
    return +rows


def stored(connection):
    return Counter(json.dumps(row) for (row,) in connection.execute("select to_jsonb(f.*) from found f").fetchall())


def publishing(connection, query, **options):
    create(connection, "found", query, refresh_mode="DIFFERENTIAL")
    named = "".join(f", {option} => %s" for option in options)
    [(outbox,)] = connection.execute(
        f"select tide.stream_outbox_enable('found'{named})", [*options.values()]
    ).fetchall()
    keep(connection, "found", PLANS[query](Ids(connection, "found")))
    refresh(connection, "found")
    return outbox


def test_a_refresh_is_one_message_with_old_rows_as_deleted_and_their_new_form_as_inserted(connection):
    assert publishing(connection, SUMS) == "public.found"
    connection.execute("insert into orders values (9, 'north', 1, 1)")
    connection.execute("delete from orders where region = 'south'")
    refresh(connection, "found")
    (first, _), (second, headers) = published(connection)
    assert len(first["inserted"]) == 3
    assert first["deleted"] == []
    assert second["inserted"] == [{"region": "north", "orders": 3, "amount": 16}]
    assert sorted(row["region"] for row in second["deleted"]) == ["north", "south"]
    assert {key: second[key] for key in ("v", "full_refresh")} == {"v": 1, "full_refresh": False}
    assert "chunk" not in second
    assert headers == {"op": "refresh", "table": "public.found"}
    [(number, at)] = connection.execute(
        """select h.refresh_id, to_jsonb(s.data_timestamp at time zone 'UTC') #>> '{}' || '+00:00'
             from tide.stream_history h, tide.stream_state s order by 1 desc limit 1"""
    ).fetchall()
    assert (second["refresh_id"], second["data_timestamp"]) == (number, at)


@pytest.mark.parametrize("query", PLANS)
def test_what_is_published_rebuilds_the_table(connection, query):
    publishing(connection, query, max_payload_bytes=2000)
    chance = random.Random(5)
    for number in range(12):
        connection.execute(
            """insert into orders select %s + n, (array['north', 'south', null])[1 + n %% 3], n, 1 + n %% 2
                 from generate_series(1, %s) n""",
            [100 + number * 1000, chance.choice([1, 2, 400])],
        )
        connection.execute("update orders set region = 'west' where order_id %% 5 = %s", [chance.randint(0, 4)])
        connection.execute("delete from orders where order_id %% 7 = %s", [chance.randint(0, 6)])
        connection.execute("update customers set name = name || 'x' where customer_id = %s", [chance.randint(1, 2)])
        if number == 7:
            connection.execute("update tide.stream_state set frontier = null")
        refresh(connection, "found")
        assert rebuilt(connection) == stored(connection)


def test_a_large_change_is_split_into_bounded_messages_that_name_their_part(connection):
    publishing(connection, JOINED, max_payload_bytes=1000)
    connection.execute("insert into orders select 100 + n, 'north', 1, 1 from generate_series(1, 60) n")
    refresh(connection, "found")
    parts = [(payload, headers) for payload, headers in published(connection) if "chunk" in payload]
    assert len(parts) > 2
    assert [payload["chunk"] for payload, _ in parts] == list(range(1, len(parts) + 1))
    assert [payload["last"] for payload, _ in parts] == [False] * (len(parts) - 1) + [True]
    assert len({payload["refresh_id"] for payload, _ in parts}) == 1
    assert sum(len(payload["inserted"]) for payload, _ in parts) == 60
    [(largest,)] = connection.execute("select max(size) from tide.message").fetchall()
    assert 800 < largest <= 1000


def test_nothing_is_published_of_a_refresh_that_changed_nothing_or_was_rolled_back(connection):
    publishing(connection, TOTAL)
    connection.execute("update tide.stream_state set frontier = null")
    refresh(connection, "found")
    assert len(published(connection)) == 1
    connection.execute("insert into orders values (9, 'west', 1, 1)")
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction(force_rollback=True):
        connection.execute("select tide.refresh_stream_table('found')")
        assert len(published(connection)) == 2
    connection.isolation_level = None
    assert len(published(connection)) == 1


def test_a_value_has_one_form_whatever_the_settings_of_the_creation(connection):
    connection.execute("create table times (at timestamptz, day date, bytes bytea, ratio float8)")
    connection.execute("set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set extra_float_digits = -10")
    create(connection, "found", "select at, day, bytes, ratio from times")
    connection.execute("select tide.stream_outbox_enable('found')")
    connection.execute("insert into times values ('2026-03-01 23:30+00', '2026-03-02', 'x', 0.1234567890123)")
    refresh(connection, "found")
    [(payload, _)] = published(connection)
    assert payload["inserted"] == [
        {"at": "2026-03-01T23:30:00+00:00", "day": "2026-03-02", "bytes": "\\x78", "ratio": 0.1234567890123}
    ]


def test_a_disabled_outbox_stops_the_refresh_and_loses_nothing(connection):
    publishing(connection, FIRST)
    connection.execute("select tide.outbox_disable('public.found')")
    connection.execute("insert into orders values (9, 'west', 1, 1)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=r'its outbox "public\.found" is disabled'):
        refresh(connection, "found")
    connection.execute("select tide.outbox_enable('public.found')")
    refresh(connection, "found")
    assert rebuilt(connection) == stored(connection)


def test_an_outbox_of_a_stream_table_is_named_kept_and_let_go(connection):
    create(connection, "found", SUMS)
    for error, statement, message in [
        (psycopg.errors.WrongObjectType, "select tide.table_outbox_enable('found')", "it is a stream table"),
        (psycopg.errors.InvalidName, "select tide.stream_outbox_enable('found', 'no name')", "is not valid"),
        (psycopg.errors.UndefinedObject, "select tide.stream_outbox_enable('orders')", "does not exist"),
    ]:
        with pytest.raises(error, match=message):
            connection.execute(statement)
    [(outbox,)] = connection.execute("select tide.stream_outbox_enable('found', 'sums', 48)").fetchall()
    assert outbox == "sums"
    assert connection.execute("select retention_hours from tide.outbox where name = 'sums'").fetchone() == (48,)
    assert connection.execute("select pgtrickle.enable_outbox('public.found')").fetchone() == ("sums",)
    assert connection.execute("select pgtrickle.outbox_of('public.found')").fetchone() == ("sums",)
    with pytest.raises(psycopg.errors.DuplicateObject, match='has an outbox already: "sums"'):
        connection.execute("select tide.stream_outbox_enable('found', 'others')")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match=r"is that of stream tables: public\.found"):
        connection.execute("select tide.outbox_drop('sums')")
    refresh(connection, "found")
    connection.execute("select pgtrickle.disable_outbox('found')")
    connection.execute("insert into orders values (9, 'west', 1, 1)")
    refresh(connection, "found")
    assert len(published(connection, "sums")) == 1
    connection.execute("select tide.stream_outbox_enable('found', 'sums')")
    connection.execute("select tide.stream_outbox_disable('found', drop_outbox => true)")
    assert connection.execute("select count(*) from tide.outbox").fetchone() == (0,)


def test_an_outbox_outlives_its_stream_table(connection):
    publishing(connection, SUMS)
    connection.execute("select tide.drop_stream_table('found')")
    assert len(published(connection)) == 1
    connection.execute("select tide.outbox_drop('public.found')")
