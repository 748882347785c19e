-- What is asked about jobs: their states, lists and numbers. The state of a job is in no row of its own: it follows from where
-- the job is found. Lists begin from the table that holds the state they ask for, newest first by id; none reads a whole log.

-- The letters in tide.job, as tide.job_enqueue takes them.
create or replace function tide.job_kind(kind "char") returns text
language sql immutable
return case kind when 'p' then 'python' when 'h' then 'http' when 'd' then 'dramatiq' when 'c' then 'celery' end;

-- A job wherever it is kept: in the log, copied out of it, or whole among the dead, where it is the same.
create or replace function tide.job_find(queue int, job_id bigint) returns setof tide.job
language sql stable rows 1
begin atomic
    select f.*
      from (select j.* from tide.job_stored(queue, job_id) j
             union all
            select j.*
              from tide.job_dead d cross join lateral jsonb_populate_record(null::tide.job, d.job) j
             where d.outbox_id = queue and d.id = job_id) f
     limit 1;
end;

-- The same of many.
create or replace function tide.job_find_of(queue int, ids bigint[]) returns setof tide.job
language sql stable
begin atomic
    with stored as materialized (select j.* from tide.job_stored_of(queue, ids) j)
    select s.* from stored s
     union all
    select j.*
      from tide.job_dead d cross join lateral jsonb_populate_record(null::tide.job, d.job) j
     where d.outbox_id = queue and d.id = any (ids) and not exists (select from stored s where s.id = d.id);
end;

create or replace function tide.job_cursor(queue int, lane_priority smallint) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce((select l.cursor_id from tide.job_lane l
                      where l.outbox_id = queue and l.priority = lane_priority order by l.turn desc limit 1), 0);
end;

-- The ids that claims have passed before they could be seen.
create or replace function tide.job_gaps(queue int) returns int8multirange
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce((select l.gaps + l.old_gaps from tide.job_lane l
                      where l.outbox_id = queue and l.priority = 0 order by l.turn desc limit 1), '{}');
end;

-- The state of a job that exists. What says that it has ended is asked first. A job that is below the cursor of its lane and
-- nowhere else has succeeded in a queue that keeps no history of that.
create or replace function tide.job_state_of(queue int, job_id bigint, priority smallint, in_lane boolean) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select case
        when exists (select from tide.job_dead d where d.outbox_id = queue and d.id = job_id) then 'dead_letter'
        else coalesce(
            (select case e.outcome when 's' then 'succeeded' when 'c' then 'cancelled' when 'd' then 'dead_letter' end
               from (select a.outcome from tide.job_attempts_of(queue, job_id) a order by a.attempt desc limit 1) e),
            case when exists (select from tide.job_wait w where w.outbox_id = queue and w.id = job_id) then 'pending'
                 when exists (select from tide.job_skip s where s.outbox_id = queue and s.id = job_id) then 'cancelled'
                 when exists (select from tide.job_lease l where l.outbox_id = queue and l.ids @> job_id) then 'leased'
                 when in_lane and (job_id > tide.job_cursor(queue, priority) or tide.job_gaps(queue) @> job_id) then 'pending'
                 else 'succeeded' end)
        end;
end;

create or replace function tide.job_waits(queue int, job_id bigint) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select exists (select from tide.job_find(queue, job_id) j
                    where tide.job_state_of(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null) = 'pending');
end;

create or replace function tide.job_state(queue text, id bigint) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select tide.job_state_of(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null)
      from (select (tide.find_job_queue(queue)).outbox_id as in_queue offset 0) q cross join lateral tide.job_find(q.in_queue, job_state.id) j;
end;
comment on function tide.job_state is 'pending, leased, succeeded, dead_letter or cancelled; null: there is no such job (any more).';

