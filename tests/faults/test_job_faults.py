"""Jobs while workers are killed, frozen and stopped, and servers restarted: each runs again, and none is lost."""

from collections import Counter

from tests.waiting import wait_until
from tests.workers.jobs import job_handlers
from tests.workers.jobs.fleet import Jobs, jobs  # noqa: F401  fixture


def begun(jobs: Jobs, job: str) -> int:  # noqa: F811
    return sum(line["id"] == job for line in jobs.seen("begun"))


def wait_rescued(jobs: Jobs, job: str, times: int) -> None:  # noqa: F811
    """Its lease has run out so often. Its pause, of some seconds, is over at once: tests/sql measures it."""
    wait_until(lambda: [code for _, code in jobs.attempts(job)] == ["lease_expired"] * times, 30, "it is rescued")
    jobs.connection.execute("update tide.job_wait set available_at = now()")
    jobs.connection.execute("select pg_notify('tide_outbox_notify', 'jobs/long')")


def test_workers_are_killed_frozen_and_stopped(jobs):  # noqa: F811
    jobs.fleet.scheduler(RELAY_JOB_LEASE="2s", TEST_RESCUE_SECONDS="0.2")
    first = jobs.workers("workers-first", RELAY_JOB_GRACE="1s")
    jobs.wait_ready()
    jobs.connection.execute("select tide.job_queue_set('long', '{\"config\": {\"visibility_timeout_ms\": 500}}')")
    # kill -9: rescued when the lease has run out, and counted as an attempt.
    job = jobs.enqueue("waits")
    wait_until(lambda: begun(jobs, job) == 1, 30, "it runs")
    first.kill()
    second = jobs.workers("workers-second", RELAY_JOB_GRACE="1s")
    wait_until(lambda: begun(jobs, job) == 2, 30, "it runs again")
    assert [code for _, code in jobs.attempts(job)] == ["lease_expired"]
    # Frozen for longer than the lease: others run it, and what the thawed one says of it is refused.
    second.freeze()
    third = jobs.workers("workers-third", RELAY_JOB_GRACE="1s", RELAY_JOB_SLOTS="3")
    wait_until(lambda: begun(jobs, job) == 3, 30, "others run it")
    second.thaw()
    wait_until(lambda: second.says("they are dropped here"), 30, "the thawed one drops it")
    second.terminate()
    second.wait_exit()
    # A stop at full load: what was not begun goes back at once, what runs after its grace; none of it is an attempt.
    waiting = [jobs.enqueue("waits") for _ in range(20)]
    wait_until(lambda: jobs.one("select sum(open) from tide.job_lease") >= 3, 30, "its slots are full")
    third.terminate()
    assert third.wait_exit() == 0
    assert jobs.one("select count(*) from tide.job_lease") == 0
    assert not any(jobs.attempts(each) for each in waiting)
    jobs.seen_at.with_name("seen.go").touch()
    jobs.workers("workers-fourth")
    for each in [job, *waiting]:
        assert jobs.wait(each, "succeeded", "dead_letter") == "succeeded"
    assert [code for _, code in jobs.attempts(job)] == ["lease_expired", "lease_expired", None]
    assert Counter(line["id"] for line in jobs.seen("ended")) == dict.fromkeys([job, *waiting], 1)


def test_servers_are_restarted_and_flushed(jobs, postgres, redis_server):  # noqa: F811
    jobs.fleet.scheduler(RELAY_JOB_LEASE="30s")
    workers = jobs.workers(processes=2, RELAY_JOB_LEASE="30s", RELAY_JOB_SLOTS="4")
    jobs.wait_ready()
    jobs.connection.execute("select tide.job_queue_set('few', '{\"concurrency_limit\": 7}')")
    job_handlers.counted.enqueue_many(jobs.connection, [{}] * 100)
    wait_until(lambda: jobs.seen("ended"), 30, "some have ended")
    redis_server.flush()
    postgres.restart()
    jobs.connect()
    enqueued, before = 100, len(jobs.seen("ended"))

    def both_work() -> bool:
        """There is more to do until the scheduler is back and has woken the other process too."""
        nonlocal enqueued
        if len(jobs.seen("ended")) > enqueued - 50:
            job_handlers.counted.enqueue_many(jobs.connection, [{}] * 100)
            enqueued += 100
        return len({line["pid"] for line in jobs.seen("ended")[before:]}) == 2

    wait_until(both_work, 60, "both processes run jobs again")
    ended = "select count(*) from tide.job_attempt where outcome = 's'"
    wait_until(lambda: jobs.one(ended) == enqueued, 30, "all have succeeded")
    # What had ended when PostgreSQL went was written later: nothing ran twice, and never more than the limit at once.
    assert set(Counter(line["id"] for line in jobs.seen("ended")).values()) == {1}
    changes = sorted((line["at"], 1 if line["what"] == "begun" else -1) for line in jobs.seen())
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    assert most <= 7
    workers.terminate()
    assert workers.wait_exit() == 0


