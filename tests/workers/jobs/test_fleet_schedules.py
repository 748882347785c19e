"""Schedules in a real fleet: workers declare them, a scheduler fires, and a job goes to an application."""

import json

import redis

from tests.waiting import wait_until
from tests.workers.jobs.test_fleet import jobs  # noqa: F401  a fixture


def test_the_clock_runs_a_handler_and_hands_a_job_to_celery(jobs, redis_server):  # noqa: F811
    jobs.one("select tide.job_queue_create('receipts', config => %s)", json.dumps({"celery_url": redis_server.url}))
    payload = '{"args": [42], "kwargs": {}}'
    jobs.one(
        "select tide.job_schedule_set('yearly', 'receipts', '@yearly', 'send_receipt', %s, kind => 'celery')", payload
    )
    jobs.fleet.scheduler()
    jobs.workers(RELAY_JOB_QUEUES="quick,receipts")
    known = "select count(next_at) from tide.job_schedule_list()"
    wait_until(lambda: jobs.one(known) == 2, 30, "the handler's schedule is declared, and both have a time")
    jobs.connection.execute("update tide.job_schedule set next_at = clock_timestamp()")
    wait_until(lambda: jobs.seen("by the clock"), 30, "the handler ran")
    with redis.Redis.from_url(redis_server.url) as client:
        message = json.loads(wait_until(lambda: client.lindex("celery", 0), 30, "the job was handed off"))
    job = jobs.one("select last_job::text from tide.job_schedule_list() where schedule = 'yearly'")
    assert message["headers"]["id"] == job
    assert jobs.wait(job, "succeeded", "dead_letter") == "succeeded"
    assert jobs.one("select count(*) from tide.job") == 2
