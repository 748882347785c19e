-- What the engine of a worker process reads and writes: claims and ends of jobs, its signs of life, the ends of its drains.

-- name: engine_start
-- A process begins to run jobs.
select tide.job_worker_start(%(host)s, %(pid)s::int, %(queues)s::text[], %(slots)s::int, %(version)s)

-- name: engine_stop
-- It stops: what it still has goes back.
select tide.job_worker_stop(%(worker)s::bigint)

-- name: engine_beat
-- A sign of life; what of its jobs is to be cancelled.
select alive, leases, jobs from tide.job_worker_beat(%(worker)s::bigint, %(stopping)s)

-- name: engine_hear
-- Bells of queues, on the session that claims: a job should not wait for another one. Anyone can ring.
listen tide_outbox_notify

-- name: engine_listen
-- Changes of queues, and that a running job is to be cancelled. Anyone can send them.
listen tide_relay_config; listen tide_job_cancel

-- name: engine_claim
-- The next jobs of a queue. Durable only where something else in its transaction has to be.
select lease_id, id, attempt, kind, name, priority, timeout_seconds, max_attempts, created_at, due_at, payload, headers, metadata, options,
       idempotency_key, run_key, trace_id
  from tide.job_claim(%(queue)s::int, %(worker)s::bigint, %(want)s::int, %(durable)s::boolean)

-- name: engine_results
-- What the jobs returned that claimed ones have waited for.
select lease_id, id, results from tide.job_results(%(leases)s::bigint[], %(ids)s::bigint[])

-- name: engine_finish
-- Jobs that ended well, and returned nothing.
select tide.job_finish(%(worker)s::bigint, %(leases)s::bigint[], %(ids)s::bigint[], %(attempts)s::smallint[], %(outcomes)s::"char"[],
                       %(ms)s::int[])

-- name: engine_finish_all
-- Jobs that ended in any way.
select tide.job_finish(%(worker)s::bigint, %(leases)s::bigint[], %(ids)s::bigint[], %(attempts)s::smallint[], %(outcomes)s::"char"[],
                       %(ms)s::int[], %(codes)b::text[], %(errors)b::text[], %(statuses)b::smallint[], %(previews)b::text[],
                       %(results)b::text[]::jsonb[], %(retry_seconds)b::float8[])

-- name: engine_release_unknown
-- Claims whose answer was lost: this process does not know their jobs.
select tide.job_release(%(worker)s::bigint, array(
    select l.lease_id from tide.job_lease l where l.worker_id = %(worker)s and l.lease_id <> all (%(known)b::bigint[])))

-- name: engine_leases
-- Which of these leases the worker still has.
select coalesce(array_agg(l.lease_id), '{}') from tide.job_lease l
 where l.worker_id = %(worker)s and l.lease_id = any (%(known)b::bigint[])

-- name: engine_queues
-- Which of these queues there still are.
select coalesce(array_agg(q.outbox_id), '{}') from tide.job_queue q where q.outbox_id = any (%(queues)b::int[])

-- name: engine_look
-- What may come without a bell; asked just before the claim.
select open_publishers, gaps, due_seconds, limited from tide.job_look(%(queue)s::int)

-- name: engine_renew
-- Renews the lease of a drain that is held, and reads the revision of its pipeline. No row: it was abandoned, and another is on
-- its way.
update tide.drain d set lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
  from tide.pipeline p
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s and p.name = d.pipeline
returning p.revision

-- name: engine_ring
-- Jobs were handed back, and are due: if no process looks at their queue, its scheduler is told.
select pg_notify('tide_outbox_notify', %(outbox)s)

-- name: engine_queue_create
-- The queue of a handler.
select tide.job_queue_create_if_not_exists(%(queue)s)

-- name: engine_queue_is_there
-- Whether it is: only a role with more rights than a worker needs can create one.
select q.outbox_id from tide.job_queue q where q.name = %(queue)s
