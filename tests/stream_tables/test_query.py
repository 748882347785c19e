"""What is understood of a query, and what is refused, with the reason."""

import pytest

from relay.stream_tables import Unsupported
from relay.stream_tables.dialect import parse, write
from relay.stream_tables.query import guard
from tests.stream_tables.oracle import describe, reader

REFUSED = {
    "select id from people offset 3": "it has LIMIT or OFFSET",
    "select id from people order by id limit (select count(*) from sales)": "it has LIMIT or OFFSET",
    "select id from people union all select id from sales limit 1": "it has LIMIT or OFFSET",
    "with recursive r(n) as (select 1 union all select n + 1 from r where n < 3) select r.n, p.id from r, people p":
        "it has WITH RECURSIVE",
    "select team, city, count(*) as n from people group by rollup (team, city)": "Rollup is not understood yet",
    "select people::text as whole from people": "it reads whole rows",
    "select o.id from only people o": "only of TABLE is not understood yet",
    "select ';' || city as city from people": "a name or a text in the query contains a semicolon",
    "select 1 as one": "it reads no table",
    "select id, now() as at from people": "it calls now(), whose result may change at any time",
    "select id from people where (team not in (select score from people)) is null":
        "public.people is read in a subquery or an outer join, and no column joins all of it to a column outside",
    "select id, rank() over (order by score) as place from people":
        "its result depends on all rows of public.people at once",
    "select mode() within group (order by score) as m from people": "changes cannot be added to mode()",
    "select sum(rate) as s from prices": "sums of double precision are not exact",
    "select avg(price) as m from prices": "the digits of a quotient depend on numerics whose scale is not declared",
    "select price::text as shown, count(*) as n from prices group by price":
        "it shows the form of a numeric by which it groups",
    "select secret from hidden": "public.hidden has row security",
    "select doc ->> 'a' as a from documents": "column doc of public.documents is of type json, which has no hash",
    "select x.n from people p, generate_series(1, (select max(team) from sales)) x(n)":
        "a function in FROM reads a subquery",
}  # fmt: skip

# Written back, these say something else, or say it in other words, which is not told from something else.
MISREAD = [
    "select id, B'101' as bits from people",  # a bit(1): the other two are cut off
    "select id, score ^ 2 as square from people",
    "select id, |/ score as root from people",
]


@pytest.fixture(scope="module")
def oracle(oracle):
    oracle.connection.execute("create table hidden (secret text); alter table hidden enable row level security")
    oracle.connection.execute("create table documents (doc json)")
    return oracle


@pytest.mark.parametrize("query", REFUSED)
def test_what_is_not_proven_is_refused_with_a_reason(oracle, query):
    assert oracle.add(query).reason == REFUSED[query]


@pytest.mark.parametrize("query", MISREAD)
def test_the_guard_refuses_what_reads_differently_when_written_back(oracle, query):
    assert oracle.add(query).reason == "its text was not understood: written back, it reads differently"


def test_without_the_guard_another_query_would_be_computed(oracle):
    """What the guard is for: PostgreSQL makes of the text that was written back a query with another result."""
    stream = oracle.add(MISREAD[0])
    back = write(parse(stream.described.query))
    connection = oracle.connection
    connection.execute("insert into people values (1, 1, 'Bern', 1, now())")
    [(bits,)] = connection.execute(f"select bits from ({stream.described.query}) q").fetchall()
    [(other,)] = connection.execute(f"select bits from ({back}) q").fetchall()
    assert (bits, other) == ("101", "1")


def test_the_guard_reads_the_views_below_too(oracle):
    oracle.connection.execute("create view bits as select id, B'101' as bits from people")
    assert oracle.add("select id from bits").reason == "its text was not understood: written back, it reads differently"


def test_a_text_that_postgresql_refuses_is_unsupported(oracle):
    stream = oracle.add("select id from people")
    [(pipeline,)] = oracle.connection.execute(
        "select pipeline from tide.stream where stream_id = %s", [stream.described.stream_id]
    )
    with pytest.raises(Unsupported, match='column "missing" does not exist'):
        guard(parse("select missing from public.people"), "", reader(oracle.connection, pipeline))


@pytest.mark.parametrize(
    "query",
    [
        'select "left"(city, 2) as l, strpos(city, \'e\') as p, "substring"(city, 1, 2) as s from people',
        "select substring(city from 2) as t, substring(city from 2 for 3) as u, trim(city) as v from people",
        "select extract(hour from joined) as h, joined at time zone 'UTC' as u, position('e' in city) as p from people",
        "select spec -> 'a' as a, spec #>> '{a,b}' as b, spec ? 'c' as c, spec @> '{}' as d from prices",
        "select case city when 'Bern' then 1 end as c, nullif(score, 3) as n, greatest(score, team) as g from people",
        "select city like 'B%' as l, city not like 'x' as n, city ~ 'x' as r, city in ('Bern', 'x') as i from people",
        'select note::text collate "C" as n, amount::numeric(12,4) as a, -amount as m, amount % 2 as r from sales',
        "select array[score, team] as a, (array[score, team])[1] as f, row(score, team) = row(1, 2) as r from people",
    ],
)
def test_expressions_are_written_as_they_were_read(oracle, query):
    assert oracle.add(query).plan


def test_names_that_need_quotes_or_were_changed_later(oracle):
    connection = oracle.connection
    connection.execute("""create table "Odd names" ("select" int primary key, "A b" text, "c""d" int)""")
    stream = oracle.add("""select "select", "A b" as "x y", "c""d" from "Odd names" "From" """)
    assert stream.plan
    assert stream.plan.key == ("select",)
    connection.execute("""alter table "Odd names" rename "A b" to "Now" """)
    [(pipeline,)] = connection.execute(
        "select pipeline from tide.stream where stream_id = %s", [stream.described.stream_id]
    )
    described = describe(connection, pipeline)
    assert [column.name for column in described.columns] == ["select", "x y", 'c"d']
    assert described.sources[0].captured == ("select", "Now", 'c"d')
