-- Ending jobs: finishing, handing back, rescuing. Locks are taken in the order of ids everywhere: leases, then keys.

-- The fence is the lease: one that was given to others is gone, and what is no longer in it is passed over. So a call whose
-- answer was lost can be repeated. Outcomes: s (succeeded), r (retry), d (dead), c (cancelled), b (handed back: no attempt).
--
-- tide.job_complete writes the attempt of a job in the handler's own transaction and only shares the lease: else a handler that
-- stays in its transaction would hold up the other jobs of the claim. Who would write another attempt of the same number waits
-- for that transaction at the primary key, and who would end the lease waits for it there: so what is completed stays so,
-- whatever its handler does next, and whatever becomes of its worker.
create or replace function tide.job_finish_in(
    queue int, worker bigint, leases bigint[], ids bigint[], attempts smallint[], outcomes "char"[], ms int[], codes text[],
    errors text[], statuses smallint[], previews text[], results jsonb[], retry_seconds float8[]
) returns int
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    ended_ids int;
begin
    with ours as materialized (
        select l.lease_id, l.outbox_id, l.ids, l.cancelled,
               (select q.keep_succeeded from tide.job_queue q where q.outbox_id = l.outbox_id) as keep
          from tide.job_lease l
         where l.lease_id = any(leases) and l.outbox_id = queue  -- by their key
           and l.worker_id is not distinct from worker
         order by l.lease_id for no key update
    ), told as materialized (
        select o.outbox_id, o.keep, e.lease_id, e.id, e.attempt, e.ms, e.code, e.error, e.status, e.preview, e.result, e.retry_seconds,
               case when e.outcome <> 's' and exists (
                        select from tide.job_attempt a
                         where a.outbox_id = o.outbox_id and a.id = e.id and a.attempt = e.attempt and a.outcome = 's')
                    then 's'
                    when e.outcome in ('r', 'b') and o.cancelled @> e.id then 'c' else e.outcome end as outcome
          from unnest(leases, ids, attempts, outcomes, ms, codes, errors, statuses, previews, results, retry_seconds)
                 as e (lease_id, id, attempt, outcome, ms, code, error, status, preview, result, retry_seconds)
          join ours o on o.lease_id = e.lease_id and o.ids @> e.id
    ), shrunk as materialized (
        select e.lease_id, range_agg(int8range(e.id, e.id, '[]')) as ids, count(distinct e.id)::int as n from told e group by e.lease_id
    ), written as (
        insert into tide.job_attempt (outbox_id, id, attempt, outcome, worker_id, ms, code, error, response_status, preview, result)
        select e.outbox_id, e.id, e.attempt, e.outcome, worker, e.ms, e.code, e.error, e.status, e.preview, e.result
          from told e
         where e.outcome <> 'b'
           and (e.outcome <> 's' or e.keep)
        on conflict do nothing
        returning outbox_id, id
    ), ended as materialized (
        -- An attempt that is there already, and was not a moment ago, is one of tide.job_complete; or the job was cancelled before
        -- it was claimed, see tide.job_end_skipped.
        select e.*, case when e.outcome not in ('r', 'd', 'c') or (e.outbox_id, e.id) in (select w.outbox_id, w.id from written w)
                         then e.outcome
                         when exists (select from tide.job_attempt a
                                       where a.outbox_id = e.outbox_id and a.id = e.id and a.attempt = e.attempt and a.outcome = 'c')
                         then 'c' else 's' end as fate
          from told e
    ), waiting as (
        insert into tide.job_wait (outbox_id, id, attempt, priority, available_at, run_key, code)
        select e.outbox_id, e.id, e.attempt + (e.fate = 'r')::int, j.priority,
               clock_timestamp() + make_interval(secs => coalesce(e.retry_seconds, 0)), j.run_key, e.code
          from ended e cross join lateral tide.job_stored_in(e.outbox_id, e.id) j
         where e.fate in ('r', 'b')
        on conflict do nothing
    ), dead as (
        insert into tide.job_dead (outbox_id, id, attempts, code, error, job)
        select e.outbox_id, e.id, e.attempt, e.code, e.error, to_jsonb(j)
          from ended e cross join lateral tide.job_stored_in(e.outbox_id, e.id) j
         where e.fate = 'd'
        on conflict do nothing
    ), free as (
        delete from tide.job_running r using ended e where r.lease_id = e.lease_id and r.id = e.id
    ), keys as (
        delete from tide.job_key k using ended e
         where (select exists (select from tide.job_key f where f.free_on = 'e'))
           and e.fate in ('s', 'd', 'c') and k.outbox_id = e.outbox_id and k.id = e.id and k.free_on = 'e'
    ), kept as (
        delete from tide.job_kept k using ended e
         where (select exists (select from tide.job_kept f))
           and e.fate in ('s', 'd', 'c') and k.outbox_id = e.outbox_id and k.id = e.id
    ), fewer as (
        update tide.job_lease l
           set ids = l.ids - (select s.ids from shrunk s where s.lease_id = l.lease_id),
               open = l.open - (select s.n from shrunk s where s.lease_id = l.lease_id)
         where l.lease_id = any(array(select s.lease_id from shrunk s join ours o on o.lease_id = s.lease_id and not isempty(o.ids - s.ids)))
    ), gone as (
        delete from tide.job_lease l
         where l.lease_id = any(array(select s.lease_id from shrunk s join ours o on o.lease_id = s.lease_id and isempty(o.ids - s.ids)))
    )
    -- What follows them, if anything follows any job.
    select coalesce(sum(s.n), 0),
           (select tide.job_followed(array_agg(e.outbox_id), array_agg(e.id), array_agg(e.fate)) from ended e
             where (select tide.job_follows()) and e.fate in ('s', 'd', 'c') having count(*) > 0)
      into ended_ids from shrunk s;
    return ended_ids;
