"""A table that is an outbox: each statement's changes are published, in its transaction."""

import contextlib

import psycopg
import pytest

from tests.sql.support import make_pipeline, reader_of, refused
from tests.sql.table_outboxes.table_outboxes import enable, payloads, published


@pytest.fixture
def db(database):
    with database.connect() as connection:
        connection.execute("create table orders (id int primary key, note text)")
        yield connection


def test_a_statement_is_one_message(db):
    assert enable(db) == "public.orders"
    db.execute("insert into orders values (1, 'a'), (2, 'b')")
    db.execute("update orders set note = note || '!'")
    db.execute("delete from orders where id = 1")
    db.execute("truncate orders")
    assert payloads(db) == [
        {"v": 1, "op": "insert", "inserted": [{"id": 1, "note": "a"}, {"id": 2, "note": "b"}], "deleted": []},
        {
            "v": 1,
            "op": "update",
            "inserted": [{"id": 1, "note": "a!"}, {"id": 2, "note": "b!"}],
            "deleted": [{"id": 1, "note": "a"}, {"id": 2, "note": "b"}],
        },
        {"v": 1, "op": "delete", "inserted": [], "deleted": [{"id": 1, "note": "a!"}]},
        {"v": 1, "op": "truncate", "inserted": [], "deleted": []},
    ]
    assert db.execute("select key, headers from tide.message where id = 1").fetchone() == (
        None,
        {"op": "insert", "table": "public.orders"},
    )


def test_in_row_mode_a_row_is_one_message(db):
    enable(db, mode="row")
    db.execute("insert into orders values (1, 'a'), (2, 'b')")
    db.execute("update orders set note = 'c' where id = 2")
    db.execute("delete from orders where id = 1")
    db.execute("truncate orders")
    one, two = {"id": 1, "note": "a"}, {"id": 2, "note": "b"}
    rows = db.execute("select key, headers ->> 'op', payload from tide.message order by id").fetchall()
    assert rows == [
        ("1", "insert", {"v": 1, "op": "insert", "key": {"id": 1}, "new": one, "old": None}),
        ("2", "insert", {"v": 1, "op": "insert", "key": {"id": 2}, "new": two, "old": None}),
        ("2", "update", {"v": 1, "op": "update", "key": {"id": 2}, "new": {"id": 2, "note": "c"}, "old": two}),
        ("1", "delete", {"v": 1, "op": "delete", "key": {"id": 1}, "new": None, "old": one}),
        (None, "truncate", {"v": 1, "op": "truncate", "key": None, "new": None, "old": None}),
    ]


def test_a_row_whose_key_changes_is_deleted_under_the_old_and_inserted_under_the_new(db):
    enable(db, mode="row")
    db.execute("insert into orders select i, 'n' || i from generate_series(1, 3) i")
    db.execute("update orders set id = id + 10")
    rows = db.execute(
        "select key, payload ->> 'op', payload #>> '{new,note}' from tide.message where id > 3 order by id"
    )
    assert rows.fetchall() == [
        ("1", "delete", None),
        ("11", "insert", "n1"),
        ("2", "delete", None),
        ("12", "insert", "n2"),
        ("3", "delete", None),
        ("13", "insert", "n3"),
    ]


def test_a_key_of_several_columns_is_a_json_array(db):
    db.execute("create table lines (id int, sku text, n int, primary key (sku, id))")
    enable(db, "lines", mode="row")
    db.execute("insert into lines values (1, 'x\"y', 5)")
    assert db.execute("select key, payload -> 'key' from tide.message").fetchone() == (
        '["x\\"y", 1]',
        {"id": 1, "sku": 'x"y'},
    )


def test_what_changed_nothing_is_left_out(db):
    enable(db)
    db.execute("insert into orders values (1, 'a'), (2, 'b')")
    db.execute("delete from tide.message")
    db.execute("insert into orders select * from orders where false")
    db.execute("update orders set note = note")
    db.execute("delete from orders where id = 3")
    assert payloads(db) == []
    db.execute("update orders set note = 'c' where id > 0 and (id = 2 or note = 'a')")
    db.execute("update orders set note = 'd' where id = 1")
    db.execute("update orders set note = case id when 2 then 'e' else note end")
    assert published(db)[-1] == ("update", [{"id": 2, "note": "e"}], [{"id": 2, "note": "c"}])


