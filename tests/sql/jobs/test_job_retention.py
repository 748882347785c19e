"""What has ended and is old goes, with its attempts and keys; what has not ended is kept, whatever the settings are."""

import re
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one

pytestmark = pytest.mark.each_postgres

SIZE = 1000


@pytest.fixture
def session(database: Database) -> Any:
    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail', partition_size => %s)", [SIZE])
        yield session


def fill(session: Session, partitions: int = 1) -> None:
    """Enqueues until so many more partitions are full, as a scheduler makes them."""
    for _ in range(partitions):
        last = one(session, "select tide.outbox_last_id(outbox_id) from tide.job_queue")
        many = "select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[%s]))"
        session.execute(many, [SIZE - last % SIZE])
        session.execute("select tide.outbox_extend('jobs/mail')")


def age(session: Session, hours: int = 200) -> None:
    session.execute("update tide.job set created_at = created_at - %s * interval '1 hour'", [hours])


def retain(session: Session) -> int:
    """How many partitions were emptied."""
    emptied = 0
    for _ in range(4):
        done, lost, warning = session.execute(
            "select truncated, lost, warning from tide.outbox_retain('jobs/mail')"
        ).fetchall()[0]
        assert (lost, warning) == (0, None)
        emptied += done
    return emptied


def count(session: Session, table: str) -> int:
    return int(one(session, f"select count(*) from (select from tide.{table} union all select) t")) - 1


@pytest.mark.parametrize("forced", ["true", "false"])
def test_what_has_ended_goes_and_what_waits_is_kept(session: Session, forced: str) -> None:
    session.execute("select tide.setting_set('outbox_force_retention', %s)", [forced])
    tomorrow = enqueue(session, {"n": 1}, available_at="infinity", priority=3)
    keyed = enqueue(session, {"n": 2}, available_at="infinity", run_key="k")
    enqueue(session, {"n": 3}, idempotency_key="done")
    dead = enqueue(session, {"n": 4}, idempotency_key="dead", priority=7)
    fill(session, 2)
    worker = Worker(session)
    claimed = worker.claim(10_000)
    worker.finish([c for c in claimed if c[1] == dead], "d", "broken")
    running = [c for c in claimed if c[1] == SIZE + 5]
    worker.finish([c for c in claimed if c[1] not in (dead, SIZE + 5)])
    assert retain(session) == 0  # Too young.
    age(session)
    assert retain(session) == 1  # One runs in the second.
    assert one(session, "select min(id) from tide.job") == one(session, "select min(id) from tide.job_attempt") == SIZE
    assert sorted(job for (job,) in session.execute("select id from tide.job_kept")) == [tomorrow, keyed]
    worker.finish(running)
    assert retain(session) == 2  # With the partition in use, of which a part is cut off.
    assert count(session, "job") == count(session, "job_attempt") == 0
    # The key of what is gone is free; that of a dead job is not, as long as it is kept.
    assert enqueue(session, {"n": 3}, idempotency_key="done") > dead
    with pytest.raises(psycopg.errors.UniqueViolation, match=f"belongs to job {dead}"):
        enqueue(session, {"n": 5}, idempotency_key="dead")
    session.execute("update tide.job_dead set died_at = died_at - interval '721 hours'")
    retain(session)
    assert count(session, "job_dead") == 0
    assert enqueue(session, {"n": 5}, idempotency_key="dead") > dead
    # What waited is as it was.
    session.execute("update tide.job_wait set available_at = clock_timestamp()")
    claimed = worker.claim(10)
    payloads = "select c.payload ->> 'n' from tide.job_stored(%s, %s) c"
    box = one(session, "select outbox_id from tide.job_queue")
    assert [one(session, payloads, box, job) for _, job, _ in claimed[:2]] == ["1", "2"]
    worker.finish(claimed, "r")
    assert count(session, "job_kept") == 2
    again = worker.run(10)
    assert again[:2] == [tomorrow, keyed] and count(session, "job_kept") == 0
    session.execute("update tide.job_attempt set ended_at = ended_at - interval '200 hours'")
    retain(session)
    assert one(session, "select count(*) from tide.job_attempt where id in (%s, %s)", tomorrow, keyed) == 0


def test_a_batch_that_ended_goes_when_no_queue_keeps_jobs_for_so_long(session: Session) -> None:
    session.execute("select tide.job_queue_create('archive', retention_hours => 300)")
    made = [one(session, "select tide.job_batch_create()") for _ in range(4)]
    ended, running, closed_late, is_open = made
    for number in (ended, running, is_open):
        enqueue(session, options=Jsonb({"batch": number}))
    worker = Worker(session)
    [first, _, last] = worker.claim()
    session.execute("select tide.job_batch_close(b) from unnest(%s::bigint[]) b", [[ended, running, closed_late]])
    worker.finish([first, last])
    session.execute("update tide.job_batch set created_at = created_at - interval '1 year'")
    session.execute("update tide.job_batch set ended_at = ended_at - interval '301 hours' where batch_id = %s", [ended])

    def kept() -> list[int]:
        retain(session)
        return [number for (number,) in session.execute("select batch_id from tide.job_batch order by 1")]

    assert kept() == [running, closed_late, is_open]
    session.execute("update tide.job_batch set ended_at = ended_at - interval '299 hours'")
    assert kept() == [running, closed_late, is_open], "the other queue keeps jobs for longer"
    session.execute("select tide.job_queue_drop('archive')")
    assert kept() == [running, is_open]


