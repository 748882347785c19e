"""What the tests of jobs in SQL share: a queue, and a worker that claims and ends."""

from typing import Any

import psycopg
from psycopg.types.json import Jsonb

Session = psycopg.Connection[Any]


def one(session: Session, statement: str, *parameters: object) -> Any:
    row = session.execute(statement, parameters).fetchone()  # type: ignore[arg-type]
    assert row
    return row[0]


def enqueue(
    session: Session, payload: object = None, queue: str = "mail", name: str = "send", **options: object
) -> int:
    named = "".join(f", {option} => %s" for option in options)
    return int(
        one(
            session, f"select tide.job_enqueue(%s, %s, %s{named})", queue, name, Jsonb(payload or {}), *options.values()
        )
    )


def enqueue_overdue(session: Session) -> int:
    """A job that looks as if it had been due since 2020."""
    job = enqueue(session, available_at="2020-01-01")
    session.execute("update tide.job_wait set available_at = '2020-01-01' where id = %s", [job])
    return job


def uuid_of(session: Session, job_id: int, queue: str = "mail") -> str:
    return str(
        one(session, "select tide.job_uuid(q.outbox_id, %s) from tide.job_queue q where q.name = %s", job_id, queue)
    )


class Worker:
    """A worker in SQL."""

    def __init__(self, session: Session, queue: str = "mail") -> None:
        self.session = session
        self.number = int(one(session, "select tide.job_worker_start('here', 1, %s, 10)", [queue]))
        self.queue = queue

    def claim(self, want: int = 1000) -> list[Any]:
        """Rows of lease, id, attempt."""
        return self.session.execute(
            "select c.lease_id, c.id, c.attempt"
            " from tide.job_queue q, tide.job_claim(q.outbox_id, %s, %s) c where q.name = %s order by c.id",
            [self.number, want, self.queue],
        ).fetchall()

    def finish(self, claimed: list[Any], outcome: str = "s", code: str | None = None, retry_seconds: float = 0) -> int:
        """How many were not its own any more."""
        n = len(claimed)
        return int(
            one(
                self.session,
                'select tide.job_finish(%s, %s::bigint[], %s::bigint[], %s::smallint[], %s::"char"[], %s::int[],'
                " codes => %s::text[], errors => %s::text[], retry_seconds => %s::float8[])",
                self.number, [c[0] for c in claimed], [c[1] for c in claimed], [c[2] for c in claimed], [outcome] * n,
                [12] * n, [code] * n, [code and f"it was {code}"] * n, [retry_seconds] * n,
            )
        )  # fmt: skip

    def run(self, want: int = 1000, outcome: str = "s", code: str | None = None) -> list[int]:
        claimed = self.claim(want)
        assert self.finish(claimed, outcome, code) == 0
        return [c[1] for c in claimed]
