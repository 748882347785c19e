"""docs/jobs/schedules.md: its statements work, and its tables say what the code does."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from relay.jobs.cron import check, next_tick
from relay.jobs.registry import handler, own_handlers
from relay.jobs.schedules import declare_schedules
from relay.settings import Settings
from scheduler.schedules import Schedules
from scheduler.session import Session
from tests.docs.pages import blocks, text_of
from tests.services.postgres import Database

PAGE = "jobs/schedules"


def test_its_examples_become_schedules_with_a_time(database: Database) -> None:
    set_them, look_and_change = blocks(PAGE)
    with database.connect() as connection, Session(Settings(postgres_url=database.url)) as session, own_handlers():
        connection.execute(set_them)
        exec(blocks(PAGE, "python")[0], {"__name__": "shop"})
        digest = handler("send_digest")
        assert digest is not None
        connection.execute("select tide.job_queue_create('mail')")
        assert declare_schedules(connection, [digest]) == ["send_digest"]
        list(Schedules(session).fire(["reports", "mail"]))
        found = connection.execute("select schedule from tide.job_schedule_list() where next_at > now()").fetchall()
        assert found == [("nightly",), ("ping",), ("send_digest",)]
        connection.execute(look_and_change)
        found = connection.execute("select schedule from tide.job_schedule_list() where enabled").fetchall()
        assert found == [("nightly",), ("send_digest",)]


def test_every_form_of_an_expression_that_it_names_is_read() -> None:
    text = text_of(f"{PAGE}#expressions")
    days = re.findall(r"`(LW?|SUN|FRI#2|5L)`", text)
    assert len(days) == 5
    forms = [f"0 0 {day} * *" if day.startswith("L") else f"0 0 * * {day}" for day in days]
    for form in (*forms, *re.findall(r"`(@\w+ly)`", text), "1,31 9-17 * JAN-DEC 7", "*/15 * * * *"):
        check(form)


def test_when_clocks_change_is_as_the_table_says() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    spring = datetime(2026, 3, 29, 1, 45, tzinfo=berlin)
    for expression in re.findall(r"such as `([^`]+)`", text_of(f"{PAGE}#when clocks change")):
        found = next_tick(expression, "Europe/Berlin", spring.astimezone(UTC))
        assert found is not None
        assert found.astimezone(berlin).strftime("%H:%M") == "03:00"
