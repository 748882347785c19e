"""Stream tables in databases that were restored from a dump: they are computed once, and then follow changes again."""

from contextlib import nullcontext

import pytest

from relay.stream_tables import VERSION
from tests.sql.schema.test_dump import program
from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import Connection, create, pipeline, refresh

pytestmark = pytest.mark.each_postgres

STREAMS = {
    "sums": "select region, sum(amount) as amount from orders group by region",
    "large": "select order_id, region from orders where amount > 10",
    "pair": "select s.region, s.amount, l.order_id from sums s join large l on l.region = s.region",
}


def follow(connection: Connection) -> list[str]:
    """Refreshes all as workers do, each judged by its query."""
    actions = []
    for name in STREAMS:
        line = pipeline(connection, name)
        if connection.execute("select tide.stream_prepare(%s, %s)", [line, VERSION]).fetchall() == [(True,)]:
            analyse_and_keep(connection, name)
            connection.execute("select tide.stream_prepare(%s, %s)", [line, VERSION])
        actions.append(refresh(connection, name)[0])
    return actions


@pytest.mark.parametrize("schemas", [[], ["--schema=tide", "--schema=public"]])
def test_a_dump_of_all_and_one_of_the_schema_tide_alone(database, empty_database, tmp_path, schemas):
    with database.connect() as primary:
        primary.execute("create table orders (order_id int primary key, region text, amount numeric)")
        primary.execute("insert into orders select n, 'r' || n % 3, n from generate_series(1, 30) n")
        for name, query in STREAMS.items():
            create(
                primary,
                name,
                query,
                append_only=name == "large",
                refresh_mode="DIFFERENTIAL",
                diamond_consistency="none",
            )
        follow(primary)
        primary.execute("insert into orders values (100, 'late', 100)")
    dump = str(tmp_path / "dump")
    program(database, "pg_dump", "--format=custom", f"--file={dump}", f"--dbname={database.name}", *schemas)
    # Triggers that call what was not dumped are told of, and left out.
    with pytest.raises(AssertionError, match="tide_stream") if schemas else nullcontext():
        program(empty_database, "pg_restore", f"--dbname={empty_database.name}", dump)
    with empty_database.connect() as restored:
        restored.execute("insert into orders values (101, 'later', 101)")
        restored.execute("update orders set amount = amount + 1 where order_id = 1")
        assert follow(restored) == ["FULL"] * 3
        for number in range(2):
            restored.execute("insert into orders values (%s, 'r1', 50)", [200 + number])
            restored.execute("update orders set region = 'r2' where order_id = %s", [5 + number])
            assert follow(restored) == ["DIFFERENTIAL"] * 3
        restored.execute("select tide.drop_stream_table('pair')")
