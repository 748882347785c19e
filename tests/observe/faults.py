"""Real faults, each caused in a running fleet, and fixed after the `with`; FAULTS says what each raises."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import psycopg

from tests.observe.observed import LEASE, PATIENCE_SECONDS, Observed, receive
from tests.waiting import wait_until


class Fault(NamedTuple):
    """What raises alerts, and which."""

    happens: Callable[[Observed], AbstractContextManager[None]]
    alerts: tuple[str, ...]
    labels: dict[str, str]


@contextmanager
def sink_down(observed: Observed) -> Iterator[None]:
    """With a message that looks old: waiting for it to become so would take minutes."""
    pipelines = observed.pipelines
    pipelines.control("exported", down=True)
    pipelines.make("exported")
    ids = pipelines.publish("exported", 3)
    with psycopg.connect(observed.pipelines.url, autocommit=True) as owner:
        owner.execute(
            """update tide.message m set created_at = m.created_at - interval '1 hour'
                 from tide.outbox o where o.outbox_id = m.outbox_id and o.name = 'exported'"""
        )
    observed.wait_metric(observed.scheduler, "tide_relay_lag_seconds", 3000, pipeline="exported")
    yield
    pipelines.control("exported")
    pipelines.wait_delivered("exported", ids, PATIENCE_SECONDS)


@contextmanager
def source_missing(observed: Observed) -> Iterator[None]:
    lines = observed.pipelines.folder / "missing.jsonl"
    receive(observed, "missing", lines)
    observed.wait_metric(observed.workers, "tide_relay_drains_total", 2, pipeline="missing", outcome="failed")
    yield
    lines.write_text("{}\n")


@contextmanager
def message_refused(observed: Observed) -> Iterator[None]:
    observed.pipelines.control("refused", refuse=[2])
    observed.pipelines.make("refused")
    observed.pipelines.publish("refused", 3)
    observed.wait_metric(observed.workers, "tide_relay_dead_letters_total", 1, pipeline="refused")
    yield


@contextmanager
def configuration_wrong(observed: Observed) -> Iterator[None]:
    observed.pipelines.make("wrong", sink_type="pigeon")
    observed.wait_metric(observed.scheduler, "tide_relay_pipelines_invalid", 1)
    yield
    observed.run_sql("select tide.relay_delete('wrong')")


@contextmanager
def group_unknown(observed: Observed) -> Iterator[None]:
    """No scheduler is of the group that the pipeline names."""
    observed.pipelines.make("abroad", relay_group_id="abroad")
    observed.wait_metric(observed.scheduler, "tide_relay_pipelines_unowned", 1, relay_group_id="abroad")
    yield
    observed.pipelines.set("abroad")


@contextmanager
def schedulers_gone(observed: Observed) -> Iterator[None]:
    observed.scheduler.kill()
    yield
    observed.scheduler.start()
    observed.scheduler.wait_ready()


@contextmanager
def worker_frozen(observed: Observed) -> Iterator[None]:
    """In mid-batch, for longer than its lease, and thawed: what is thawed is fenced."""
    observed.pipelines.control("frozen", delay_ms=300)
    observed.pipelines.make("frozen", **LEASE)
    observed.pipelines.publish("frozen", 1000)
    observed.pipelines.wait_attempts("frozen", 1, PATIENCE_SECONDS)
    with frozen_children(observed):
        # The second was on the queue for longer than its lease: that one is stale.
        observed.wait_metric(observed.scheduler, "tide_relay_lost_drains_total", 2, pipeline="frozen")
    observed.pipelines.control("frozen")
    observed.wait_metric(observed.workers, "tide_relay_drains_total", 1, pipeline="frozen", outcome="fenced")
    observed.wait_metric(observed.workers, "tide_relay_stale_drains_total", 1, pipeline="frozen")
    yield


@contextmanager
def queue_stopped(observed: Observed) -> Iterator[None]:
    observed.redis.kill()
    yield
    observed.redis.start()


@contextmanager
def maintenance_undone(observed: Observed) -> Iterator[None]:
    """The processes that drain are frozen; the one that serves their metrics is not."""
    with frozen_children(observed):
        yield


@contextmanager
def hold_ends(observed: Observed) -> Iterator[None]:
    observed.run_sql("select tide.setting_set('max_retention_hours', '1')")
    observed.run_sql("select tide.outbox_create('held', retention_hours => 1)")
    observed.pipelines.make("held")
    observed.run_sql("select tide.relay_disable('held')")
    ids = observed.pipelines.publish("held", 3)
    yield
    observed.run_sql("select tide.relay_enable('held')")
    observed.pipelines.wait_delivered("held", ids, PATIENCE_SECONDS)
    observed.run_sql("select tide.setting_set('max_retention_hours', '168')")


@contextmanager
def messages_lost(observed: Observed) -> Iterator[None]:
    """Only this outbox keeps nothing: what others hold is young enough, settled or not."""
    observed.run_sql("select tide.outbox_create('lost', retention_hours => 0, partition_size => 1000)")
    observed.pipelines.make("lost")
    observed.run_sql("select tide.relay_disable('lost')")
    observed.pipelines.publish("lost", 2500)
    observed.run_sql("select tide.setting_set('outbox_force_retention', 'false')")
    observed.wait_metric(observed.workers, "tide_relay_retention_lost_total", 1, outbox="lost")
    observed.run_sql("select tide.setting_set('outbox_force_retention', 'true')")
    observed.run_sql("select tide.relay_delete('lost')")
    yield


@contextmanager
def publisher_open(observed: Observed) -> Iterator[None]:
    """Raises nothing by itself: what is published after it waits for it."""
    with observed.pipelines.connect() as publisher:
        publisher.execute("begin")
        publisher.execute("select tide.outbox_publish('steady', '{}')")
        observed.pipelines.publish("steady")
        observed.wait_metric(observed.scheduler, "tide_relay_horizon_stalls_total", 1, pipeline="steady")
        yield
        publisher.execute("commit")


def enqueue_old(observed: Observed, queue: str, name: str, arguments: str) -> None:
    """A job that looks old."""
    observed.run_sql("""select tide.job_enqueue(%s, %s, %s)""", queue, name, arguments)
    observed.run_sql(
        """update tide.job j set created_at = j.created_at - interval '1 hour' from tide.job_queue q
            where q.name = %s and j.outbox_id = q.outbox_id""", queue
    )  # fmt: skip


@contextmanager
def queue_unserved(observed: Observed) -> Iterator[None]:
    observed.run_sql("select tide.job_queue_create('orphan')")
    enqueue_old(observed, "orphan", "send_receipt", '{"order_id": 2}')
    observed.wait_metric(observed.scheduler, "tide_job_oldest_seconds", 3000, queue="orphan")
    yield
    observed.run_sql("select tide.job_cancel_many('orphan')")


@contextmanager
def job_dead(observed: Observed) -> Iterator[None]:
    (observed.jobs / "refuse").touch()
    observed.run_sql("""select tide.job_enqueue('mail', 'send_receipt', '{"order_id": 3}')""")
    observed.wait_metric(observed.scheduler, "tide_jobs_open", 1, queue="mail", state="dead")
    yield
    (observed.jobs / "refuse").unlink()


@contextmanager
def inbox_message_dead(observed: Observed) -> Iterator[None]:
    """Of an inbox that no pipeline writes; it is known to be well before."""
    observed.run_sql("select tide.inbox_create('payments')")
    wait_until(
        lambda: observed.prometheus.query("tide_relay_inbox_dead_messages{inbox='payments'}"),
        PATIENCE_SECONDS,
        "Prometheus knows the inbox",
    )
    observed.run_sql("insert into tide.payments (event_id, retry_count) values ('a', 3)")
    observed.wait_metric(observed.scheduler, "tide_relay_inbox_dead_messages", 1, inbox="payments")
    yield
    observed.run_sql("select tide.inbox_replay_dead('payments')")


@contextmanager
def handler_hangs(observed: Observed) -> Iterator[None]:
    """It holds the only thread, and another job waits for it."""
    (observed.jobs / "hang").touch()
    observed.run_sql("""select tide.job_enqueue('reports', 'make_report', '{"year": 2025}')""")
    observed.wait_metric(observed.scheduler, "tide_jobs_open", 1, queue="reports", state="leased")
    enqueue_old(observed, "reports", "make_report", '{"year": 2026}')
    observed.wait_metric(observed.scheduler, "tide_job_oldest_seconds", 3000, queue="reports")
    yield
    (observed.jobs / "hang").unlink()


@contextmanager
def handler_unknown(observed: Observed) -> Iterator[None]:
    observed.run_sql("""select tide.job_enqueue('mail', 'send_invoice')""")
    observed.wait_metric(observed.workers, "tide_jobs_unknown_total", 2, queue="mail")
    yield
    observed.run_sql("select tide.job_cancel_many('mail', name => 'send_invoice')")


@contextmanager
def stream_table_late(observed: Observed) -> Iterator[None]:
    """It was created long ago, as it looks, and no worker fills it."""
    with frozen_children(observed):
        observed.run_sql("create table visits (visit_id int primary key, page text)")
        observed.run_sql("select tide.create_stream_table('late', 'select page, count(*) from visits group by page')")
        observed.run_sql(
            "update tide.stream set created_at = created_at - interval '1 hour' where name = 'public.late'"
        )
        observed.wait_metric(observed.scheduler, "tide_stream_overdue_seconds", 3000, stream_table="public.late")
        yield


@contextmanager
def stream_table_refused(observed: Observed) -> Iterator[None]:
    observed.run_sql("create table ratios (n int); insert into ratios values (0)")
    observed.run_sql("select tide.create_stream_table('refused', 'select 1 / n as ratio from ratios')")
    observed.wait_metric(observed.scheduler, "tide_stream_failures", 1, stream_table="public.refused")
    yield
    observed.run_sql("update ratios set n = 1")
    observed.run_sql("select tide.resume_stream_table('refused')")


@contextmanager
def stream_table_not_followed(observed: Observed) -> Iterator[None]:
    observed.run_sql("create table amounts (region text, amount numeric)")
    query = "select region, sum(amount) as amount from amounts group by region"
    observed.run_sql("select tide.create_stream_table('sums', %s, refresh_mode => 'DIFFERENTIAL')", query)
    # The first fills the state of its sums; then it follows.
    for n in range(2):
        observed.run_sql("insert into amounts values ('north', %s)", n)
        observed.run_sql("select tide.wait_for_stream_table('sums')")
    observed.run_sql("insert into amounts values ('north', 'NaN')")
    observed.wait_metric(
        observed.workers, "tide_stream_fallbacks_total", 1, stream_table="public.sums", reason="failed"
    )
    yield
    observed.run_sql("delete from amounts")


@contextmanager
def frozen_children(observed: Observed) -> Iterator[None]:
    children = observed.workers.children()
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in children:
            os.kill(pid, signal.SIGCONT)


FAULTS = {
    "a sink is down": Fault(sink_down, ("TideRelayLagging", "TideRelayNotMoving"), {"pipeline": "exported"}),
    "a source is not there": Fault(source_missing, ("TideRelayNotMoving", "TideRelayBroken"), {"pipeline": "missing"}),
    "a message is refused": Fault(message_refused, ("TideRelayDeadLetters",), {"pipeline": "refused"}),
    "a message of an inbox is dead": Fault(inbox_message_dead, ("TideRelayInboxDead",), {"inbox": "payments"}),
    "a configuration is wrong": Fault(configuration_wrong, ("TideRelayInvalidConfiguration",), {}),
    "no scheduler is of its group": Fault(group_unknown, ("TideRelayNoOwner",), {"relay_group_id": "abroad"}),
    "all schedulers are gone": Fault(schedulers_gone, ("TideRelayNoOwner",), {}),
    "a worker is frozen": Fault(worker_frozen, ("TideRelayFenced",), {"pipeline": "frozen"}),
    "the queue is stopped": Fault(queue_stopped, ("TideRelayQueueUnreachable",), {}),
    "a hold ends": Fault(hold_ends, ("TideRelayHoldEnding",), {"outbox": "held", "consumer_group": "held"}),
    "messages are lost": Fault(messages_lost, ("TideRelayMessagesLost",), {"outbox": "lost"}),
    "no worker serves a queue": Fault(
        queue_unserved, ("TideRelayJobsLate", "TideRelayJobsNotServed"), {"queue": "orphan"}
    ),
    "a job is dead": Fault(job_dead, ("TideRelayJobsDead",), {"queue": "mail"}),
    "a handler hangs": Fault(handler_hangs, ("TideRelayJobSlotsExhausted",), {"way": "thread"}),
    "a handler is unknown": Fault(handler_unknown, ("TideRelayJobsUnknown",), {"queue": "mail"}),
    "a stream table is late": Fault(stream_table_late, ("TideRelayStreamStale",), {"stream_table": "public.late"}),
    "a query is refused": Fault(stream_table_refused, ("TideRelayStreamFailing",), {"stream_table": "public.refused"}),
    "changes are not followed": Fault(
        stream_table_not_followed, ("TideRelayStreamFallback",), {"stream_table": "public.sums"}
    ),
    "a publisher stays open": Fault(publisher_open, (), {}),
}
