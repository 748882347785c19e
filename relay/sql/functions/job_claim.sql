-- Claiming jobs. One call, one round trip, READ COMMITTED: two rows are written for a batch, whatever its size.
--
--   The turn. Claims of one queue take turns: who claims locks the row of its lane 0. Enqueuing and finishing do not need it.
--   Lanes. The jobs of one priority, in the order of their ids; a cursor says how far they are claimed. Scheduled jobs, jobs
--   to be retried and jobs with a run key have a row in tide.job_wait instead.
--   Gaps. No one waits for an open transaction: a claim passes ids that it cannot see, remembers them, and comes back.
--
-- Why no job is lost and none is claimed twice. Let h be a horizon that was read before the rows (see publish.sql). A job at
-- or below h is visible to the later statement, or will never exist. An id above h that the cursor passes is picked, or
-- visible and not of this lane, or not visible; the third kind is put into the gaps in the same statement, by the same
-- snapshot, that picked. Who becomes visible later is found there. Three rules:
--   1. What is visible in any lane is taken out of the range, not only what was picked: else a job of another lane that had
--      been claimed before would be taken for a late one.
--   2. What is picked is taken out of the gaps: it may have become visible between the look at the gaps and that at the lane.
--   3. A gap is closed only when the horizon that has passed it was read before the look that did not find it, and only if
--      that look was not cut short.
--
-- The planner takes small tables that churn for empty, and would read them whole, dead rows and all: leases are reached by
-- their key, jobs by LATERAL. A plan for each call alone costs more than the work. So some ways are closed by settings.

-- Ids that were passed while they were not visible: those that have become so and belong below a cursor are claimed now.
-- Those older than a second are looked at once a second: a transaction that stays open for an hour delays no one.
create or replace function tide.job_claim_late_in(lane tide.job_lane, room int, out ids bigint[], out horizon bigint, out turn bigint)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    queue int := lane.outbox_id;
    old   tide.job_lane := lane;
    look  int8multirange := lane.gaps;
    gone  int8multirange;
    seen  int;
begin
    -- The horizon first, in a statement of its own, then the rows.
    select o.horizon into job_claim_late_in.horizon from tide.outbox_horizon(queue) o;
    if lane.aged_at < clock_timestamp() - interval '1 second' then
        look := lane.gaps + lane.old_gaps;
        lane.old_gaps := look;
        lane.gaps := '{}';
        lane.aged_at := clock_timestamp();
    end if;
    select array_agg(f.id) filter (where f.id <= f.cursor_id),
           range_agg(int8range(f.id, f.id, '[]')) filter (where f.id > f.cursor_id or f.cursor_id is null), count(*)
      into job_claim_late_in.ids, gone, seen
      from (select j.id, l.cursor_id
              from unnest(look) g
             cross join lateral (
                 select j.id, j.priority, j.available_at, j.run_key from tide.job j
                  where j.outbox_id = queue and j.id >= lower(g) and j.id < upper(g) order by j.id limit room) j
              left join lateral (
                 select l.cursor_id from tide.job_lane l
                  where l.outbox_id = queue and l.priority = j.priority order by l.turn desc limit 1) l
                on j.available_at is null and j.run_key is null
             limit room) f;
    ids := coalesce(ids, '{}');
    gone := coalesce(gone, '{}') + tide.id_ranges(ids);
    if seen < room then
        gone := gone + look * int8multirange(int8range(null, job_claim_late_in.horizon, '(]'));
    else
        lane.aged_at := '-infinity';  -- There is more: look at all of it again.
    end if;
    lane.gaps := lane.gaps - gone;
    lane.old_gaps := lane.old_gaps - gone;
    turn := lane.turn;
    if (lane.gaps, lane.old_gaps, lane.aged_at) is distinct from (old.gaps, old.old_gaps, old.aged_at) then
        update tide.job_lane l set gaps = lane.gaps, old_gaps = lane.old_gaps, aged_at = lane.aged_at, turn = l.turn + 1
         where l.outbox_id = queue and l.priority = 0 and l.turn = lane.turn
        returning l.turn into strict turn;
    end if;
end $$;

