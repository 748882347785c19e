-- What people ask of jobs and do to them: relay/operations/jobs.py and job_queues.py.

-- name: job_enqueue
-- Enqueues a job.
select e.id, tide.job_uuid(q.outbox_id, e.id)::text as job
  from tide.job_enqueue(
           queue => %(queue)s::text, name => %(name)s::text, payload => %(payload)s::jsonb, kind => %(kind)s::text,
           priority => %(priority)s::int, max_attempts => %(max_attempts)s::int, timeout_seconds => %(timeout_seconds)s::int,
           available_at => %(available_at)s::timestamptz, run_key => %(run_key)s::text, idempotency_key => %(idempotency_key)s::text,
           dedupe_key => %(dedupe_key)s::text, trace_id => %(trace_id)s::text, headers => %(headers)s::jsonb,
           metadata => %(metadata)s::jsonb, options => %(options)s::jsonb, on_conflict => %(on_conflict)s::text,
           dedupe => %(dedupe)s::text) as e (id), tide.job_queue q
 where q.name = %(queue)s

-- name: job_is_new
-- Whether this transaction wrote it: not, if a key was in use.
select created_at >= now() as is_new from tide.job_get(%(job)s::uuid)

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