end $$;

create or replace function tide.job_finish(
    worker bigint, leases bigint[], ids bigint[], attempts smallint[], outcomes "char"[], ms int[], codes text[] default null,
    errors text[] default null, statuses smallint[] default null, previews text[] default null, results jsonb[] default null,
    retry_seconds float8[] default null
) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
declare
    queue int;
    ended int;
    total int := 0;
begin
    for queue in
        select l.outbox_id
          from (select l.outbox_id from tide.job_lease l where l.lease_id = any(leases) order by l.lease_id for no key update) l
         group by 1 order by 1
    loop
        execute format('select tide.job_finish_in_%s($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)', queue)
           into ended
          using queue, worker, leases, ids, attempts, outcomes, ms, codes, errors, statuses, previews, results, retry_seconds;
        total := total + ended;
    end loop;
    return cardinality(ids) - total;
end $$;
comment on function tide.job_finish is
    'Ends jobs that a worker has claimed, and returns how many of them were not its own any more: nothing was written of those.';

create or replace function tide.job_complete(lease bigint, job bigint, attempt smallint, result jsonb default null) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    with held as (
        select l.outbox_id, l.worker_id, l.claimed_at from tide.job_lease l where l.lease_id = lease and l.ids @> job for key share
    )
    insert into tide.job_attempt as a (outbox_id, id, attempt, outcome, worker_id, ms, result)
    select h.outbox_id, job, job_complete.attempt, 's', h.worker_id,
           extract(epoch from clock_timestamp() - h.claimed_at) * 1000, job_complete.result
      from held h
    on conflict do nothing;
    if not found then
        raise exception 'job % is not this worker''s any more: its lease has ended', job using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'Roll back: another attempt of the job is made, or was.';
    end if;
end $$;
comment on function tide.job_complete is
    'Ends a job well in the handler''s own transaction: what it writes there and the end of the job are one commit.';

-- The jobs that are left in a lease go back (outcome b), or their attempt has failed (l): then they are retried, or dead at the
-- last attempt. One that was completed, or is to be cancelled, has ended. The lease is locked by the caller.
create or replace function tide.job_lease_end_in(lease tide.job_lease, outcome "char") returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    with held as materialized (
        select j.outbox_id, j.id, j.priority, j.max_attempts, j.run_key, to_jsonb(j) as job,
               coalesce(a.attempt, 0) + 1 as attempt, lease.cancelled @> j.id as cancelled
          from unnest(lease.ids) r
         cross join lateral generate_series(lower(r), upper(r) - 1) as g (id)
         cross join lateral tide.job_stored_in(lease.outbox_id, g.id) j
          left join lateral (
              select a.attempt, a.outcome from tide.job_attempt a
               where a.outbox_id = j.outbox_id and a.id = j.id order by a.attempt desc limit 1) a on true
         where a.outcome is distinct from 's'
    ), written as (
        insert into tide.job_attempt (outbox_id, id, attempt, outcome, worker_id, ms, code)
        select h.outbox_id, h.id, h.attempt, case when h.cancelled then 'c' else 'l' end, lease.worker_id,
               extract(epoch from clock_timestamp() - lease.claimed_at) * 1000,
               case when h.cancelled then 'cancelled' else 'lease_expired' end
          from held h where h.cancelled or job_lease_end_in.outcome = 'l'
    ), waiting as (
        insert into tide.job_wait (outbox_id, id, attempt, priority, available_at, run_key)
        select h.outbox_id, h.id, h.attempt + (job_lease_end_in.outcome = 'l')::int, h.priority,
               clock_timestamp() + make_interval(secs => case job_lease_end_in.outcome when 'l' then least(2.0 ^ least(h.attempt, 10), 900) else 0 end),
               h.run_key
          from held h where not h.cancelled and (job_lease_end_in.outcome = 'b' or h.attempt < h.max_attempts)
    ), dead as (
        insert into tide.job_dead (outbox_id, id, attempts, code, error, job)
        select h.outbox_id, h.id, h.attempt, 'lease_expired', 'The worker gave no sign of life.', h.job
          from held h where not h.cancelled and job_lease_end_in.outcome = 'l' and h.attempt >= h.max_attempts
    ), free as (
        delete from tide.job_running r where r.lease_id = lease.lease_id
    ), keys as (
        delete from tide.job_key k using held h
         where k.outbox_id = h.outbox_id and k.id = h.id and k.free_on = 'e'
           and (h.cancelled or job_lease_end_in.outcome = 'l' and h.attempt >= h.max_attempts)
    )
    delete from tide.job_lease l where l.lease_id = lease.lease_id;
    perform tide.job_followed_lease(lease) where tide.job_follows();
