"""Numbers of headers and options, which PostgreSQL keeps with every digit."""

import json
from typing import Any

from relay.pipelines.jobs import parse_jobs
from tests.workers.jobs.hand_off.jobs import job
from workers.jobs.hand_off.celery import Celery
from workers.jobs.hand_off.dramatiq import Dramatiq
from workers.jobs.hand_off.task import Task, make_task

NUMBERS = '{"a": 1.10, "b": {"c": [12345678901234.5678901, 0.5]}, "d": 3, "e": 12345678901234567890}'
CONFIG = parse_jobs({}, resolved=True).pipeline


def task(system: Any, **fields: str) -> Task:
    return make_task(job(system, **fields), "mail", system)


def exactly(text: str | bytes) -> Any:
    return json.loads(text, parse_float=str)


def test_headers_of_celery_keep_their_text_in_redis() -> None:
    envelope = exactly(Celery(CONFIG).redis_message(task("celery", headers=NUMBERS)))
    assert envelope["headers"].items() >= exactly(NUMBERS).items()


def test_headers_of_celery_are_numbers_of_amqp_where_it_has_them_and_text_elsewhere() -> None:
    headers = Celery(CONFIG).content(task("celery", headers=NUMBERS)).properties["application_headers"]
    expected = {"a": 1.1, "b": {"c": ["12345678901234.5678901", 0.5]}, "d": 3, "e": "12345678901234567890"}
    assert headers.items() >= expected.items()


def test_options_of_dramatiq_keep_their_text() -> None:
    message = exactly(Dramatiq(CONFIG).redis_message(task("dramatiq", options=f'{{"dramatiq": {NUMBERS}}}')))
    assert message["options"].items() >= exactly(NUMBERS).items()


def test_options_of_celery_that_are_numbers_with_a_fraction_are_taken() -> None:
    made = task("celery", options='{"celery": {"time_limit": 9.5, "soft_time_limit": 8}}')
    Celery(CONFIG).check(made)
    assert Celery(CONFIG).content(made).properties["application_headers"]["timelimit"] == [9.5, 8.0]
