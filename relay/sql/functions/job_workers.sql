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