create or replace function tide.id_ranges(ids bigint[]) returns int8multirange
language sql immutable
return coalesce((select range_agg(int8range(u, u, '[]')) from unnest(ids) u), '{}');

create or replace function tide.job_claim_in(queue int, worker bigint, want int, durable boolean) returns setof tide.job_claimed
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    lane     tide.job_lane;
    limits   record;
    from_id  bigint;
    looked   bigint;
    room     int := least(want, 10000);
    quota    int := 0;
    share    int;
    lease    bigint;
    late     record;
    part     record;
    fresh    bigint[] := '{}';
    waited   bigint[] := '{}';
    attempts smallint[] := '{}';
    dues     timestamptz[] := '{}';
    h        bigint;
    lower    smallint[] := '{}';
    ps       smallint[] := '{0}';
    p        smallint;
    got      int;
    claimed  int := 0;
    bucket   float8;
    waiting  boolean;
    keyed    boolean;
begin
    select * into lane from tide.job_lane l where l.outbox_id = queue and l.priority = 0 order by l.turn desc limit 1 for no key update;
    -- The horizon of the lane may be in a partition that is new to this transaction.
    perform tide.see_partitions(o.ids) from tide.outbox o where o.outbox_id = queue;
    -- Room: a later statement, so it sees every claim before this one. Exact over the whole fleet.
    select q.concurrency_limit, q.key_limit, q.rate, greatest(coalesce(q.burst, q.rate), 1) as burst, q.fair, p.enabled, o.partition_size,
           exists (select from tide.job_skip s where s.outbox_id = queue) as skips,
           exists (select from tide.job_wait w where w.outbox_id = queue) as waits
      into limits
      from tide.job_queue q join tide.pipeline p on p.group_id = q.group_id join tide.outbox o on o.outbox_id = q.outbox_id
     where q.outbox_id = queue;
    if limits.enabled is not true then
        return;
    end if;
    if limits.concurrency_limit is not null then
        select least(room, limits.concurrency_limit - coalesce(sum(l.open), 0)) into room from tide.job_lease l where l.outbox_id = queue;
    end if;
    if limits.rate is not null then
        -- A token for each job, kept with the turn. What came in since is computed, so nothing is written while nothing is claimed.
        bucket := least(limits.burst, lane.tokens
                        + greatest(extract(epoch from clock_timestamp() - lane.tokens_at)::float8, 0) * limits.rate);
        room := least(room, floor(bucket)::int);
    end if;
    if room <= 0 then
        return;
    end if;
    h := lane.horizon;
    if not (isempty(lane.gaps) and isempty(lane.old_gaps)) then
        select * into late from tide.job_claim_late_in(lane, room);
        h := late.horizon;
        lane.turn := late.turn;
        fresh := late.ids;
        room := room - cardinality(late.ids);
    end if;
    keyed := limits.waits and exists (select from tide.job_wait w where w.outbox_id = queue and w.run_key is not null);
    if not durable and not keyed and num_nonnulls(limits.concurrency_limit, limits.rate) = 0 then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if room > 0 and keyed then
        lease := nextval('tide.job_lease_lease_id_seq');
        select * into part from tide.job_claim_keyed(queue, lane.last_key, limits.key_limit, lease, room);
        waited := part.ids;
        attempts := part.attempts;
        dues := part.dues;
        room := room - cardinality(part.ids);
        if part.last_key <> lane.last_key then
            update tide.job_lane l set last_key = part.last_key, turn = l.turn + 1
             where l.outbox_id = queue and l.priority = 0 and l.turn = lane.turn
            returning l.turn into strict lane.turn;
        end if;
    end if;
    waiting := limits.waits and room > 0 and exists (select from tide.job_wait w where w.outbox_id = queue and w.run_key is null);
    -- Priorities below lanes_to have a lane. Above it they are looked for from the beginning of its partition: there the first entry
    -- of each is found at once, whatever has been claimed. All that h covers is found by this look, since h is older.
    from_id := lane.lanes_to - lane.lanes_to % limits.partition_size;
    if room > 0 and (waiting
                     or (select l.priority from tide.job_lane l
                          where l.outbox_id = queue and l.priority > 0 order by l.priority desc, l.turn desc limit 1) is not null
                     or (select l.priority from tide.job_lane l
                          where l.outbox_id = queue and l.priority < 0 order by l.priority desc, l.turn desc limit 1) is not null
                     or exists (select from tide.job j where j.outbox_id = queue and j.id >= from_id and j.priority <> 0
                                                         and j.available_at is null and j.run_key is null)) then
        ps := tide.job_priorities_in(queue, from_id);
        insert into tide.job_lane (outbox_id, priority)
        select queue, n from unnest(ps) n
         where (select l.priority from tide.job_lane l where l.outbox_id = queue and l.priority = n order by l.turn desc limit 1) is null;
    end if;
    looked := case when room > 0 then h else 0 end;
    if limits.fair and cardinality(ps) > 1 then
        -- First an eighth for the lower lanes, from the lowest up; of small claims, each eighth.
        lower := array(select ps[n] from generate_series(cardinality(ps), 2, -1) n);
        quota := case when room >= 8 then room / 8 when lane.turn % 8 = 0 then 1 else 0 end;
    end if;
    for step in 1 .. cardinality(lower) + cardinality(ps) loop
        p := (lower || ps)[step];
        quota := case when step <= cardinality(lower) then quota else room end;
        continue when quota <= 0;
        share := quota;
        if waiting then
            select * into part from tide.job_claim_due(queue, p, share);
            waited := waited || part.ids;
            attempts := attempts || part.attempts;
            dues := dues || part.dues;
            share := share - cardinality(part.ids);
        end if;
        if p <> 0 and share > 0 then
            select * into part from tide.job_claim_lane_in(queue, p, share, h, lane.turn);
            lane.turn := part.new_turn;
            fresh := fresh || part.ids;
            share := share - cardinality(part.ids);
        elsif share > 0 then
            -- A backlog needs no new horizon until the old one comes near, and a claim of few none until it is far behind: to look
            -- at their ids costs less. One that is too low costs gaps, never a job.
            if lane.cursor_id + share > h and (share > 100 or lane.cursor_id > h + 1000) or keyed or waiting or cardinality(ps) > 1 then
                select o.horizon into h from tide.outbox_horizon(queue) o;
            end if;
            -- Where fewer are found than there is room for, the cursor passes what is visible and not of this lane, too: else each
            -- claim would read over it again.
            return query
            with picked as materialized (
                select j.* from tide.job j
                 where j.outbox_id = queue and j.priority = 0 and j.available_at is null and j.run_key is null and j.id > lane.cursor_id
                 order by j.id limit share
            ), seen as (
                select count(*)::int as n, coalesce(range_agg(int8range(f.id, f.id, '[]')), '{}') as ids,
                       case when count(*) >= share then max(f.id)
                            else (select max(v.id) from tide.job v where v.outbox_id = queue and v.id > lane.cursor_id) end as last
                  from picked f
            ), leased as (
                insert into tide.job_lease (outbox_id, worker_id, ids, open) select queue, worker, s.ids, s.n from seen s where s.n > 0
                returning lease_id
            ), moved as (
                update tide.job_lane l
                   set turn = l.turn + 1, cursor_id = s.last, horizon = greatest(l.horizon, h), old_gaps = l.old_gaps - s.ids,
                       lanes_to = greatest(l.lanes_to, looked),
                       gaps = case when s.last <= h then l.gaps
                                   else l.gaps + (int8multirange(int8range(greatest(lane.cursor_id, h), s.last, '(]')) - coalesce((
                                            select range_agg(int8range(v.id, v.id, '[]')) from tide.job v
                                             where v.outbox_id = queue and v.id > greatest(lane.cursor_id, h) and v.id <= s.last), '{}'))
                              end - s.ids
                  from seen s where l.outbox_id = queue and l.priority = 0 and l.turn = lane.turn and s.last is not null
            )
            select leased.lease_id, f.id, 1::smallint, f.kind, f.name, f.priority, f.timeout_seconds, f.max_attempts, f.created_at, f.created_at,
                   f.payload::text, f.headers::text, f.metadata::text, f.options::text, f.idempotency_key, f.run_key, f.trace_id
              from picked f, leased
             where not (limits.skips and exists (select from tide.job_skip s where s.outbox_id = queue and s.id = f.id))
             order by f.id;
            get diagnostics got = row_count;
            share := share - got;
            claimed := claimed + got;
            -- The row of the turn may have its next version, also where all that was picked is skipped.
            select * into lane from tide.job_lane l where l.outbox_id = queue and l.priority = 0 order by l.turn desc limit 1;
        end if;
        room := room - (quota - share);
        quota := share;
    end loop;
    if cardinality(fresh) + cardinality(waited) > 0 then
        return query
        with leased as (
            insert into tide.job_lease (lease_id, outbox_id, worker_id, ids, open) overriding system value
            values (coalesce(lease, nextval('tide.job_lease_lease_id_seq')), queue, worker, tide.id_ranges(waited || fresh),
                    cardinality(fresh) + cardinality(waited))
            returning lease_id
        )
        select leased.lease_id, j.id, coalesce(t.attempt, 1::smallint), j.kind, j.name, j.priority, j.timeout_seconds, j.max_attempts,
               j.created_at, coalesce(t.due, j.created_at), j.payload::text, j.headers::text, j.metadata::text, j.options::text,
               j.idempotency_key, j.run_key, j.trace_id
          from leased, unnest(waited || fresh, attempts, dues) as t (id, attempt, due) cross join lateral tide.job_stored_in(queue, t.id) j
         where not (limits.skips and exists (select from tide.job_skip s where s.outbox_id = queue and s.id = j.id));
        get diagnostics got = row_count;
        claimed := claimed + got;
    end if;
    if bucket is not null and claimed > 0 then
        update tide.job_lane l set tokens = bucket - claimed, tokens_at = clock_timestamp(), turn = l.turn + 1
         where l.outbox_id = queue and l.priority = 0 and l.turn = lane.turn;
    end if;
    if limits.skips then
        perform tide.job_end_skipped(queue, worker);
    end if;
    if exists (select from tide.job_key k where k.outbox_id = queue and k.free_on = 'c') then
        -- One that an open transaction debounces will be its own.
        delete from tide.job_key k
         using (select d.kind, d.key
                  from (select unnest(l.ids) as r from tide.job_lease l where l.worker_id = worker and l.outbox_id = queue) c
                  join tide.job_key d on d.outbox_id = queue and d.free_on = 'c' and d.id >= lower(c.r) and d.id < upper(c.r)
                   for update of d skip locked) d
         where k.outbox_id = queue and k.kind = d.kind and k.key = d.key;
    end if;
