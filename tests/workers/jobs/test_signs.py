"""Signs of life on a real server whose sessions are ended."""

import random
from collections.abc import Iterator
from functools import partial

import pytest

from relay.process import retry_pause
from relay.settings import Settings
from tests.services.postgres import Database
from tests.waiting import wait_until
from workers.jobs.signs import NAME, Signs


@pytest.fixture
def ceilings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest that each pause could have been; none lasts."""
    asked: list[float] = []

    class Draw(random.Random):
        def uniform(self, _a: float, b: float) -> float:
            asked.append(b)
            return 0.0

    monkeypatch.setattr(retry_pause, "random", Draw())
    return asked


@pytest.fixture
def signs(database: Database) -> Iterator[Signs]:
    made = Signs(
        Settings.load(postgres_url=database.url),
        rang=lambda _: None, hears_bells=lambda: False, changed=lambda _: None,
        cancel=lambda _: None, late=lambda: None, lost=lambda _: None,
    )  # fmt: skip
    yield made
    made.close()


def test_an_outage_is_met_with_a_short_pause_however_many_were_before(
    signs: Signs, ceilings: list[float], database: Database
) -> None:
    given = "select count(*) from pg_stat_activity where application_name = %s and query like '%%job_worker_beat%%'"

    def seen(outages: int) -> bool:
        return len(ceilings) >= outages

    with database.connect() as owner:
        owner.autocommit = True
        signs.follow(1)
        for outage in range(1, 5):
            wait_until(lambda: owner.execute(given + " and state = 'idle'", [NAME]).fetchone() == (1,), 20, "a sign")
            owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", [NAME])
            wait_until(partial(seen, outage), 20, "it has seen that")
    assert ceilings == [retry_pause.FIRST_SECONDS] * 4
