"""What the tests of chains, batches and dependencies in SQL share."""

from typing import Any

from psycopg.types.json import Jsonb

from tests.sql.jobs.jobs import Session, enqueue, one, uuid_of


def with_options(session: Session, name: str = "send", queue: str = "mail", **options: object) -> int:
    return enqueue(session, {}, queue, name, options=Jsonb(options))


def after(session: Session, *jobs: int, name: str = "later", run_if: str = "succeeded") -> int:
    return with_options(session, name, after=[uuid_of(session, job) for job in jobs], run_if=run_if)


def state(session: Session, job: int) -> str:
    return str(one(session, "select tide.job_state('mail', %s)", job))


def names(session: Session, queue: str = "mail") -> list[str]:
    """Of the jobs of a queue, in their order."""
    found = session.execute("select name from tide.job_list(%s) order by id", [queue]).fetchall()
    return [name for (name,) in found]


def left(session: Session) -> int:
    return sum(one(session, f"select count(*) from tide.{table}") for table in ("job_follow", "job_dependency"))


def batch(session: Session, **jobs: object) -> int:
    named = ", ".join(f"{name} => %s" for name in jobs)
    return int(one(session, f"select tide.job_batch_create({named})", *(Jsonb(job) for job in jobs.values())))


def numbers(session: Session, number: int) -> Any:
    return session.execute(
        "select closed, unfinished, succeeded, failed from tide.job_batch_get(%s)", [number]
    ).fetchone()
