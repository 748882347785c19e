"""What every operation promises its callers, on a connection of theirs: errors of our tree, and values that stay."""

import dataclasses
import importlib
import io
import pkgutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from relay import operations
from relay.database.connection import Connection
from relay.errors import ConfigError, MigrationError, NotConnected
from relay.operations import (
    dead_letters,
    history,
    inboxes,
    job_actions,
    job_queues,
    job_schedules,
    jobs,
    outboxes,
    pipelines,
    replays,
    restore,
)
from relay.operations.job_errors import KeyInUse, NoSuchJob, NotPossible
from relay.operations.pg_tide.importer import import_pg_tide
from relay.operations.pipelines import RoutedTable
from relay.operations.publish import publish_lines
from relay.operations.receive import receive_lines
from tests.services.postgres import Database

Operation = Callable[[Connection], object]

FORWARD = pipelines.define('{"sink_type": "stdout"}')
REVERSE = pipelines.define('{"source_type": "stdin"}')
NO_JOB = "00000001-0000-8000-8000-000000000001"
TABLE = RoutedTable("no_such_table", {}, {}, existing=False, existing_order=None)

ON_WHAT_IS_NOT_THERE: dict[str, Operation] = {
    "pipelines.show": lambda db: pipelines.show(db, "nope"),
    "pipelines.enable": lambda db: pipelines.enable(db, "nope"),
    "pipelines.disable": lambda db: pipelines.disable(db, "nope"),
    "pipelines.delete": lambda db: pipelines.delete(db, "nope"),
    "pipelines.validate": lambda db: pipelines.validate(db, ["nope"]),
    "pipelines.set_pipeline, outbox": lambda db: pipelines.set_pipeline(db, "p", "nope", FORWARD),
    "pipelines.set_pipeline, inbox": lambda db: pipelines.set_pipeline(db, "p", "nope", REVERSE),
    "pipelines.set_pipeline, neither": lambda db: pipelines.set_pipeline(db, "p", None, FORWARD),
    "pipelines.set_pipeline, reverse with a group": lambda db: pipelines.set_pipeline(db, "p", "i", REVERSE, group="g"),
    "pipelines.set_pipeline, table": lambda db: pipelines.set_pipeline(db, "p", None, FORWARD, table=TABLE),
    "dead_letters.list_dead_letters": lambda db: dead_letters.list_dead_letters(db, "nope"),
    "dead_letters.show": lambda db: dead_letters.show(db, 99),
    "dead_letters.retry": lambda db: dead_letters.retry(db, [99]),
    "dead_letters.retry_all": lambda db: dead_letters.retry_all(db, "nope"),
    "dead_letters.discard": lambda db: dead_letters.discard(db, [99]),
    "dead_letters.discard_all": lambda db: dead_letters.discard_all(db, "nope"),
    "dead_letters.stats": lambda db: dead_letters.stats(db, "nope"),
    "replays.preview": lambda db: replays.preview(db, "nope", 1, 2),
    "replays.request": lambda db: replays.request(db, "nope", 1, 2),
    "replays.list_replays": lambda db: replays.list_replays(db, "nope"),
    "replays.cancel": lambda db: replays.cancel(db, 99),
    "history.read": lambda db: history.read(db, "nope"),
    "replays.span": lambda db: replays.span(db, "nope", None, None),
    "outboxes.show": lambda db: outboxes.show(db, "nope"),
    "inboxes.status": lambda db: inboxes.status(db, "nope"),
    "inboxes.list_messages": lambda db: inboxes.list_messages(db, "nope", inboxes.Wanted()),
    "inboxes.replay": lambda db: inboxes.replay(db, "nope", ["a"]),
    "inboxes.replay_dead": lambda db: inboxes.replay_dead(db, "nope"),
    "publish_lines, none": lambda db: list(publish_lines(db, "nope", io.BytesIO(b""))),
    "outboxes.create": lambda db: outboxes.create(db, ""),
    "jobs.enqueue": lambda db: jobs.enqueue(db, jobs.NewJob("nope", "send")),
    "jobs.list_jobs": lambda db: jobs.list_jobs(db, jobs.Filter("nope")),
    "jobs.show": lambda db: jobs.show(db, NO_JOB),
    "jobs.attempts": lambda db: jobs.attempts(db, NO_JOB),
    "job_actions.cancel": lambda db: job_actions.cancel(db, NO_JOB),
    "job_actions.cancel_many": lambda db: job_actions.cancel_many(db, jobs.Filter("nope")),
    "job_actions.replay": lambda db: job_actions.replay(db, NO_JOB),
    "job_actions.replay_many": lambda db: job_actions.replay_many(db, jobs.Filter()),
    "job_actions.purge": lambda db: job_actions.purge(db, "nope"),
    "job_actions.drain": lambda db: job_actions.drain(db, "nope", 0),
    "job_schedules.set_schedule": lambda db: job_schedules.set_schedule(db, "s", "@daily", jobs.NewJob("nope", "n")),
    "job_schedules.enable": lambda db: job_schedules.enable(db, "nope"),
    "job_schedules.disable": lambda db: job_schedules.disable(db, "nope"),
    "job_schedules.delete": lambda db: job_schedules.delete(db, "nope"),
    "job_queues.show": lambda db: job_queues.show(db, "nope"),
    "job_queues.create": lambda db: job_queues.create(db, "no/pe"),
    "job_queues.change": lambda db: job_queues.change(db, "nope", {}),
    "job_queues.pause": lambda db: job_queues.pause(db, "nope"),
    "job_queues.resume": lambda db: job_queues.resume(db, "nope"),
    "job_queues.drop": lambda db: job_queues.drop(db, "nope"),
    "job_queues.stats": lambda db: job_queues.stats(db, "nope"),
    "restore.restored": lambda db: restore.restored(db, ["nope"]),
    "import_pg_tide": import_pg_tide,
    "publish_lines": lambda db: list(publish_lines(db, "nope", io.BytesIO(b"1\n"))),
    "receive_lines": lambda db: list(receive_lines(db, "nope", io.BytesIO(b"1\n"), "r")),
}


