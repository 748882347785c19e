-- The processes that run jobs. One row a process, a new one at each start: never reused, never a host's name. It gives its
-- signs of life there, one for all its jobs; what the handlers do must not keep it from that.

create or replace function tide.job_worker_start(host text, pid int, queues text[], slots int, version text default '') returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic
    insert into tide.job_worker (host, pid, queues, slots, version) values (host, pid, queues, slots, version) returning worker_id;
end;
comment on function tide.job_worker_start is 'Says that a process begins to run jobs, and returns its number.';

-- A worker whose row is gone was taken for dead: its jobs are others'.
create or replace function tide.job_worker_beat(
    worker bigint, is_stopping boolean default false, out alive boolean, out leases bigint[], out jobs bigint[]
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    update tide.job_worker w set seen_at = clock_timestamp(), stopping = is_stopping where w.worker_id = worker;
    alive := found;
    select array_agg(l.lease_id), array_agg(g.id) into leases, jobs
      from tide.job_lease l cross join unnest(l.cancelled * l.ids) r cross join generate_series(lower(r), upper(r) - 1) as g (id)
     where l.worker_id = worker and not isempty(l.cancelled);
end $$;
comment on function tide.job_worker_beat is
    'A sign of life; false: the worker was taken for dead. leases and jobs: what it runs and someone asked to cancel.';

create or replace function tide.job_worker_stop(worker bigint) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    released int := tide.job_release(worker);
begin
    delete from tide.job_worker w where w.worker_id = worker;
    return released;
end $$;
comment on function tide.job_worker_stop is 'Hands back what the worker still has and forgets it. Returns the number of jobs.';

-- What a process asks about a queue just before it claims: whether some transaction may still add jobs that no bell tells of
-- (a publisher is open, or so many ids were passed), in how many seconds the next job is due that waits for its time, and whether
-- a limit may leave jobs that are due unclaimed until others end.
create or replace function tide.job_look(
    queue int, out open_publishers boolean, out gaps bigint, out due_seconds float8, out limited boolean
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    select o.open_publishers > 0 into job_look.open_publishers from tide.outbox_horizon(queue) o;
    select coalesce(sum(upper(r) - lower(r)), 0) into job_look.gaps
      from (select l.gaps + l.old_gaps as ids from tide.job_lane l
             where l.outbox_id = queue and l.priority = 0 order by l.turn desc limit 1) l cross join unnest(l.ids) r;
    select extract(epoch from w.available_at - clock_timestamp()) into due_seconds from tide.job_wait w
     where w.outbox_id = queue and w.available_at > clock_timestamp() and w.available_at < 'infinity' order by w.available_at limit 1;
    select q.concurrency_limit is not null or q.key_limit is not null,
           -- Where the rate leaves none: the next token.
           least(due_seconds, case when t.bucket < 1 then (1 - t.bucket) / q.rate end)
      into limited, due_seconds
      from tide.job_queue q
      left join lateral (
           select l.tokens + extract(epoch from clock_timestamp() - l.tokens_at)::float8 * q.rate as bucket from tide.job_lane l
            where l.outbox_id = queue and l.priority = 0 order by l.turn desc limit 1) t on q.rate is not null
     where q.outbox_id = queue;
end $$;

-- What the jobs returned that claimed ones have waited for: a JSON object as text, by public ids. A result that is not kept is absent,
-- and so is what goes beyond 16 MiB for one job, in the order of options.after: a worker has all of it in memory.
create or replace function tide.job_results(leases bigint[], ids bigint[]) returns table (lease_id bigint, id bigint, results text)
language sql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off
begin atomic
    select k.lease_id, k.id, jsonb_object_agg(k.job, k.result)::text
      from (select c.lease_id, c.id, u.job::uuid as job, a.result,
                   sum(coalesce(octet_length(a.result::text), 0)) over (partition by c.lease_id, c.id order by u.n) as bytes
              from unnest(leases, ids) c (lease_id, id)
              join tide.job_lease l on l.lease_id = c.lease_id and l.ids @> c.id
             cross join lateral tide.job_stored(l.outbox_id, c.id) j
             cross join lateral jsonb_array_elements_text(j.options -> 'after') with ordinality u (job, n)
             cross join lateral tide.job_of_uuid(u.job::uuid) needed
             cross join lateral (
                select a.result, a.code from tide.job_attempts_of(needed.outbox_id, needed.id) a
                 where a.outcome = 's' order by a.attempt desc limit 1) a
             where a.code is distinct from 'result_dropped') k
     where k.bytes <= 16777216
     group by k.lease_id, k.id;
end;
comment on function tide.job_results is
    'What the jobs returned that options.after of these claimed jobs names: of each that has any, a JSON object by public ids.';

-- The timer's look of a scheduler, which counts nothing: whether a process would find a job, or will within a second. It passes
-- over a bounded number of jobs that are in no lane.
create or replace function tide.job_queue_behind(queue int) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    lane  record;
    found int;
    plain boolean;
begin
    if exists (select from tide.job_wait w where w.outbox_id = queue and w.available_at <= clock_timestamp() + interval '1 second'
                                             and w.needs = 0) then
        return true;
    end if;
    select l.cursor_id, isempty(l.gaps) and isempty(l.old_gaps) as whole into lane from tide.job_lane l
     where l.outbox_id = queue and l.priority = 0 order by l.turn desc limit 1;
    if lane.whole is distinct from true then
        return true;
    end if;
    select count(*), bool_or(j.priority = 0 and j.available_at is null and j.run_key is null) into found, plain
      from (select j.priority, j.available_at, j.run_key from tide.job j
             where j.outbox_id = queue and j.id > lane.cursor_id order by j.id limit 1000) j;
    if plain or found = 1000 then
        return true;
    end if;
    return exists (
        select from unnest(tide.job_priorities(queue)) p
         cross join lateral (
            select j.id from tide.job j
             where j.outbox_id = queue and j.priority <> 0 and j.available_at is null and j.run_key is null and j.priority = p
             order by j.id desc limit 1) last
          left join lateral (
            select l.cursor_id from tide.job_lane l where l.outbox_id = queue and l.priority = p order by l.turn desc limit 1) l on true
         where p <> 0 and last.id > coalesce(l.cursor_id, 0));
end $$;
