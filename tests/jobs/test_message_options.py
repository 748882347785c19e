"""What a job says to the broker of an application, from Python: it becomes the options that a hand-off reads."""

from typing import Any

import psycopg
import pytest

from relay.jobs import enqueue_celery, enqueue_dramatiq
from relay.jobs.errors import BadOptions
from tests.services.postgres import Database


def test_the_message_of_a_job_is_in_its_options(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("select tide.job_queue_create('mail')")
        ours: dict[str, Any] = {"queue": "slow", "priority": 3, "celery": {"expires": 60}}
        enqueue_celery(connection, "mail", "sync", [1], message=ours, backoff=5)
        enqueue_dramatiq(connection, "mail", "sync", message={"dramatiq": {"max_age": 1000}})
        enqueue_dramatiq(connection, "mail", "sync")
        found = connection.execute("select options from tide.job order by id").fetchall()
        assert found == [({"backoff": 5, **ours},), ({"dramatiq": {"max_age": 1000}},), (None,)]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"celery": {}}, "message has no celery; known: queue, priority, dramatiq"),
        ({"dramatiq": {"max_age": float("nan")}}, r"message\.dramatiq\.max_age: JSON has no nan"),
    ],
)
def test_what_no_hand_off_would_read_is_refused(message: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOptions, match=said):
        enqueue_dramatiq(psycopg.Connection, "mail", "sync", message=message)
