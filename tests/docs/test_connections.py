"""docs/operations/sizing.md: how many connections a running fleet opens, counted under load."""

from collections import Counter
from pathlib import Path

from relay.local.servers import EmbeddedRedis
from tests.docs.pages import blocks
from tests.fleets.jobs import jobs_in
from tests.fleets.pipelines import Pipelines, Writers
from tests.fleets.processes import running_fleet
from tests.services.postgres import Database
from tests.waiting import wait_until
from tests.web.api import make_hook, running_api

NAMES = [f"pipeline{number}" for number in range(8)]
PROCESSES, THREADS = 2, 2
ORDER = '{"order_id": 1}'
COUNT = """
    select application_name, count(*) from pg_stat_activity
     where datname = current_database() and application_name like 'tide-relay%%' group by 1
"""


def test_a_fleet_under_load_opens_what_the_page_says_and_no_more(
    database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    most: Counter[str] = Counter()

    def count() -> None:
        for name, number in pipelines.run(COUNT):
            most[name] = max(most[name], number)

    with (
        running_fleet(database.fleet_url(), redis_server.url, tmp_path / "fleet") as fleet,
        running_api(database, tmp_path) as api,
    ):
        make_hook(database, "hook")
        api.wait_for("hook")
        for name in NAMES:
            pipelines.make(name)
            pipelines.control(name, delay_ms=20)
        fleet.scheduler(RELAY_MAINTENANCE_INTERVAL="500ms")
        fleet.scheduler(RELAY_MAINTENANCE_INTERVAL="500ms")
        fleet.workers(processes=PROCESSES, threads=THREADS, **jobs_in(tmp_path))
        fleet.wait_ready()
        wait_until(lambda: len(pipelines.run("select 1 from tide.job_worker")) == PROCESSES, 90, "all can run jobs")
        pipelines.run("select tide.job_enqueue_many('mail', '{send_receipt}', array_fill(%s::jsonb, '{200}'))", ORDER)

        def loaded() -> bool:
            count()
            api.send("hook", f"msg_{writers.published}", b"{}")
            have_run = pipelines.run("select due + leased = 0 from tide.job_stats('mail')") == [(True,)]
            return have_run and writers.have_published(2000) and most["tide-relay worker"] >= PROCESSES * THREADS

        with Writers(pipelines, NAMES, 600) as writers:
            wait_until(loaded, 90, "every thread has worked")
        pipelines.wait_settled(90)
        count()
    # Workers fill what they may and never more, and nothing else opens any.
    assert most == {
        "tide-relay scheduler": 2,
        "tide-relay worker": PROCESSES * THREADS,
        "tide-relay jobs": PROCESSES,
        "tide-relay jobs signs": PROCESSES,
        "tide-relay api": 1,
        "tide-relay api configuration": 1,
    }


def test_the_size_of_an_outbox_is_measured_as_printed(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders'); select tide.outbox_publish('orders', '1')")
        [statement] = blocks("operations/sizing")
        [(name, size, last_id)] = connection.execute(statement).fetchall()
    assert (name, last_id) == ("orders", 1) and size.endswith("kB")
