"""Plans written by hand, one of each kind: what the engine has to be able to do, whatever derives them."""

from typing import Any

from psycopg.types.json import Jsonb

from tests.sql.streams.streams import Connection, pipeline

TABLES = """
    create table orders (order_id int primary key, region text, amount numeric, customer_id int);
    create table customers (customer_id int primary key, name text);
    insert into customers values (1, 'ann'), (2, 'bob');
    insert into orders values (1, 'north', 10, 1), (2, 'south', 20, 2), (3, 'north', 5, null), (4, null, 1, 1);
"""
SUMS = "select region, count(*) as orders, sum(amount) as amount from orders group by region"
TOTAL = "select count(*) as orders, sum(amount) as amount from orders"
JOINED = "select o.region, c.name from orders o join customers c on c.customer_id = o.customer_id"
LEFT = (
    "select c.customer_id, c.name, o.order_id, o.amount from customers c left join orders o"
    " on o.customer_id = c.customer_id"
)
FIRST = "select distinct on (region) region, amount, order_id from orders order by region, order_id"


class Ids:
    """The numbers by which kept statements name tables."""

    def __init__(self, connection: Connection, name: str) -> None:
        [(self.stream,)] = connection.execute("select (tide.find_stream(%s)).stream_id", [name]).fetchall()
        [(self.orders, self.customers)] = connection.execute(
            "select 'orders'::regclass::oid, 'customers'::regclass::oid"
        ).fetchall()


def keep(connection: Connection, name: str, plan: dict[str, Any]) -> None:
    connection.execute("select tide.stream_keep(%s, %s)", [pipeline(connection, name), Jsonb(plan)])


def change(sources: list[int], strategy: str, form: str, text: str | None, reason: str | None = None) -> dict[str, Any]:
    return {"sources": sources, "strategy": strategy, "form": form, "text": text, "reason": reason}


def rows_plan(key: list[str] | None, changes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    plan = {
        "version": 1,
        "kind": "rows",
        "key": key,
        "groups": 0,
        "fields": [],
        "out": None,
        "whole": None,
        "indexes": [],
    }
    return {**plan, "changes": changes, "exact": {}, **more}


def sums_plan(ids: Ids) -> dict[str, Any]:
    """Linear: one table, by groups."""
    state = """
        select region as k0, {n}::bigint as n, coalesce({c}, 0)::bigint as c0, coalesce({s}, 0)::numeric as s0
          from {table} group by region"""
    return {
        "version": 1,
        "kind": "state",
        "key": ["region"],
        "groups": 1,
        "fields": [{"kind": "sum", "type": "numeric"}],
        "out": (
            f"select k0 as region, n as orders, case when c0 > 0 then s0 end as amount from tide_stream.s_{ids.stream}"
        ),
        "whole": state.format(n="count(*)", c="count(amount)", s="sum(amount)", table="public.orders"),
        "changes": [
            change(
                [ids.orders],
                "linear",
                "state",
                state.format(
                    n='sum("__w")',
                    c='sum("__w") filter (where amount is not null)',
                    s='sum(amount * "__w")',
                    table=f"tide_stream.d_{ids.orders}",
                ),
            )
        ],
        "exact": {},
        "indexes": [],
    }


def total_plan(ids: Ids) -> dict[str, Any]:
    """Linear: one row, without groups."""
    plan = sums_plan(ids)
    texts = {name: plan[name].replace("region as k0, ", "").replace(" group by region", "") for name in ("whole",)}
    [one] = plan["changes"]
    one["text"] = (
        one["text"]
        .replace("region as k0, ", "")
        .replace(" group by region", "")
        .replace('sum("__w")::', 'coalesce(sum("__w"), 0)::')
    )
    out = f"select n as orders, case when c0 > 0 then s0 end as amount from tide_stream.s_{ids.stream}"
    return {**plan, "key": [], "groups": 0, "out": out, **texts}


def joined_plan(ids: Ids) -> dict[str, Any]:
    """Linear: rows of a join, of which several may be equal."""
    orders, customers = "public.orders o", "public.customers c"
    new_orders, new_customers = f"tide_stream.d_{ids.orders} o", f"tide_stream.d_{ids.customers} c"
    term = 'select o.region, c.name, ({w})::bigint as "__w" from {o} join {c} on c.customer_id = o.customer_id'
    of_orders = term.format(w='o."__w"', o=new_orders, c=customers)
    of_customers = term.format(w='c."__w"', o=orders, c=new_customers)
    of_both = term.format(w='-(o."__w" * c."__w")', o=new_orders, c=new_customers)
    return rows_plan(
        None,
        [
            change([ids.orders], "linear", "rows", of_orders),
            change([ids.customers], "linear", "rows", of_customers),
            change(
                [ids.orders, ids.customers],
                "linear",
                "rows",
                f"{of_orders} union all {of_customers} union all {of_both}",
            ),
        ],
    )


def left_plan(ids: Ids) -> dict[str, Any]:
    """Keyed: a LEFT JOIN, of which the affected customers are computed again."""
    affected = {
        ids.orders: f"select customer_id from tide_stream.d_{ids.orders}",
        ids.customers: f"select customer_id from tide_stream.d_{ids.customers}",
    }

    def text(*sources: int) -> str:
        keys = " union ".join(affected[source] for source in sources)
        return f"""
            with k as materialized ({keys})
            select c.customer_id, c.name, o.order_id, o.amount, 1::bigint as "__w"
              from (select t.customer_id, t.name from public.customers t
                     where t.customer_id in (select customer_id from k)) c
              left join (select t.order_id, t.customer_id, t.amount from public.orders t
                          where t.customer_id in (select customer_id from k)) o
                on o.customer_id = c.customer_id
             union all
            select t.customer_id, t.name, t.order_id, t.amount, -1 from public.found t
             where t.customer_id in (select customer_id from k)"""

    changes = [
        change(list(some), "keyed", "rows", text(*some))
        for some in ([ids.orders], [ids.customers], [ids.orders, ids.customers])
    ]
    return rows_plan(["customer_id", "order_id"], changes, indexes=[["customer_id"]])


def first_plan(ids: Ids) -> dict[str, Any]:
    """Keyed: DISTINCT ON, with a null among the keys."""
    keys = f"(select region from tide_stream.d_{ids.orders})"
    among = (
        f"(region in {keys} or region is null and exists (select from"
        f" tide_stream.d_{ids.orders} d where d.region is null))"
    )
    text = f"""
        select f.region, f.amount, f.order_id, 1::bigint as "__w"
          from (select distinct on (region) region, amount, order_id from public.orders
                 where {among} order by region, order_id) f
         union all
        select region, amount, order_id, -1 from public.found where {among}"""
    return rows_plan(["region"], [change([ids.orders], "keyed", "rows", text)], indexes=[["region"]])


PLANS = {SUMS: sums_plan, TOTAL: total_plan, JOINED: joined_plan, LEFT: left_plan, FIRST: first_plan}