def test_what_changed_nothing_is_published_if_the_setting_says_so(db):
    enable(db)
    db.execute("select tide.setting_set('outbox_skip_empty_delta', 'false')")
    db.execute("delete from orders")
    db.execute("insert into orders values (1, 'a')")
    db.execute("update orders set note = note")
    same = [{"id": 1, "note": "a"}]
    assert published(db) == [("delete", [], []), ("insert", same, []), ("update", same, same)]


def test_numbers_that_are_equal_but_look_different_are_a_change(db):
    db.execute("create table prices (id int primary key, price numeric)")
    enable(db, "prices")
    db.execute("insert into prices values (1, 1.0)")
    db.execute("update prices set price = 1.00")
    assert db.execute("select payload #>> '{inserted,0,price}' from tide.message where id = 2").fetchone() == ("1.00",)


def test_a_large_statement_comes_in_chunks_below_the_limit(db):
    enable(db, max_payload_bytes=1000)
    db.execute("insert into orders select i, repeat('x', i % 90) from generate_series(1, 200) i")
    sizes = [size for (size,) in db.execute("select size from tide.message")]
    assert len(sizes) > 10
    assert max(sizes) <= 1000
    assert sorted(sizes)[len(sizes) // 2] > 800
    chunks = payloads(db)
    assert [chunk["chunk"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert [chunk["last"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert len({chunk["statement"] for chunk in chunks}) == 1
    assert [row["id"] for chunk in chunks for row in chunk["inserted"]] == list(range(1, 201))
    db.execute("update orders set note = note || 'y' where id <= 40")
    for chunk in payloads(db)[len(chunks) :]:
        assert [row["id"] for row in chunk["inserted"]] == [row["id"] for row in chunk["deleted"]]
    assert db.execute("select max(size) <= 1000 from tide.message").fetchone() == (True,)


@pytest.mark.parametrize("mode", ["statement", "row"])
def test_a_row_that_fits_into_no_message_is_refused_and_so_is_its_statement(db, mode):
    enable(db, mode=mode, max_payload_bytes=1000)
    with refused("54000", 'table "public.orders"', '"public.orders" is 1000', hint="max_payload_bytes"):
        db.execute("insert into orders values (1, 'a'), (2, repeat('x', 1000))")
    assert db.execute("select count(*) from orders").fetchone() == (0,)
    assert payloads(db) == []


@pytest.mark.parametrize("mode", ["statement", "row"])
def test_every_row_size_up_to_the_limit_is_published_or_refused(db, mode):
    """The guess of what surrounds the rows is never too low: no message is larger than the limit."""
    enable(db, mode=mode, max_payload_bytes=1000)
    kept = 0
    for length in range(600, 1000, 5):
        with contextlib.suppress(psycopg.errors.ProgramLimitExceeded):
            db.execute("insert into orders values (%s, repeat('x', %s))", [length, length])
            kept += 1
    assert 10 < kept < 75
    assert db.execute("select max(size) <= 1000, count(*) from tide.message").fetchone() == (True, kept)


def test_a_bulk_load_keeps_every_row_in_order(db):
    enable(db)
    with db.cursor().copy("copy orders from stdin") as copy:
        for start in range(0, 200_000, 1000):
            copy.write("".join(f"{i}\tnote {i}\n" for i in range(start, start + 1000)))
    row = db.execute("""
        select count(*), count(distinct r.id), bool_and(r.size <= 1048576), bool_and(r.row_id = r.n - 1)
          from (select m.id, m.size, (r.value ->> 'id')::int as row_id, row_number() over (order by m.id, r.place) as n
                  from tide.message m, jsonb_array_elements(m.payload -> 'inserted') with ordinality r (value, place)) r
        """).fetchone()
    assert row[0] == 200_000
    assert 5 < row[1] < 50
    assert row[2:] == (True, True)


def test_a_bulk_load_in_row_mode_has_a_message_for_each_row(db):
    enable(db, mode="row")
    db.execute("insert into orders select i, 'x' from generate_series(1, 5500) i")
    rows = db.execute("select count(*), bool_and(key = id::text) from tide.message").fetchone()
    assert rows == (5500, True)


def test_a_row_of_which_nothing_comes_of_it_publishes_nothing(db):
    enable(db)
    with db.transaction():
        db.execute("insert into orders values (1, 'a')")
        db.execute("savepoint s")
        db.execute("insert into orders values (2, 'b')")
        db.execute("rollback to s")
        db.execute("insert into orders values (3, 'c')")
    assert [inserted for _, inserted, _ in published(db)] == [[{"id": 1, "note": "a"}], [{"id": 3, "note": "c"}]]


def test_an_upsert_publishes_what_it_inserted_and_what_it_updated(db):
    enable(db)
    db.execute("insert into orders values (1, 'a')")
    db.execute("insert into orders values (1, 'b'), (2, 'c') on conflict (id) do update set note = excluded.note")
    assert sorted(published(db)[1:]) == [
        ("insert", [{"id": 2, "note": "c"}], []),
        ("update", [{"id": 1, "note": "b"}], [{"id": 1, "note": "a"}]),
    ]


def test_a_merge_publishes_each_of_its_actions(pg, db):
    if pg.version < 15:
        pytest.skip("PostgreSQL has MERGE since 15")
    enable(db)
    db.execute("insert into orders values (1, 'a'), (2, 'b')")
    db.execute("""
        merge into orders o using (values (1, 'x'), (2, null), (3, 'y')) s (id, note) on o.id = s.id
         when matched and s.note is null then delete
         when matched then update set note = s.note
         when not matched then insert values (s.id, s.note)""")
    assert sorted(published(db)[1:]) == [
        ("delete", [], [{"id": 2, "note": "b"}]),
        ("insert", [{"id": 3, "note": "y"}], []),
        ("update", [{"id": 1, "note": "x"}], [{"id": 1, "note": "a"}]),
    ]


def test_what_a_foreign_key_does_is_published_too(db):
    db.execute("create table lines (id int primary key, order_id int references orders on delete cascade)")
    enable(db, "lines")
    db.execute("insert into orders values (1, 'a'); insert into lines values (7, 1), (8, 1)")
    db.execute("delete from orders")
    assert published(db, "public.lines")[1] == ("delete", [], [{"id": 7, "order_id": 1}, {"id": 8, "order_id": 1}])


def test_statements_of_functions_and_of_several_tables_are_each_published(db):
    db.execute("create table other (id int)")
    enable(db)
    enable(db, "other")
    db.execute("""do $$ begin
        for i in 1..3 loop insert into orders values (i, null); end loop;
        with gone as (delete from orders where id = 2 returning id) insert into other select id from gone;
    end $$""")
    assert [op for op, _, _ in published(db)] == ["insert", "insert", "insert", "delete"]
    assert published(db, "public.other") == [("insert", [{"id": 2}], [])]


def test_a_pipeline_delivers_them(database, db):
    enable(db)
    make_pipeline(database, outbox="public.orders")
    db.execute("insert into orders values (1, 'a')")
    with reader_of(database) as reader:
        [message] = reader.read(0).messages
    assert b'"op": "insert"' in message.payload


def test_a_disabled_outbox_refuses_changes_of_its_table(db):
    enable(db)
    db.execute("select tide.outbox_disable('public.orders')")
    with refused("55000", 'table "public.orders"', "disabled", hint="tide.outbox_enable"):
        db.execute("insert into orders values (1, 'a')")
    db.execute("select tide.outbox_enable('public.orders')")
    db.execute("insert into orders values (1, 'a')")
    assert len(payloads(db)) == 1


def test_after_disabling_nothing_more_is_published_and_nothing_is_lost(db):
    enable(db)
    db.execute("insert into orders values (1, 'a')")
    db.execute("select tide.table_outbox_disable('orders')")
    db.execute("insert into orders values (2, 'b')")
    assert len(payloads(db)) == 1
    assert db.execute("select count(*) from tide.table_outbox_status()").fetchone() == (0,)
    enable(db, mode="row")
    db.execute("insert into orders values (3, 'c')")
    assert [payload["op"] for payload in payloads(db)] == ["insert", "insert"]
    db.execute("select tide.table_outbox_disable('orders', drop_outbox => true)")
    assert db.execute("select count(*) from tide.outbox").fetchone() == (0,)


def test_a_replica_publishes_nothing(database, db):
    """What logical replication applies was published where it was changed."""
    enable(db)
    with database.admin() as admin:
        admin.execute("set session_replication_role = replica")
        admin.execute("insert into orders values (1, 'a')")
    assert payloads(db) == []


def test_a_transaction_older_than_the_outbox_is_told_to_try_again(database, db):
    with database.connect() as old:
        old.execute("begin isolation level repeatable read")
        old.execute("select count(*) from tide.setting")
        enable(db)
        with refused("40001", "became an outbox", hint="again"):
            old.execute("insert into orders values (1, 'a')")
