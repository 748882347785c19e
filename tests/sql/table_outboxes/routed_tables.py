"""What the tests of routed tables share: a table in the form of Debezium's outbox, and what it publishes."""

from psycopg.types.json import Jsonb

TABLE = """create table public.outbox (
    id uuid primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
    type varchar(255) not null, payload jsonb)"""
ROW = "insert into public.outbox values (%s, 'order', %s, 'OrderCreated', %s)"
IDS = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(10)]


def route(connection, table="public.outbox", **options):
    named = ["%s::regclass", *(f"{option} => %s" for option in options)]
    values = [Jsonb(value) if isinstance(value, dict) else value for value in options.values()]
    (name,) = connection.execute(f"select tide.table_outbox_route({', '.join(named)})", [table, *values]).fetchone()
    return name


def messages(connection, outbox="public.outbox"):
    return connection.execute(
        "select m.key, m.headers, m.payload from tide.message m join tide.outbox o using (outbox_id)"
        " where o.name = %s order by m.id",
        [outbox],
    ).fetchall()


def ids(connection, outbox="public.outbox"):
    return [headers["id"] for _, headers, _ in messages(connection, outbox)]


def insert(connection, number, payload=None):
    connection.execute(ROW, [IDS[number], f"customer-{number}", Jsonb(payload)])
