"""Analysis and refresh together: each stream table equals its query after each refresh, whatever changed."""

import pytest

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import create, refresh
from tests.stream_tables.tables import TABLES, Changes

QUERIES = {
    "rows": "select id, team, score from people where score > 3",
    "no key": "select team, pages from visits where pages > 0",
    "sums": (
        "select team, count(*) as n, sum(amount) as amount, avg(amount) as mean, count(note) as"
        " notes from sales group by team"
    ),
    "having": "select city, count(*) as n from people group by city having count(*) > 1",
    "total": "select count(*) as n, sum(pages) as pages from visits",
    "sums of forms": "select item, sum(price) as price, count(*) as n from prices group by item",
    "forms": "select item, price::text as price, spec::text as spec from prices",
    "floats": "select item, sum(rate) as rate, min(price) as least from prices group by item",
    "distinct": "select distinct city, team from people",
    "join": "select s.id, s.amount, p.city from sales s join people p on p.id = s.person_id",
    "join without keys": "select p.city, v.pages from people p join visits v on v.team = p.team",
    "self join": "select a.id as one, b.id as other from people a join people b on a.team = b.team and a.id < b.id",
    "grouped join": (
        "select p.city, count(*) as n, sum(s.amount) as amount from people p join sales s on"
        " s.team = p.team group by p.city"
    ),
    "left join": "select p.id, p.city, s.id as sale, s.amount from people p left join sales s on s.person_id = p.id",
    "grouped left join": (
        "select p.id, count(s.id) as n, max(s.amount) as most from people p left join sales s on"
        " s.person_id = p.id group by p.id"
    ),
    "exists": (
        "select p.id, p.city from people p where exists (select from sales s where s.person_id = p.id and s.amount > 2)"
    ),
    "in": "select id, score from people where id in (select person_id from tags where tag = 'vip')",
    "distinct on": "select distinct on (team) team, id, score from people order by team, score desc, id",
    "window": "select id, day, value, row_number() over (partition by id order by day) as place from readings",
    "partitions": "select day, count(*) as n, sum(value) as value from readings group by day",
    "extremes": (
        "select team, min(score) as least, max(score) as most, string_agg(city, ',' order by id) as"
        " cities from people group by team"
    ),
    "view": "select city, sum(amount) as amount from team_sales group by city",
    "view with": "select team, count(*) as n from big_sales group by team",
    "union all": "select id, city as name from people union all select id, note from sales",
    "scalar subquery": "select p.id, (select count(*) from tags t where t.person_id = p.id) as tags from people p",
    "three": "select p.city, t.tag, sum(s.amount) as amount from people p join sales s on s.person_id = p.id"
    " join tags t on t.person_id = p.id group by p.city, t.tag",
    "grouped exists": (
        "select p.city, count(*) as n from people p where exists (select from tags t where"
        " t.person_id = p.id) group by p.city"
    ),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_stream_table_equals_its_query_whatever_changes(database, name):
    with database.connect() as connection:
        connection.execute(TABLES)
        changes = Changes(connection, seed=len(name))
        changes.make(60)
        create(connection, "found", QUERIES[name], refresh_mode="DIFFERENTIAL")
        reason = analyse_and_keep(connection, "found")
        assert reason is None, reason
        refresh(connection, "found")
        for _ in range(25):
            changes.make(changes.random.choice([1, 2, 5, 30]))
            if changes.random.random() < 0.2:
                connection.execute("select tide.stream_clean()")
            refresh(connection, "found")
        told = connection.execute("select action, reason, count(*) from tide.stream_history group by 1, 2").fetchall()
        followed = sum(count for action, _, count in told if action == "DIFFERENTIAL")
        assert followed > 3, told
        connection.execute("update tide.stream_state set frontier = null")
        assert refresh(connection, "found") == ("FULL", 0, 0)
        assert connection.execute(
            "select rows_updated from tide.stream_history order by refresh_id desc limit 1"
        ).fetchone() == (0,)