end $$;

create or replace function tide.job_lease_end(lease tide.job_lease, outcome "char") returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
begin
    execute format('select tide.job_lease_end_in_%s($1, $2)', lease.outbox_id) using lease, outcome;
end $$;

-- Leases of workers that are silent, or gone. It works from leases: a worker's row that was removed cannot hide a job. A lease
-- that is in use, or has a job that an open transaction has completed, is left for the next time.
create or replace function tide.job_rescue(silent_seconds float8, max_leases int default 100) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
    lease   tide.job_lease;
    rescued int := 0;
begin
    for lease in
        select l.* from tide.job_lease l left join tide.job_worker w on w.worker_id = l.worker_id
         where w.worker_id is null or w.seen_at < clock_timestamp() - make_interval(secs => silent_seconds)
         order by l.lease_id limit max_leases for update of l skip locked
    loop
        perform tide.job_lease_end(lease, 'l');
        rescued := rescued + lease.open;
    end loop;
    perform tide.job_follow_late() where tide.job_follows();
    delete from tide.job_worker w
     where w.seen_at < clock_timestamp() - make_interval(secs => greatest(silent_seconds, 60))
       and not exists (select from tide.job_lease l where l.worker_id = w.worker_id);
    return rescued;
end $$;
comment on function tide.job_rescue is
    'Has the jobs of workers without a sign of life for so long run again, or be dead at their last attempt. Returns their number.';

-- For a stop, and for jobs that were claimed ahead and not begun.
-- A lease with a job that an open transaction has completed stays: when its worker has stopped, it is rescued.
create or replace function tide.job_release(worker bigint, leases bigint[] default null) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
    number   bigint;
    lease    tide.job_lease;
    released int := 0;
begin
    for number in
        select l.lease_id from tide.job_lease l
         where l.worker_id = worker and (leases is null or l.lease_id = any (leases)) order by l.lease_id
    loop
        begin
            select * into lease from tide.job_lease l where l.lease_id = number and l.worker_id = worker for update;
            if found then
                perform tide.job_lease_end(lease, 'b');
                released := released + lease.open;
            end if;
        exception when lock_not_available then
            null;
        end;
    end loop;
    return released;
end $$;
comment on function tide.job_release is 'Hands back what is left in leases of a worker (null: all): no attempt is counted.';

-- Jobs that were cancelled before they were claimed end as soon as they are.
create or replace function tide.job_end_skipped(queue int, worker bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    gone record;
begin
    with claimed as materialized (
        select l.lease_id, unnest(l.ids) as r from tide.job_lease l where l.worker_id = worker and l.outbox_id = queue
    ), skipped as (
        delete from tide.job_skip s using claimed c
         where s.outbox_id = queue and s.id >= lower(c.r) and s.id < upper(c.r)
        returning c.lease_id, s.id
    )
    select array_agg(s.lease_id) as leases, array_agg(s.id) as ids, count(*)::int as n into gone from skipped s;
    if gone.n > 0 then
        perform tide.job_finish(worker, gone.leases, gone.ids, array_fill(1::smallint, array[gone.n]),
                                array_fill('c'::"char", array[gone.n]), array_fill(0, array[gone.n]),
                                codes => array_fill('cancelled'::text, array[gone.n]));
    end if;
end $$;
