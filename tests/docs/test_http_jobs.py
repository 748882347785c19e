"""docs/jobs/http.md: its tables say what the code does, and its SQL enqueues requests that a worker understands."""

import re
from typing import Any

from relay.jobs.http import BODIES, KEYS, METHODS, HttpKeys, read_http_job
from relay.pipelines.jobs import parse_jobs
from tests.docs.backend_pages import DOCS, KEY_HEADINGS, section, shown, tables
from tests.docs.pages import blocks
from tests.services.postgres import Database

PAGE = (DOCS / "jobs" / "http.md").read_text("utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    (table,) = [table for table in tables(section(PAGE, heading)) if table[0] == KEY_HEADINGS]
    return {row[0].strip("`"): row[1:] for row in table[1:]}


def test_every_key_of_a_payload_is_listed() -> None:
    found = rows("The payload")
    assert tuple(found) == KEYS
    assert re.findall(r"[A-Z]+", found["method"][0]) == list(METHODS)
    for content_type in BODIES.values():
        assert f"`{content_type.decode()}`" in section(PAGE, "The payload")


def test_every_key_of_a_queue_is_listed_with_its_default() -> None:
    found = rows("Keys of a queue")
    assert set(found) == set(HttpKeys.model_fields)
    for key, (_, default, _) in found.items():
        value: Any = HttpKeys.model_fields[key].default
        assert default in ("none", "the system's") if value is None else default == f"`{shown(value)}`", key


def test_the_sql_of_the_page_makes_queues_and_requests(database: Database) -> None:
    with database.connect() as session:
        for block in blocks("jobs/http"):
            session.execute(block)
        (job,) = session.execute("select payload::text, headers::text, kind from tide.job").fetchall()
        request = read_http_job(job[0], job[1])
        assert (str(request.origin), request.target, request.body, job[2]) == (
            "https://example.com", b"/webhooks/orders", b'{"order_id": 42}', "h",
        )  # fmt: skip
        configs = session.execute("select config from tide.pipeline where name like 'jobs.%' order by name").fetchall()
        billing, hooks = (parse_jobs(config).pipeline.http for (config,) in configs)
    assert (billing.hosts, billing.secrets) == (["api.billing.example.com"], ["${env:TIDE_SECRET_BILLING_HOOKS}"])
    assert hooks == HttpKeys()
