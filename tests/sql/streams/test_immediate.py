"""Mode IMMEDIATE: the table equals its query after every statement of its writers."""

import pytest

from tests.sql.streams.maintained import maintain
from tests.sql.streams.streams import assert_equal

TABLES = """
    create table orders (order_id int primary key, region text, amount numeric(10, 2), customer_id int, note text);
    create table customers (customer_id int primary key, name text);
    insert into customers select i, 'c' || i from generate_series(1, 9) i;
    insert into orders select i, (array['n', 's', null])[1 + i % 3], i, 1 + i % 8 from generate_series(1, 30) i;
    create table parts (day date, id int, value int) partition by range (day);
    create table parts_1 partition of parts for values from ('2026-01-01') to ('2026-02-01');
    create table parts_2 (value int, id int, day date);
    alter table parts attach partition parts_2 for values from ('2026-02-01') to ('2026-03-01');
    insert into parts values ('2026-01-05', 1, 10), ('2026-02-05', 2, 20);
    create table nodes (id int primary key, above int references nodes on delete cascade, kind text);
    create index on nodes (above);
    insert into nodes select i, nullif(i / 2, 0), (array['a', 'b'])[1 + i % 2] from generate_series(1, 20) i;
    -- A trigger of others that writes to the table that it is of.
    create function more() returns trigger language plpgsql as $$ begin
        if pg_trigger_depth() = 1 then insert into nodes select max(id) + 1, null, 'more' from nodes; end if;
        return null;
    end $$;
    create trigger a_trigger after insert on nodes for each statement execute function more();
"""
SHAPES = {
    "sums": "select region, count(*) as orders, sum(amount) as amount, avg(amount) as mean from orders group by region",
    "total": "select count(*) as orders, sum(amount) as amount from orders",
    "having": "select region, count(amount) as orders from orders group by region having count(*) > 3",
    "hidden": "select sum(amount) as amount from orders group by region, customer_id",
    "regions": "select distinct region from orders",
    "large": "select order_id, region, amount * 2 as twice from orders where amount > 10",
    "amounts": "select amount from orders where region = 'n'",
    "most": """
        select region, max(amount) as most, string_agg(note, ',' order by order_id) as notes
          from orders group by region""",
    "ranked": """
        select order_id, customer_id, row_number() over (partition by customer_id order by amount desc, order_id) as n
          from orders""",
    "everyone": """
        select c.customer_id, c.name, count(o.order_id) as orders, sum(o.amount) as amount
          from customers c left join orders o on o.customer_id = c.customer_id group by c.customer_id, c.name""",
    "joined": """
        select o.order_id, c.customer_id, c.name from orders o join customers c on c.customer_id = o.customer_id""",
    "both": "select order_id as id, region as name from orders union all select customer_id, name from customers",
    "kinds": "select kind, count(*) as nodes, count(above) as below from nodes group by kind",
    "below": """
        select a.id, a.kind, count(b.id) as below from nodes a left join nodes b on b.above = a.id
         group by a.id, a.kind""",
    "days": "select day, count(*) as rows, sum(value) as value from parts group by day",
}
STATEMENTS = """
    insert into orders values (100, 'n', 50, 1, 'x'), (101, 'new', 1, 99, null), (102, null, null, null, 'y');
    update orders set amount = amount + 1 where order_id < 20;
    update orders set note = note || '.' where order_id > 3;
    update orders set region = 'w', order_id = order_id + 1000 where order_id in (3, 4, 5);
    delete from orders where region = 'new' or order_id = 102;
    insert into orders values (6, 's', 7, 2), (200, 's', 8, 2)
        on conflict (order_id) do update set region = excluded.region, amount = excluded.amount;
    with gone as (delete from customers where customer_id < 4 returning customer_id),
         moved as (update orders set customer_id = 5 where customer_id < 3)
    insert into orders select 300 + customer_id, 'n', 3, customer_id from gone;
    with gone as (delete from orders where order_id = 7), more as (insert into orders values (400, 's', 4, 5))
    update customers set name = 'z' where customer_id = 5;
    update orders set customer_id = customer_id + 1;
    insert into orders select 5000 + i, 'bulk', i, i % 10 from generate_series(1, 400) i;
    delete from orders where region = 'bulk';
    insert into parts values ('2026-01-06', 3, 1), ('2026-02-06', 4, 2);
    insert into parts_2 (id, day, value) values (5, '2026-02-07', 3);
    update parts set day = '2026-01-09' where id = 2;
    insert into nodes values (30, 3, 'a'), (31, 30, 'b');
    delete from nodes where id in (2, 30);
    update nodes set above = 1, kind = 'c' where id > 5;
    truncate parts_2;
    truncate customers;
    truncate orders, parts;
    insert into orders values (1, 'n', 1.5, 1);
    insert into customers values (1, 'ann')"""
MERGE = """
    ;merge into orders o using (values (1, 'm', 2), (2, 'm', 3), (3, 'm', 4)) v (order_id, region, amount)
        on o.order_id = v.order_id
      when matched then update set region = v.region
      when not matched then insert values (v.order_id, v.region, v.amount)
    ;merge into orders o using customers c on c.customer_id = o.customer_id when matched then delete"""


@pytest.mark.each_postgres
def test_the_table_equals_its_query_after_every_statement(database):
    with database.connect() as connection:
        connection.execute(TABLES)
        for name, query in SHAPES.items():
            maintain(connection, name, query)
        merges = MERGE if connection.info.server_version >= 150000 else ""
        for statement in (STATEMENTS + merges).split(";"):
            with connection.transaction():
                connection.execute(statement)
                for name in SHAPES:
                    assert_equal(connection, name)
        [modes] = connection.execute(
            "select array_agg(distinct effective_mode || coalesce(behind, '')) from tide.stream_tables()"
        ).fetchall()
        assert modes == (["IMMEDIATE"],)