-- Ids of jobs that may be in a state, below an id, highest first; at most so many. All that are in that state come up in time,
-- others of the same table may be among them.
create or replace function tide.job_ids(queue int, state text, before_id bigint, max_ids int) returns bigint[]
language plpgsql stable set search_path = pg_catalog, pg_temp
set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    found_ids bigint[];
begin
    case state
    when 'pending' then
        select array_agg(distinct u.id order by u.id desc) into found_ids
          from (select x.id
                  from ((select w.id from tide.job_wait w where w.outbox_id = queue and w.id < before_id order by w.id desc limit max_ids)
                        union all
                        select l.id
                          from unnest(tide.job_priorities(queue)) p
                         cross join lateral (select tide.job_cursor(queue, p) as reached offset 0) c
                         cross join lateral (
                            (select j.id from tide.job j
                              where p = 0 and j.outbox_id = queue and j.priority = 0 and j.available_at is null and j.run_key is null
                                and j.id > c.reached and j.id < before_id order by j.id desc limit max_ids)
                            union all
                            (select j.id from tide.job j
                              where p <> 0 and j.outbox_id = queue and j.priority <> 0 and j.priority = p and j.available_at is null
                                and j.run_key is null and j.id > c.reached and j.id < before_id
                              order by j.priority, j.id desc limit max_ids)) l
                        union all
                        select j.id
                          from unnest(tide.job_gaps(queue)) g
                         cross join lateral (
                            select j.id from tide.job j
                             where j.outbox_id = queue and j.id >= lower(g) and j.id < upper(g) and j.id < before_id
                             order by j.id desc limit max_ids) j) x
                 order by x.id desc limit max_ids) u;
    when 'leased' then
        select array_agg(distinct u.id order by u.id desc) into found_ids
          from (select g.id from tide.job_lease l cross join unnest(l.ids) r cross join generate_series(lower(r), upper(r) - 1) as g (id)
                 where l.outbox_id = queue and g.id < before_id order by g.id desc limit max_ids) u;
    when 'dead_letter' then
        select array_agg(distinct u.id order by u.id desc) into found_ids
          from (select d.id from tide.job_dead d where d.outbox_id = queue and d.id < before_id order by d.id desc limit max_ids) u;
    when 'succeeded' then
        select array_agg(distinct u.id order by u.id desc) into found_ids
          from (select a.id from tide.job_attempt a where a.outbox_id = queue and a.id < before_id order by a.id desc limit max_ids) u;
    when 'cancelled' then
        select array_agg(distinct u.id order by u.id desc) into found_ids
          from (select x.id
                  from ((select a.id from tide.job_attempt a
                          where a.outbox_id = queue and a.outcome = 'c' and a.id < before_id order by a.id desc limit max_ids)
                        union all
                        (select s.id from tide.job_skip s where s.outbox_id = queue and s.id < before_id order by s.id desc limit max_ids)) x
                 order by x.id desc limit max_ids) u;
    else
        -- Those that outlive their partition too.
        select array_agg(distinct u.id order by u.id desc) into found_ids
          from (select x.id
                  from ((select j.id from tide.job j where j.outbox_id = queue and j.id < before_id order by j.id desc limit max_ids)
                        union all
                        (select k.id from tide.job_kept k where k.outbox_id = queue and k.id < before_id order by k.id desc limit max_ids)
                        union all
                        (select d.id from tide.job_dead d where d.outbox_id = queue and d.id < before_id order by d.id desc limit max_ids)) x
                 order by x.id desc limit max_ids) u;
    end case;
    return found_ids;
end $$;

-- What lists say of a job: nothing that can be large. An SRF without settings, so that it becomes part of its caller's plan.
create or replace function tide.job_listed(q tide.job_queue, job_id bigint, state text) returns setof tide.job_listed
language sql stable rows 1
begin atomic
    select j.id, tide.job_uuid(j.outbox_id, j.id), (q).name, state, j.name, tide.job_kind(j.kind), j.priority,
           coalesce(a.attempt, d.attempts, 0::smallint), j.max_attempts, j.created_at,
           case when state = 'pending' and isfinite(coalesce(w.available_at, j.created_at)) then coalesce(w.available_at, j.created_at) end,
           case when state in ('succeeded', 'dead_letter', 'cancelled') then coalesce(d.died_at, a.ended_at) end,
           coalesce(w.code, a.code, d.code), j.run_key, j.dedupe_key, j.idempotency_key, j.trace_id,
           tide.job_uuid(j.outbox_id, d.replayed_as)
      from tide.job_find((q).outbox_id, job_id) j
      left join lateral (select a.attempt, a.ended_at, a.code from tide.job_attempts_of(j.outbox_id, j.id) a
                          order by a.attempt desc limit 1) a on true
      left join lateral (select d.attempts, d.died_at, d.code, d.replayed_as from tide.job_dead d
                          where d.outbox_id = j.outbox_id and d.id = j.id) d on true
      left join lateral (select w.available_at, w.code from tide.job_wait w where w.outbox_id = j.outbox_id and w.id = j.id) w on true;
