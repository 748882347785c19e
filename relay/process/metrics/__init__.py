"""Every metric, in one table. docs/reference/metrics.md holds the same one; a test keeps table, docs and code equal.

========================================  =========  =========  =========  ===========================================
name                                      kind       labels     served by  meaning
========================================  =========  =========  =========  ===========================================
tide_relay_messages_published_total       counter    P          workers    messages that the sink confirmed
tide_relay_messages_received_total        counter    P          workers    messages that were new to an inbox
tide_relay_duplicates_total               counter    P          workers    received messages that an inbox already had
tide_relay_failures_total                 counter    P, code    workers    failures, temporary and permanent, by code
tide_relay_dead_letters_total             counter    P          workers    messages that became dead letters
tide_relay_drains_total                   counter    P, outcome workers    drains that ended, by outcome
tide_relay_publish_seconds                histogram  P          workers    time of one publish of a batch
tide_relay_write_seconds                  histogram  P          workers    wait for the commit of a batch in an inbox
tide_relay_delivery_seconds               histogram  P          workers    commit to delivery, oldest message of a batch
tide_relay_stale_drains_total             counter    pipeline   workers    drain messages dropped: too old, or fenced
tide_relay_refused_messages_total         counter    code       workers    queue messages that no scheduler sent
tide_relay_drains_running                 gauge      (none)     workers    drains in progress, over all processes
tide_relay_retention_partitions_total     counter    outbox, action workers partitions of outboxes truncated, or dropped
tide_relay_retention_rows_total           counter    what       workers    old rows removed from elsewhere
tide_relay_retention_lost_total           counter    outbox     workers    messages removed before a group settled them
tide_jobs_claimed_total                   counter    queue      workers    jobs that were claimed
tide_jobs_ended_total                     counter    queue, outcome workers runs of jobs that ended, by outcome
tide_jobs_unknown_total                   counter    queue      workers    jobs handed back: no handler has their name
tide_job_seconds                          histogram  queue, kind workers   time of one run of a job
tide_job_wait_seconds                     histogram  queue      workers    due to claimed, the oldest job of a claim
tide_job_slots                            gauge      way, state workers    slots: free, running, stuck; jobs that wait
tide_stream_refresh_seconds               histogram  stream_table, strategy workers time of one refresh, by strategy
tide_stream_rows_total                    counter    stream_table, change workers rows that refreshes wrote, by change
tide_stream_fallbacks_total               counter    stream_table, reason workers computed as a whole, by why
tide_relay_hold_seconds_left              gauge      outbox, consumer_group scheduler until unsettled messages may go
tide_relay_inbox_dead_messages            gauge      inbox      scheduler  dead messages of an inbox
tide_jobs_open                            gauge      queue, state scheduler jobs that are due, scheduled, leased, dead
tide_job_oldest_seconds                   gauge      queue      scheduler  how long the oldest due job has been due
tide_job_gaps                             gauge      queue      scheduler  ids passed whose transactions are open
tide_stream_staleness_seconds             gauge      stream_table scheduler age of what it shows; 0: it equals its query
tide_stream_overdue_seconds               gauge      stream_table scheduler how long it should have been refreshed
tide_stream_failures                      gauge      stream_table scheduler refreshes in a row that PostgreSQL refused
tide_relay_lag_messages                   gauge      P          scheduler  messages not settled yet
tide_relay_lag_seconds                    gauge      P          scheduler  age of the oldest message not settled
tide_relay_pipeline_broken                gauge      P          scheduler  1 if only a person can fix what fails, or 0
tide_relay_pipelines_owned                gauge      (none)     scheduler  pipelines this scheduler owns
tide_relay_pipelines_invalid              gauge      (none)     scheduler  pipelines enabled, but invalid
tide_relay_pipelines_unowned              gauge      relay_group_id scheduler  enabled pipelines without an owner
tide_relay_drains_waiting                 gauge      queue      scheduler  drains it emitted that have not started
tide_relay_wakeups_total                  counter    P, cause   scheduler  why a pipeline became due
tide_relay_horizon_stalls_total           counter    P          scheduler  drains that found only messages still open
tide_relay_oldest_publisher_seconds       gauge      P          scheduler  age of the outbox's oldest open publisher
tide_relay_lost_drains_total              counter    P          scheduler  drains that fell silent and were abandoned
tide_relay_epochs_total                   counter    (none)     scheduler  pipelines of which it became the owner
tide_relay_broker_errors_total            counter    code       scheduler  drains that the broker did not take
tide_relay_database_losses_total          counter    (none)     scheduler  times the session and all ownership was lost
tide_relay_notifications_ignored_total    counter    channel    scheduler  notifications without a name, or false
tide_relay_broker_up                      gauge      (none)     scheduler  1 if the broker answered last, else 0
tide_relay_loop_age_seconds               gauge      (none)     scheduler  since PostgreSQL last answered its loop
tide_relay_maintenance_age_seconds        gauge      (none)     scheduler  since maintenance was last done whole
========================================  =========  =========  =========  ===========================================

P stands for `pipeline`, `direction` (forward, reverse, jobs, stream) and `sink_type` (of a reverse pipeline: its
`source_type`; of a queue of jobs: jobs; of a stream table: stream).
Times are in seconds.
Actions of retention: truncated, dropped; what it removes elsewhere: inbox, dead_letters, history.
Outcomes of a drain: more, idle, again, later, failed, fenced.
Codes of refused messages: too_large, undecodable, actor, arguments, delayed, no_message.
Outcomes of a job: succeeded, retried, dead, cancelled, handed_back. Kinds: python, http, dramatiq, celery.
States of slots: running, waiting, stuck; of open jobs: due, scheduled, leased, dead.
Strategies of a refresh: linear, keyed, two states, groups, full; of a query with nodes several, joined by " + ".
Changes of rows: inserted, updated, deleted.
Reasons of a fallback: see `relay.drains.fallbacks`.
Causes of a wake-up: bell, timer, again, later, more, retry, config, lost.

`workers` and `scheduler` in this package define them; nothing here imports prometheus_client.
"""

from typing import NamedTuple


class PipelineLabels(NamedTuple):
    """The labels P, in order: `metric.labels(*labels)`."""

    pipeline: str
    direction: str
    sink_type: str


P = PipelineLabels._fields