def test_an_open_transaction_and_jobs_that_no_one_claimed_keep_their_partitions(
    database: Database, session: Session
) -> None:
    with database.connect(autocommit=False) as late:
        fill(session)
        mine = enqueue(late)
        fill(session)
        Worker(session).run(10_000)
        age(session)
        assert retain(session) == 1  # The gap is in the second.
        late.commit()
    age(session)
    assert retain(session) == 0
    assert Worker(session).run() == [mine]
    low = enqueue(session, priority=-5)
    fill(session)
    worker = Worker(session)
    worker.finish([c for c in worker.claim(10_000) if c[1] != low])
    age(session)
    stored = "select count(*) from tide.job where id = %s"
    assert retain(session) == 1 and one(session, stored, low) == 1
    leased = session.execute("select lease_id, lower(ids), 1::smallint from tide.job_lease").fetchall()
    assert worker.finish(leased) == 0
    assert retain(session) > 0 and one(session, stored, low) == 0


def test_a_job_that_was_copied_out_of_a_partition_that_stays_is_claimed_once(session: Session) -> None:
    waits = enqueue(session, available_at="infinity")
    young = enqueue(session)
    age(session)
    session.execute("update tide.job set created_at = now() where id = %s", [young])
    worker = Worker(session)
    assert worker.run() == [young]
    assert retain(session) == 0
    assert (count(session, "job"), count(session, "job_kept")) == (2, 1)
    session.execute("update tide.job_wait set available_at = now()")
    assert [job for _, job, _ in worker.claim()] == [waits]
    assert one(session, "select tide.job_release(%s)", worker.number) == 1
    assert worker.run() == [waits]
    assert count(session, "job_kept") == 0


def test_a_quiet_queue_does_not_keep_its_jobs_until_a_partition_is_full(session: Session) -> None:
    enqueue(session), enqueue(session)
    Worker(session).run()
    age(session)
    assert retain(session) == 1
    assert count(session, "job") == count(session, "job_attempt") == 0
    assert Worker(session).run() == [] and enqueue(session) in Worker(session).run()


def pages(session: Session, statement: str, *parameters: object) -> int:
    plan = session.execute("explain (analyze, buffers, timing off) " + statement, parameters).fetchall()  # type: ignore[operator]
    return sum(int(hit) for (line,) in plan[:2] if "Buffers" in line for hit in re.findall(r"(?:hit|read)=(\d+)", line))


def test_under_a_held_snapshot_a_job_costs_no_more_after_thousands_and_leaves_no_dead_row(
    database: Database, session: Session
) -> None:
    """Dead rows are those of claims, not of jobs; and no look steps over them."""
    session.execute("select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[9000]))")
    session.execute(
        "select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[1000]), priority => 5)"
    )
    worker = Worker(session)
    box = one(session, "select outbox_id from tide.job_queue")
    with database.connect(autocommit=False) as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("select pg_current_xact_id(), count(*) from pg_class")

        def cost() -> tuple[int, int]:
            claim = pages(session, "select * from tide.job_claim(%s, %s, 1)", box, worker.number)
            lease = "select lease_id, lower(ids), 1::smallint from tide.job_lease where worker_id = %s"
            [claimed] = session.execute(lease, [worker.number]).fetchall()
            finish = "select tide.job_finish(%s, array[%s]::bigint[], array[%s]::bigint[], '{1}', '{s}', '{1}')"
            return claim, pages(session, finish, worker.number, *claimed[:2])

        for _ in range(8):
            cost()
        first = cost()
        session.execute(f"""
            do $$ declare c record; begin
                for n in 1 .. 1500 loop
                    select * into c from tide.job_claim({box}, {worker.number}, 1);
                    perform tide.job_finish({worker.number}, array[c.lease_id], array[c.id], '{{1}}', '{{s}}', '{{1}}');
                    commit;
                end loop;
            end $$""")
        cost()
        last = cost()
        assert all(now <= 1.5 * then + 10 for then, now in zip(first, last, strict=True)), (first, last)
        if session.info.server_version < 150000:
            return  # its statistics come when they like
        before = dead_rows(session)
        # The same number of claims, each of a hundred times as many jobs.
        for _ in range(5):
            assert len(worker.run(1000)) == 1000
        assert dead_rows(session) - before < 200


def dead_rows(session: Session) -> int:
    session.execute("select pg_stat_force_next_flush()")
    return int(one(session, "select sum(n_dead_tup) from pg_stat_user_tables where schemaname = 'tide'"))
