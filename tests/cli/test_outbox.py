"""`relay outbox`: what is there, and who reads it."""

import json

from tests.cli.command import invoke
from tests.services.postgres import Database
from tests.sql.support import make_pipeline, publish_many


def test_outboxes_are_listed_and_one_is_shown_with_its_readers(database: Database) -> None:
    make_pipeline(database, "p", "orders", retention_hours=48)
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('alone'), tide.job_queue_create('mail')")
        connection.execute("select tide.outbox_disable('alone'), tide.create_consumer_group('g', 'orders')")
        publish_many(connection, 3)
        connection.execute("update tide.consumer_group set offset_id = 2 where name = 'p'")
    lines = [line.split() for line in invoke("outbox", "list", url=database.url).stdout.splitlines()[1:]]
    assert lines == [
        ["alone", "disabled", "0", "0", "24", "1048576"],
        ["orders", "enabled", "3", "2", "3", "48", "1048576"],
    ]
    found = json.loads(invoke("outbox", "list", "--json", url=database.url).stdout)
    assert [(one["outbox"], one["enabled"], one["lag"]) for one in found] == [
        ("alone", False, None),
        ("orders", True, 3),
    ]
    shown = json.loads(invoke("outbox", "show", "orders", url=database.url).stdout)
    assert (shown["last_id"], shown["horizon"], shown["open_publishers"], shown["retention_hours"]) == (3, 3, 0, 48)
    assert shown["readers"] == [
        {"consumer_group": "g", "pipeline": None, "offset_id": 0, "lag": 3},
        {"consumer_group": "p", "pipeline": "p", "offset_id": 2, "lag": 1},
    ]


def test_what_is_no_outbox_is_said_with_what_to_do(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("select tide.job_queue_create('mail')")
    for name, said in (
        ("nope", "outbox nope does not exist; list them: relay outbox list"),
        ("jobs/mail", "is a queue of jobs: see relay jobs queue show mail"),
    ):
        result = invoke("outbox", "show", name, url=database.url)
        assert (result.exit_code, said in result.stderr) == (1, True), result.output
