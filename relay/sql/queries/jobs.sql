-- What people ask of jobs and do to them: relay/operations/jobs.py and job_queues.py.

-- name: job_enqueue
-- Enqueues a job; `is_new` is false if a key was in use.
select e.id, d.job_id::text as job, d.created as is_new
  from tide.job_enqueue(
           queue => %(queue)s::text, name => %(name)s::text, payload => %(payload)s::jsonb, kind => %(kind)s::text,
           priority => %(priority)s::int, max_attempts => %(max_attempts)s::int, timeout_seconds => %(timeout_seconds)s::int,
           available_at => %(available_at)s::timestamptz, run_key => %(run_key)s::text, idempotency_key => %(idempotency_key)s::text,
           dedupe_key => %(dedupe_key)s::text, trace_id => %(trace_id)s::text, headers => %(headers)s::jsonb,
           metadata => %(metadata)s::jsonb, options => %(options)s::jsonb, on_conflict => %(on_conflict)s::text,
           dedupe => %(dedupe)s::text) as e (id)
 cross join lateral tide.job_enqueued(%(queue)s::text, e.id) d

-- name: job_list
-- Jobs of a queue, newest first.
select id, job::text as job, queue, state, name, kind, priority, attempts, max_attempts, created_at, available_at, ended_at, code, run_key,
       dedupe_key, idempotency_key, trace_id, replayed_as::text as replayed_as
  from tide.job_list(%(queue)s::text, %(state)s::text, %(name)s::text, %(dedupe_key)s::text, %(run_key)s::text, %(before_id)s::bigint,
                     %(max_rows)s::int)

-- name: job_show
-- A job in full.
select id, job::text as job, queue, state, name, kind, priority, attempts, max_attempts, created_at, available_at, ended_at, code, run_key,
       dedupe_key, idempotency_key, trace_id, replayed_as::text as replayed_as, timeout_seconds, size, payload, headers, metadata, options,
       error, response_status, preview, result, worker_id, worker_host, worker_pid, claimed_at, cancel_requested
  from tide.job_get(%(job)s::uuid)

-- name: job_attempts
-- The attempts of a job.
select attempt, status, started_at, ended_at, ms, code, error, response_status, preview, result, worker_id
  from tide.job_attempts(%(job)s::uuid)

-- name: job_queue_names
-- Every queue.
select q.name from tide.job_queue q order by q.name

-- name: job_cancel
-- Cancels a job: cancelled, or leased while its worker was asked to stop.
select tide.job_cancel(%(job)s::uuid, %(reason)s::text) as state

-- name: job_cancel_many
-- Cancels jobs of a queue.
select tide.job_cancel_many(%(queue)s::text, %(state)s::text, %(name)s::text, %(dedupe_key)s::text, %(run_key)s::text, %(max_jobs)s::int,
                            %(reason)s::text) as jobs

-- name: job_replay
-- A new job like one that has ended.
select tide.job_replay(%(job)s::uuid, %(force)s::boolean, %(available_at)s::timestamptz)::text as job

-- name: job_replay_many
-- The same for many of a queue.
select tide.job_replay_many(%(queue)s::text, %(state)s::text, %(name)s::text, %(dedupe_key)s::text, %(run_key)s::text,
                            %(max_jobs)s::int) as jobs

-- name: job_purge
-- Removes dead jobs that died so long ago.
select tide.job_purge(%(queue)s::text, %(older_than)s::interval, %(max_jobs)s::int) as jobs

-- name: job_queue_list
-- The queues with their settings, or one of them.
select queue, paused, concurrency_limit, key_limit, rate, burst, fair, keep_succeeded, retention_hours, dead_retention_hours,
       max_payload_bytes, created_at, invalid_reason
  from tide.job_queue_list()
 where %(queue)s::text is null or queue = %(queue)s

-- name: job_queue_create
-- Creates a queue.
select tide.job_queue_create(%(queue)s::text)

-- name: job_queue_set
-- Changes its settings.
select tide.job_queue_set(%(queue)s::text, %(settings)s::jsonb)

-- name: job_queue_pause
-- No job of it begins any more.
select tide.job_queue_pause(%(queue)s::text)

-- name: job_queue_resume
-- They do again.
select tide.job_queue_resume(%(queue)s::text)

-- name: job_queue_drop
-- Removes it with its jobs.
select tide.job_queue_drop(%(queue)s::text, %(force)s::boolean)

-- name: job_stats
-- The numbers of each queue, or of one.
select queue, paused, pending, due, scheduled, leased, dead, oldest_due_seconds, workers, concurrency_limit
  from tide.job_stats(%(queue)s::text)

