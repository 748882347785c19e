-- Retention of jobs. Their log goes by partitions, as messages do (see retention.sql), as far as the offset of the queue's group
-- says: below it every job has ended, or is kept apart. Each look is one statement, and what moves a job from one table to
-- another is one transaction: so no lock is needed, and a job is always seen somewhere.

-- Moves the offset to just below the lowest job that has not ended. Waiting jobs that alone hold old partitions, scheduled far
-- ahead, are copied into tide.job_kept first. True if there is more to copy.
create or replace function tide.job_settle(box tide.outbox, max_jobs int default 1000) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    top    bigint;
    below  bigint;
    copied int;
begin
    -- The horizon first, in a statement of its own: what lies above may still become visible.
    select h.horizon into top from tide.outbox_horizon(box.outbox_id) h;
    below := least(top, tide.job_lowest(box.outbox_id) - 1);
    insert into tide.job_kept
    select j.*
      from (select w.id from tide.job_wait w
             where w.outbox_id = box.outbox_id and w.id <= below
               and not exists (select from tide.job_kept k where k.outbox_id = w.outbox_id and k.id = w.id)
             order by w.id limit max_jobs) w
     cross join lateral (select j.* from tide.job j where j.outbox_id = box.outbox_id and j.id = w.id offset 0) j
     where j.created_at <= clock_timestamp() - make_interval(hours => box.retention_hours)
    on conflict do nothing;
    get diagnostics copied = row_count;
    -- One that ended while it was copied.
    delete from tide.job_kept k
     where k.outbox_id = box.outbox_id
       and not exists (select from tide.job_wait w where w.outbox_id = k.outbox_id and w.id = k.id)
       and not exists (select from tide.job_lease l where l.outbox_id = k.outbox_id and l.ids @> k.id);
    update tide.consumer_group g set offset_id = f.settled
      from (select least(below, (select min(w.id) - 1 from tide.job_wait w
                                  where w.outbox_id = box.outbox_id
                                    and not exists (select from tide.job_kept k where k.outbox_id = w.outbox_id and k.id = w.id)),
                         tide.job_lowest(box.outbox_id) - 1) as settled) f
     where g.outbox_id = box.outbox_id and g.offset_id < f.settled;
    return copied >= max_jobs;
end $$;

-- The lowest id of what is in a lane and not claimed, in a gap, or in a lease; null: there is none.
create or replace function tide.job_lowest(queue int) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select least(
        (select min(first.id)
           from unnest(tide.job_priorities(queue)) p
          cross join lateral (select tide.job_cursor(queue, p) as reached offset 0) c
          cross join lateral (
             (select j.id from tide.job j
               where p = 0 and j.outbox_id = queue and j.priority = 0 and j.available_at is null and j.run_key is null
                 and j.id > c.reached order by j.id limit 1)
             union all
             (select j.id from tide.job j
               where p <> 0 and j.outbox_id = queue and j.priority <> 0 and j.priority = p and j.available_at is null
                 and j.run_key is null and j.id > c.reached order by j.priority desc, j.id limit 1)) first),
        (select min(lower(g)) from unnest(tide.job_gaps(queue)) g),
        (select min(lower(l.ids)) from tide.job_lease l where l.outbox_id = queue));
end;

-- Dead jobs that are old go, and so do the keys of jobs that are kept nowhere, and batches that have ended. True if there is more.
create or replace function tide.job_forget(box tide.outbox, max_rows int default 10000) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    hours   int := (select q.dead_retention_hours from tide.job_queue q where q.outbox_id = box.outbox_id);
    settled bigint := (select min(g.offset_id) from tide.consumer_group g where g.outbox_id = box.outbox_id);
    oldest  bigint := (select min(j.id) from tide.job j where j.outbox_id = box.outbox_id);
    rest    text := format('tide.%I', (tide.outbox_logs(box))[2] || '_rest');
    -- A batch is of no queue: it stays for as long as any queue keeps jobs.
    old     timestamptz := clock_timestamp() - make_interval(hours => (select max(o.retention_hours) from tide.outbox o where o.kind = 'jobs'));
    dead    int;
    keys    int;
    batches int;
begin
    -- Attempts of jobs that waited for longer than their partition was kept have no other partition, and no job beside them there.
    if (tide.newest_message(format('tide.%I', box.log || '_rest')::regclass, box.outbox_id)).id is null then
        execute format('delete from %s where ended_at <= clock_timestamp() - make_interval(hours => $1)', rest) using box.retention_hours;
    end if;
    delete from tide.job_dead d
     where hours > 0 and d.outbox_id = box.outbox_id
       and d.id in (select o.id from tide.job_dead o
                     where o.outbox_id = box.outbox_id and o.died_at <= clock_timestamp() - make_interval(hours => hours)
                     order by o.died_at limit max_rows for update skip locked);
    get diagnostics dead = row_count;
    -- A dedupe key is of a job that has not ended: where it is left over nevertheless, it goes here.
    delete from tide.job_key k
     where k.outbox_id = box.outbox_id
       and k.id in (select o.id from tide.job_key o
                     where o.outbox_id = box.outbox_id and o.id <= settled and (o.id < coalesce(oldest, settled + 1) or o.free_on is not null)
                       and not exists (select from tide.job_kept w where w.outbox_id = o.outbox_id and w.id = o.id)
                       and (o.free_on is not null
                            or not exists (select from tide.job_dead d where d.outbox_id = o.outbox_id and d.id = o.id))
                     order by o.id limit max_rows for update skip locked)
       and (k.id < coalesce(oldest, settled + 1) or k.free_on is not null);
    get diagnostics keys = row_count;
    delete from tide.job_batch b
     where b.batch_id in (select o.batch_id from tide.job_batch o
                           where o.ended_at <= old order by o.ended_at limit max_rows for update skip locked);
    get diagnostics batches = row_count;
    delete from tide.job_skip s where s.outbox_id = box.outbox_id and s.id <= settled;
    return greatest(dead, keys, batches) >= max_rows;
end $$;