end;

create or replace function tide.job_check_state(state text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if state not in ('pending', 'leased', 'succeeded', 'dead_letter', 'cancelled') then
        raise exception 'state % of a job is not known', quote_literal(state) using
            errcode = 'invalid_parameter_value', hint = 'Use pending, leased, succeeded, dead_letter or cancelled.';
    end if;
end $$;

create or replace function tide.job_list(
    queue text, state text default null, name text default null, dedupe_key text default null, run_key text default null,
    before_id bigint default null, max_rows int default 100, max_looked int default 100000
) returns setof tide.job_listed
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
declare
    q        tide.job_queue := tide.find_job_queue(queue);
    filtered boolean := coalesce(job_list.name, job_list.dedupe_key, job_list.run_key) is not null;
    reached  bigint := coalesce(before_id, 9223372036854775807);
    looked   int := 0;
    missing  int := max_rows;
    got      int;
    ids      bigint[];
    rest     tide.job_listed;
begin
    perform tide.job_check_state(job_list.state);
    while missing > 0 loop
        ids := tide.job_ids(q.outbox_id, job_list.state, reached, case when filtered then 1000 else least(missing, 1000) end);
        exit when ids is null;
        return query
        select l.*
          from (select j.id, s.state
                  from tide.job_find_of(q.outbox_id, ids) j
                 cross join lateral (
                    select tide.job_state_of(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null) as state offset 0) s
                 where (job_list.name is null or j.name = job_list.name)
                   and (job_list.dedupe_key is null or j.dedupe_key = job_list.dedupe_key)
                   and (job_list.run_key is null or j.run_key = job_list.run_key)
                   and (job_list.state is null or s.state = job_list.state)
                 order by j.id desc limit missing) f
         cross join lateral tide.job_listed(q, f.id, f.state) l
         order by f.id desc;
        get diagnostics got = row_count;
        missing := missing - got;
        looked := looked + cardinality(ids);
        reached := ids[cardinality(ids)];
        if missing > 0 and looked >= max_looked then
            rest.id := reached;
            rest.queue := q.name;
            return next rest;
            return;
        end if;
    end loop;
end $$;
comment on function tide.job_list is
    'Jobs of a queue, newest first; go on below the last id. A row without a state: the look ended here, there may be more below.';

create or replace function tide.job_get(job uuid) returns setof tide.job_shown
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    place record;
    q     tide.job_queue;
begin
    select * into place from tide.job_of_uuid(job_get.job);
    select * into q from tide.job_queue q where q.outbox_id = place.outbox_id;
    return query
    select l.*, j.timeout_seconds, j.size, jsonb_pretty(j.payload), jsonb_pretty(j.headers), jsonb_pretty(j.metadata), jsonb_pretty(j.options),
           coalesce(a.error, d.error), a.response_status, a.preview, jsonb_pretty(a.result), e.lease_id, e.worker_id, e.host, e.pid,
           e.claimed_at, coalesce(e.cancelled @> j.id, false)
      from tide.job_find(q.outbox_id, place.id) j
     cross join lateral (
        select tide.job_state_of(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null) as state offset 0) s
     cross join lateral tide.job_listed(q, j.id, s.state) l
      left join lateral (select a.error, a.response_status, a.preview, a.result from tide.job_attempts_of(j.outbox_id, j.id) a
                          order by a.attempt desc limit 1) a on true
      left join lateral (select d.error from tide.job_dead d where d.outbox_id = j.outbox_id and d.id = j.id) d on true
      left join lateral (select e.*, w.host, w.pid from tide.job_lease e left join tide.job_worker w on w.worker_id = e.worker_id
                          where s.state = 'leased' and e.outbox_id = j.outbox_id and e.ids @> j.id limit 1) e on true;
end $$;
comment on function tide.job_get is 'Everything that is kept of a job; no row: there is no such job (any more).';

create or replace function tide.job_attempts(job uuid) returns setof tide.job_attempted
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select a.attempt, case a.outcome when 's' then 'succeeded' when 'l' then 'lease_expired' when 'c' then 'cancelled'
                                     else case a.code when 'timeout' then 'timeout' else 'failed' end end,
           a.outcome, a.ended_at - make_interval(secs => a.ms / 1000.0), a.ended_at, a.ms, a.code, a.error, a.response_status, a.preview,
           jsonb_pretty(a.result), a.worker_id
      from (select u.* from tide.job_of_uuid(job) u offset 0) p cross join lateral tide.job_attempts_of(p.outbox_id, p.id) a
     order by a.attempt;
end;
comment on function tide.job_attempts is 'The attempts of a job that have ended, in their order.';

-- What waits in a lane: counted up to 10,000, and beyond that estimated by its ids.
create or replace function tide.job_lane_numbers(queue int, lane_priority smallint, out jobs bigint, out oldest timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp
set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    reached bigint := tide.job_cursor(queue, lane_priority);
begin
    if lane_priority = 0 then
        select count(*), min(f.created_at) into jobs, oldest
          from (select j.created_at from tide.job j
                 where j.outbox_id = queue and j.priority = 0 and j.available_at is null and j.run_key is null and j.id > reached
                 order by j.id limit 10000) f;
    else
        select count(*), min(f.created_at) into jobs, oldest
          from (select j.created_at from tide.job j
                 where j.outbox_id = queue and j.priority <> 0 and j.priority = lane_priority and j.available_at is null
                   and j.run_key is null and j.id > reached
                 order by j.priority, j.id limit 10000) f;
    end if;
    if jobs = 10000 then
        jobs := greatest(jobs, tide.outbox_last_id(queue) - reached);
    end if;
end $$;

-- Numbers of one queue, or of all. Logs are not counted; of rows that wait and of dead jobs, at most 100,000 of a queue are.
create or replace function tide.job_stats(queue text default null) returns setof tide.job_numbers
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    if job_stats.queue is not null then
        perform tide.find_job_queue(job_stats.queue);
    end if;
    return query
    select q.name, not p.enabled, greatest(l.jobs - s.jobs, 0) + w.due + w.scheduled, greatest(l.jobs - s.jobs, 0) + w.due, w.scheduled,
           r.jobs, d.jobs,
           coalesce(extract(epoch from clock_timestamp() - least(case when l.jobs > s.jobs then l.oldest end, w.oldest))::float8, 0),
           (select count(*)::int from tide.job_worker k where k.queues && array[q.name, '*'] and not k.stopping
                                                          and k.seen_at > clock_timestamp() - interval '60 seconds'),
           q.concurrency_limit
      from tide.job_queue q
      join tide.pipeline p on p.group_id = q.group_id
     cross join lateral (select coalesce(sum(n.jobs), 0)::bigint as jobs, min(n.oldest) as oldest
                           from unnest(tide.job_priorities(q.outbox_id)) u cross join lateral tide.job_lane_numbers(q.outbox_id, u) n) l
     cross join lateral (select count(*) as jobs from (select from tide.job_skip s where s.outbox_id = q.outbox_id limit 100000) x) s
     cross join lateral (select count(*) filter (where x.available_at <= clock_timestamp() and x.needs = 0) as due,
                                count(*) filter (where x.available_at > clock_timestamp() or x.needs > 0) as scheduled,
                                min(greatest(x.available_at, 'epoch')) filter (where x.available_at <= clock_timestamp() and x.needs = 0) as oldest
                           from (select w.available_at, w.needs from tide.job_wait w
                                  where w.outbox_id = q.outbox_id order by w.id limit 100000) x) w
     cross join lateral (select coalesce(sum(e.open), 0)::bigint as jobs from tide.job_lease e where e.outbox_id = q.outbox_id) r
     cross join lateral (select count(*) as jobs from (select from tide.job_dead d
                                                       where d.outbox_id = q.outbox_id and d.replayed_as is null limit 100000) x) d
     where job_stats.queue is null or q.name = job_stats.queue
     order by q.name;
end $$;
comment on function tide.job_stats is
    'Numbers of each queue: pending = due + scheduled, leased, dead (and not replayed since); and for how many seconds its oldest due job has been due.';

create or replace function tide.job_unknown_handlers() returns table (queue text, name text, jobs bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select q.name, j.name, count(*)
      from (select x.outbox_id, array_agg(x.id) as ids
              from (select w.outbox_id, w.id from tide.job_wait w where w.code = 'unknown_handler' limit 10000) x
             group by x.outbox_id) w
      join tide.job_queue q on q.outbox_id = w.outbox_id
     cross join lateral tide.job_stored_of(w.outbox_id, w.ids) j
     group by 1, 2
     order by 1, 2;
end;
comment on function tide.job_unknown_handlers is
    'Names of jobs that workers handed back because they have no such handler; at most 10,000 of them are counted.';
