"""`relay pipeline set --from-table`: a table in the form of Debezium's outbox, and its pipeline."""

import json

import psycopg
import pytest

from tests.cli.command import invoke
from tests.services.postgres import Database


@pytest.fixture
def url(database: Database) -> str:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders')")
    return database.url


TABLE = """create table public.events (
    event_id int primary key, aggregatetype text not null, aggregateid text, type text, payload jsonb, trace text,
    made int)"""


def test_a_table_is_routed_with_its_pipeline_or_neither(url: str) -> None:
    config = json.dumps({"sink_type": "file", "path": "/tmp/x"})
    given = ["pipeline", "set", "p", "--from-table", "public.events", "--config", config]
    more = ["--column", "id=event_id", "--header", "traceparent=trace"]
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(TABLE)
        db.execute("insert into events values (2, 'a', 'k', 't', '2', 'x', 2), (1, 'a', 'k', 't', '1', null, 1)")
        refused = invoke(*given, url=url)
        assert refused.exit_code == 1
        assert "no column 'id'" in refused.stderr
        tried = invoke(*given, *more, "--existing", "--dry-run", url=url)
        assert (tried.exit_code, tried.stdout) == (
            0, "pipeline p could be set, from table public.events, outbox public.events\n")  # fmt: skip
        assert db.execute("select count(*) from tide.table_outbox_status()").fetchone() == (0,)
        for _ in range(2):
            done = invoke(*given, *more, "--existing", "--existing-order", "made", url=url)
            assert done.exit_code == 0, done.output
        sent = db.execute("select headers ->> 'id', headers ->> 'traceparent' from tide.message order by id").fetchall()
        assert sent == [("1", None), ("2", "x")]
    assert json.loads(invoke("pipeline", "show", "p", url=url).stdout)["outbox"] == "public.events"


def test_a_pipeline_that_cannot_be_made_routes_no_table(url: str) -> None:
    config = json.dumps({"sink_type": "file", "path": "/tmp/x"})
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(TABLE)
        given = ["--from-table", "events", "--column", "id=event_id", "--config", config]
        refused = invoke("pipeline", "set", "?", *given, url=url)
        assert refused.exit_code == 1
        assert db.execute("select count(*) from tide.outbox where name <> 'orders'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--from-table"),
        (["--header", "a=b", "orders"], "need --from-table"),
        (["--from-table", "t", "--column", "id"], "write NAME=COLUMN"),
        (["--from-table", "t", "--existing-order", "x"], "needs --existing"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(url: str, options: list[str], said: str) -> None:
    used = invoke("pipeline", "set", "p", *options, "--config", '{"sink_type": "stdout"}', url=url)
    assert used.exit_code == 2
    assert said in used.stderr
