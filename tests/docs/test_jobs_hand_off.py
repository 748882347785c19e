"""docs/jobs/hand-off.md: its applications run what its statements enqueue, and its tables name every key."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.rows import class_row, dict_row

from relay.jobs.models import Claimed
from relay.local.servers import EmbeddedRedis
from relay.pipelines.jobs import JobsPipeline, parse_jobs
from tests.docs.pages import blocks, substituted, text_of
from tests.services.postgres import Database
from tests.waiting import wait_until
from workers.jobs.hand_off import HandOff
from workers.jobs.hand_off.celery import CeleryOptions

PAGE = "jobs/hand-off"
REDIS = "redis://localhost:6379/0"


@contextlib.contextmanager
def started(command: str, folder: Path, log: Path) -> Iterator[None]:
    program, *arguments = command.split()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(program)), *arguments],
            env=os.environ | {"PYTHONPATH": str(folder)},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def claim(connection: psycopg.Connection, queue: str) -> list[Claimed]:
    with connection.cursor(row_factory=class_row(Claimed)) as cursor:
        return cursor.execute(
            """
            select q.name as queue, q.outbox_id, c.lease_id, c.id, c.attempt,
                   c.kind::text, c.name, c.priority, c.timeout_seconds, c.max_attempts, c.payload, c.headers,
                   c.metadata, c.options, c.idempotency_key, c.run_key, c.trace_id,
                   (extract(epoch from c.created_at - '2000-01-01 00:00+00') * 1e6)::bigint as created_us, 0 as due_us
              from tide.job_queue q, tide.job_worker_start('here', 1, array[q.name], 10) worker,
                   tide.job_claim(q.outbox_id, worker, 1000) c
             where q.name = %s order by c.id
            """,
            [queue],
        ).fetchall()


def test_the_applications_of_the_page_run_what_it_enqueues(
    database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    celery_app, enqueue, dramatiq_app = blocks(PAGE, "python")
    logs = []
    with contextlib.ExitStack() as stack:
        for program, command in zip((celery_app, dramatiq_app), blocks(PAGE, "sh"), strict=True):
            name = program.partition("\n")[0].removeprefix("# ")
            (tmp_path / name).write_text(substituted(program, {REDIS: redis_server.url}))
            logs.append(tmp_path / f"{name}.log")
            stack.enter_context(started(command.strip(), tmp_path, logs[-1]))
        with database.connect() as connection:
            connection.execute("create table orders (id int primary key, total numeric)")
            for block in blocks(PAGE):
                connection.execute(substituted(block, {REDIS: redis_server.url} if REDIS in block else {}))
            exec(enqueue, {"connection": connection})
            connection.commit()
            with connection.cursor(row_factory=dict_row) as cursor:
                config = cursor.execute("select config from tide.pipeline where name = 'jobs.receipts'").fetchone()
            assert config
            with contextlib.closing(HandOff(parse_jobs(config["config"], resolved=True), "receipts")) as hand_off:
                ended = hand_off.send_many(claim(connection, "receipts"))
        assert [one.outcome for one in ended] == ["s"] * 4
        of_celery, of_dramatiq = logs
        has(of_celery, "42, copy to office", "44, copy to None", "45, copy to office")
        has(of_dramatiq, "43, copy to archive")


def has(log: Path, *receipts: str) -> None:
    for receipt in receipts:
        line = f"receipt of order {receipt}"
        wait_until(lambda: line in log.read_text(), 30, f"{line!r} is in {log}")  # noqa: B023


def test_the_page_names_every_key_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:`(.*)`)? ?\| ", text_of(f"{PAGE}#configuration"), re.MULTILINE))
    own = {name: field for name, field in JobsPipeline.model_fields.items() if name.startswith(("celery", "dramatiq"))}
    assert rows.keys() == own.keys() | {"timeout_ms"}
    for name, said in rows.items():
        default = JobsPipeline.model_fields[name].default
        assert said == ("" if default in (None, "") else str(list(default) if isinstance(default, tuple) else default))


def test_the_page_names_every_option_of_celery() -> None:
    for name in CeleryOptions.__struct_fields__:
        assert f"`{name}`" in text_of(f"{PAGE}#options of a job")