@pytest.fixture
def db(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        yield connection


def test_what_is_not_there_is_a_config_error_that_says_what(db: Connection) -> None:
    for name, operation in ON_WHAT_IS_NOT_THERE.items():
        print(name)
        with pytest.raises(ConfigError, match=r"."):
            operation(db)
        assert db.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


@pytest.mark.parametrize("operation", [pipelines.list_pipelines, dead_letters.stats, history.read])
def test_a_database_without_the_schema_and_a_lost_one_are_told_apart(
    empty_database: Database, operation: Operation
) -> None:
    with empty_database.connect() as connection:
        with pytest.raises(MigrationError, match="relay migrate"):
            operation(connection)
        connection.close()
        with pytest.raises(NotConnected):
            operation(connection)


def test_results_hold_ids_codes_and_times_and_no_secret(db: Connection) -> None:
    outboxes.create(db, "orders")
    secret = pipelines.define(
        '{"sink_type": "nats", "url": "nats://u:hidden-one@h", "stream": "s", "token": "t0ken-2"}'
    )
    assert secret.has_plain_secret and secret.direction == "forward"
    assert pipelines.set_pipeline(db, "p", "orders", secret) == "orders"
    db.execute("select tide.outbox_publish('orders', '1'); select tide.outbox_publish('orders', '2')")
    db.execute(
        "insert into tide.dead_letter (pipeline, outbox, message_id, payload, headers, code, reason, published_at)"
        " select 'p', 'orders', n, '12345678901234567890.10', '{}', 'bad', 'at nats://u:hidden-one@h', now()"
        " from generate_series(1, 2) n"
    )
    shown = pipelines.show(db, "p")
    assert (shown.state, shown.direction, shown.outbox, shown.consumer_group) == ("enabled", "forward", "orders", "p")
    page = dead_letters.list_dead_letters(db, "p", limit=1)
    [summary] = page.dead_letters
    assert page.next_after_id == summary.dead_letter_id
    letter = dead_letters.show(db, summary.dead_letter_id)
    assert (letter.code, letter.message_id, letter.payload) == ("bad", 1, "12345678901234567890.10")
    assert dead_letters.retry(db, [letter.dead_letter_id]) == dead_letters.Retry(["p"], 1, [])
    [change] = history.read(db, "p")
    for moment in (shown.updated_at, summary.failed_at, letter.first_failed_at, change.changed_at):
        assert timedelta() <= datetime.now(UTC) - moment < timedelta(minutes=5)
    for result in (shown, page, letter, change):
        assert "hidden-one" not in str(result) and "t0ken-2" not in str(result)


def test_callers_can_distinguish_what_is_refused_of_jobs(db: Connection) -> None:
    with pytest.raises(NoSuchJob):
        jobs.enqueue(db, jobs.NewJob("mail", "send"))
    job_queues.create(db, "mail", {"key_limit": 2})
    with pytest.raises(NotPossible):
        job_queues.create(db, "mail")
    first = jobs.enqueue(db, jobs.NewJob("mail", "send", idempotency_key="k"))
    with pytest.raises(KeyInUse, match=first.job):
        jobs.enqueue(db, jobs.NewJob("mail", "other", idempotency_key="k"))
    with pytest.raises(NotPossible):
        job_actions.replay(db, first.job)
    with pytest.raises(ConfigError) as caught:
        jobs.enqueue(db, jobs.NewJob("mail", "send", priority=9999))
    assert type(caught.value) is ConfigError
    assert [job.job for job in jobs.list_jobs(db, jobs.Filter()).jobs] == [first.job]


def test_a_dry_run_finds_what_would_fail_and_changes_nothing(db: Connection) -> None:
    outboxes.create(db, "orders")
    assert pipelines.set_pipeline(db, "p", "orders", FORWARD, dry_run=True) == "orders"
    with pytest.raises(ConfigError):
        pipelines.set_pipeline(db, "p", "nope", FORWARD, dry_run=True)
    assert pipelines.list_pipelines(db) == [] and history.read(db) == []


def test_every_result_is_frozen() -> None:
    read_not_returned = ("relay.operations.pg_tide.catalog", "relay.operations.pg_tide.translate")
    modules = pkgutil.walk_packages(operations.__path__, "relay.operations.")
    values = {value for module in modules for value in vars(importlib.import_module(module.name)).values()
              if isinstance(value, type) and dataclasses.is_dataclass(value)}  # fmt: skip
    results = [value for value in values if value.__module__.startswith("relay.operations")]
    assert len(results) > 15
    thawed = [value for value in results if not value.__dataclass_params__.frozen]
    assert {value.__module__ for value in thawed} <= set(read_not_returned), thawed