-- name: job_workers
-- The processes that run jobs, and how many each has.
select w.worker_id, w.host, w.pid, w.queues, w.slots, w.version, w.started_at, w.seen_at, w.stopping,
       extract(epoch from clock_timestamp() - w.seen_at)::float8 as silent_seconds,
       coalesce((select sum(l.open) from tide.job_lease l where l.worker_id = w.worker_id), 0)::bigint as leased
  from tide.job_worker w
 order by w.host, w.pid, w.worker_id

-- name: job_unknown_handlers
-- Jobs that workers handed back, because they have no handler of that name.
select queue, name, jobs from tide.job_unknown_handlers()

-- name: job_schedule_set
-- Creates or changes a schedule; whether that changed anything.
select tide.job_schedule_set(
           schedule => %(schedule)s::text, queue => %(queue)s::text, cron => %(cron)s::text, name => %(name)s::text,
           payload => %(payload)s::jsonb, time_zone => %(time_zone)s::text, missed => %(missed)s::text, kind => %(kind)s::text,
           priority => %(priority)s::int, max_attempts => %(max_attempts)s::int, timeout_seconds => %(timeout_seconds)s::int,
           run_key => %(run_key)s::text, dedupe_key => %(dedupe_key)s::text, dedupe => %(dedupe)s::text,
           headers => %(headers)s::jsonb, metadata => %(metadata)s::jsonb, options => %(options)s::jsonb) as changed

-- name: job_schedule_list
-- The schedules, without the arguments of their jobs.
select schedule, queue, cron, time_zone, missed, enabled, next_at, last_at, last_job::text as last_job, invalid_reason, name, kind, priority
  from tide.job_schedule_list()
 order by schedule

-- name: job_schedule_delete
-- Removes a schedule.
select tide.job_schedule_delete(%(schedule)s::text)

-- name: job_schedule_enable
-- Lets it fire again.
select tide.job_schedule_enable(%(schedule)s::text)

-- name: job_schedule_disable
-- It fires no more.
select tide.job_schedule_disable(%(schedule)s::text)

-- Taking over the jobs of PgRelay: relay/operations/pgrelay.py.

-- name: job_queue_make
-- Creates a queue where it is missing; whether it did.
select tide.job_queue_create_if_not_exists(%(queue)s::text)

-- name: job_import_waiting
-- Enqueues a job; not created: a job here has its idempotency key.
select job_id, created
  from tide.job_enqueued(%(queue)s::text, tide.job_enqueue(
           queue => %(queue)s::text, name => %(name)s::text, payload => %(payload)s::jsonb, kind => %(kind)s::text,
           priority => %(priority)s::int, max_attempts => %(max_attempts)s::int, timeout_seconds => %(timeout_seconds)s::int,
           available_at => %(available_at)s::timestamptz, idempotency_key => %(idempotency_key)s::text,
           dedupe_key => %(dedupe_key)s::text, trace_id => %(trace_id)s::text, headers => %(headers)s::jsonb,
           metadata => %(metadata)s::jsonb, on_conflict => 'ignore'))

-- name: job_import_attempts
-- The attempts that a job had elsewhere count.
update tide.job_wait w set attempt = %(attempts)s::int + 1
  from tide.job_of_uuid(%(job)s::uuid) j where w.outbox_id = j.outbox_id and w.id = j.id

-- name: job_import_dead
-- A dead job, as it was elsewhere: it has an id here, and no row in the log. None that was copied before.
with made as (
    select q.outbox_id, nextval(o.ids) as id
      from tide.job_queue q join tide.outbox o on o.outbox_id = q.outbox_id
     where q.name = %(queue)s
       and not exists (select from tide.job_dead d
                        where d.outbox_id = q.outbox_id and d.job -> 'metadata' ->> 'pgrelay_job_id' = %(source)s)
)
insert into tide.job_dead (outbox_id, id, attempts, died_at, code, error, job)
select m.outbox_id, m.id, %(attempts)s::int, %(died_at)s::timestamptz, %(code)s::text, %(error)s::text,
       to_jsonb(jsonb_populate_record(null::tide.job, jsonb_build_object(
           'outbox_id', m.outbox_id, 'id', m.id, 'created_at', %(created_at)s::timestamptz, 'size', pg_column_size(%(payload)s::jsonb),
           'kind', left(%(kind)s::text, 1), 'priority', %(priority)s::int, 'max_attempts', %(max_attempts)s::int,
           'timeout_seconds', %(timeout_seconds)s::int, 'available_at', %(available_at)s::timestamptz, 'name', %(name)s::text,
           'idempotency_key', %(idempotency_key)s::text, 'dedupe_key', %(dedupe_key)s::text, 'trace_id', %(trace_id)s::text,
           'headers', %(headers)s::jsonb, 'metadata', %(metadata)s::jsonb, 'payload', %(payload)s::jsonb)))
  from made m
returning id