end $$;

-- A claim that is not durable does not wait for the disk, which takes longer than all of it. A crash of the server may take it back, and
-- then all that came after it, the ends of its jobs too: what was not known to have ended is claimed again, though it may run still, as
-- after a lease that ran out. Where a limit is kept, it is durable whatever is asked: two workers could have the same place.
create or replace function tide.job_claim(queue int, worker bigint, want int, durable boolean default true) returns setof tide.job_claimed
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
begin
    if coalesce(want, 0) <= 0 then
        return;
    elsif current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'jobs cannot be claimed in a transaction that is %', current_setting('transaction_isolation') using
            errcode = 'active_sql_transaction', hint = 'Claim in READ COMMITTED: it must see what commits while it waits for its turn.';
    elsif not exists (select from tide.job_worker w where w.worker_id = worker) then
        raise exception 'worker % is not known', coalesce(worker::text, 'NULL') using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'It gave no sign of life for too long, or has stopped. Get a new number: select tide.job_worker_start(...);';
    elsif not exists (select from tide.job_queue q where q.outbox_id = queue) then
        raise exception 'there is no job queue with the id %', coalesce(queue::text, 'NULL') using
            errcode = 'undefined_object', hint = 'It was dropped. List them: select * from tide.job_queue_list();';
    end if;
    return query execute format('select * from tide.job_claim_in_%s($1, $2, $3, $4)', queue) using queue, worker, want, coalesce(durable, true);
end $$;
comment on function tide.job_claim is
    'Claims at most so many jobs of a queue for a worker of tide.job_worker_start; each comes with its lease. See tide.job_finish.';