def test_a_worker_is_cut_off_from_postgresql_for_longer_than_its_lease(jobs, proxy):  # noqa: F811
    jobs.fleet.scheduler(RELAY_JOB_LEASE="2s", TEST_RESCUE_SECONDS="0.2")
    between = proxy(jobs.fleet.postgres_url)
    first = jobs.workers("workers-first", RELAY_POSTGRES_URL=between.through(jobs.fleet.postgres_url))
    jobs.wait_ready()
    jobs.connection.execute("select tide.job_queue_set('long', '{\"config\": {\"visibility_timeout_ms\": 500}}')")
    job = jobs.enqueue("waits")
    wait_until(lambda: begun(jobs, job) == 1, 30, "it runs")
    between.refuse()
    second = jobs.workers("workers-second")
    wait_rescued(jobs, job, 1)
    wait_until(lambda: begun(jobs, job) == 2, 30, "others run it")
    # It ends in both. The one that is cut off says so when it can, and is refused.
    jobs.seen_at.with_name("seen.go").touch()
    assert jobs.wait(job, "succeeded", "dead_letter") == "succeeded"
    wait_until(lambda: len(jobs.seen("ended")) == 2, 30, "it has ended in both")
    between.heal()
    wait_until(lambda: first.says("they are dropped here") or first.says("were refused"), 30, "it is refused")
    assert jobs.attempts(job) == [(1, "lease_expired"), (2, None)]
    # It works on.
    second.kill()
    assert jobs.wait(jobs.enqueue("waits"), "succeeded", "dead_letter") == "succeeded"
    assert jobs.seen("ended")[-1]["pid"] in first.children()


def test_a_queue_that_was_dropped_holds_up_no_other_when_the_session_is_lost(jobs):  # noqa: F811
    jobs.fleet.scheduler()
    workers = jobs.workers()
    jobs.wait_ready()
    for job in [jobs.enqueue("counted"), jobs.enqueue("note")]:
        assert jobs.wait(job, "succeeded", "dead_letter") == "succeeded"
    jobs.connection.execute("select tide.job_queue_drop('few', force => true)")
    sessions = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'tide-relay jobs'"
    )
    with jobs.database.admin() as admin:
        assert admin.execute(sessions).fetchone() == (1,)
    job = jobs.enqueue("note")
    assert jobs.wait(job, "succeeded", "dead_letter") == "succeeded"
    wait_until(lambda: workers.says("a job queue was dropped"), 30, "it forgets the queue")


def test_a_chain_goes_on_when_a_lock_is_given_that_the_next_job_needs(jobs, database):  # noqa: F811
    jobs.connection.execute(f"alter database {jobs.one('select current_database()')} set lock_timeout = '200ms'")
    jobs.fleet.scheduler()
    workers = jobs.workers(RELAY_JOB_LEASE="30s")
    jobs.wait_ready()
    with database.connect(autocommit=False) as other:
        table = jobs.one("select outbox_id from tide.job_queue where name = 'few'")
        other.execute(f"lock table tide.job_{table} in share mode")
        first = job_handlers.note.with_options(then=job_handlers.counted.template()).enqueue(jobs.connection)
        wait_until(lambda: workers.says("lock timeout"), 30, "its end was undone")
        assert jobs.state(first) == "leased"
        other.rollback()
    wait_until(lambda: jobs.seen("ended"), 30, "the next has run")
    assert jobs.wait(first, "succeeded", "dead_letter") == "succeeded"
    assert len(jobs.seen("note")) == 1
