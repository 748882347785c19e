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
create or replace function tide.job_claim_late(lane tide.job_lane, room int, out ids bigint[], out horizon bigint, out turn bigint)
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
    select o.horizon into job_claim_late.horizon from tide.outbox_horizon(queue) o;
    if lane.aged_at < clock_timestamp() - interval '1 second' then
        look := lane.gaps + lane.old_gaps;
        lane.old_gaps := look;
        lane.gaps := '{}';
        lane.aged_at := clock_timestamp();
    end if;
    select array_agg(f.id) filter (where f.id <= f.cursor_id),
           range_agg(int8range(f.id, f.id, '[]')) filter (where f.id > f.cursor_id or f.cursor_id is null), count(*)
      into job_claim_late.ids, gone, seen
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
    gone := coalesce(gone, '{}') + tide.id_ranges(job_claim_late.ids);
    if seen < room then
        gone := gone + look * int8multirange(int8range(null, job_claim_late.horizon, '(]'));
    else
        lane.aged_at := '-infinity';  -- There is more: look at all of it again.
    end if;
    lane.gaps := lane.gaps - gone;
    lane.old_gaps := lane.old_gaps - gone;
    turn := lane.turn;
    if (lane.gaps, lane.old_gaps, lane.aged_at = '-infinity') is distinct from (old.gaps, old.old_gaps, old.aged_at = '-infinity') then
        update tide.job_lane l set gaps = lane.gaps, old_gaps = lane.old_gaps, aged_at = lane.aged_at, turn = l.turn + 1
         where l.outbox_id = queue and l.priority = 0 and l.turn = lane.turn
        returning l.turn into strict turn;
    end if;
end $$;

create or replace function tide.id_ranges(ids bigint[]) returns int8multirange
language sql immutable
return coalesce((select range_agg(int8range(u, u, '[]')) from unnest(ids) u), '{}');

-- Keys take turns, from where the last claim stopped; of each, as many as its limit leaves, the best by priority and id that
-- is due. Nothing is counted that could be left over: what runs is what is in tide.job_running.
create or replace function tide.job_claim_keyed(
    queue int, last_key text, turn bigint, key_limit int, lease bigint, room int, out ids bigint[], out attempts smallint[]
)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    with recursive k as (
        (select w.run_key, 1 as n from tide.job_wait w
          where w.outbox_id = queue and w.run_key is not null and w.run_key > last_key order by w.run_key limit 1)
        union all
        select (select w.run_key from tide.job_wait w
                 where w.outbox_id = queue and w.run_key is not null and w.run_key > k.run_key order by w.run_key limit 1), k.n + 1
          from k where k.run_key is not null and k.n < 1000
    ), heads as materialized (
        select h.id, h.attempt, k.run_key
          from k cross join lateral (
            select w.id, w.attempt from tide.job_wait w
             where w.outbox_id = queue and w.run_key is not null and w.run_key = k.run_key and w.available_at <= clock_timestamp()
               and w.needs = 0
             order by w.priority desc, w.id
             limit greatest(0, coalesce(key_limit, room)
                               - (select count(*)::int from tide.job_running r where r.outbox_id = queue and r.run_key = k.run_key))) h
         where k.run_key is not null
         limit room
    ), gone as (
        delete from tide.job_wait w using heads h where w.outbox_id = queue and w.id = h.id
    ), running as (
        insert into tide.job_running (outbox_id, run_key, id, lease_id) select queue, h.run_key, h.id, lease from heads h
    ), turned as (
        -- In the same row version: who reads the lane by its turn finds it.
        update tide.job_lane l set last_key = coalesce((select max(h.run_key) from heads h having count(*) >= room), '')
         where l.outbox_id = queue and l.priority = 0 and l.turn = job_claim_keyed.turn
    )
    select array_agg(h.id), array_agg(h.attempt) into ids, attempts from heads h;
end $$;

-- Rows of tide.job_wait that are due and have no run key.
create or replace function tide.job_claim_due(queue int, lane_priority smallint, room int, out ids bigint[], out attempts smallint[])
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    with due as (
        delete from tide.job_wait w
         using (select d.id from tide.job_wait d
                 where d.outbox_id = queue and d.run_key is null and d.priority = lane_priority and d.available_at <= clock_timestamp()
                 order by d.available_at limit room for update skip locked) d
         where w.outbox_id = queue and w.id = d.id
        returning w.id, w.attempt
    )
    select array_agg(d.id), array_agg(d.attempt) into job_claim_due.ids, job_claim_due.attempts from due d;
end $$;

-- A lane of another priority than 0: as that, but it walks its partial index, and its gaps are kept with the turn.
create or replace function tide.job_claim_lane(
    queue int, lane_priority smallint, room int, known_horizon bigint, turn bigint,
    out ids bigint[], out new_turn bigint
)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    lane   tide.job_lane;
    h      bigint := known_horizon;
    unseen int8multirange;
    picked int8multirange;
begin
    new_turn := turn;
    select * into lane from tide.job_lane l where l.outbox_id = queue and l.priority = lane_priority order by l.turn desc limit 1;
    if not found then
        insert into tide.job_lane (outbox_id, priority) values (queue, lane_priority) returning * into lane;
    end if;
    if lane.cursor_id + room > h then
        select o.horizon into h from tide.outbox_horizon(queue) o;
    end if;
    select k.ids, case when k.last > h
                       then int8multirange(int8range(greatest(lane.cursor_id, h), k.last, '(]')) - coalesce((
                            select range_agg(int8range(v.id, v.id, '[]')) from tide.job v
                             where v.outbox_id = queue and v.id > greatest(lane.cursor_id, h) and v.id <= k.last), '{}')
                       else '{}' end
      into job_claim_lane.ids, unseen
      from (select array_agg(x.id order by x.id) as ids, max(x.id) as last
              from (select j.id from tide.job j
                     where j.outbox_id = queue and j.priority <> 0 and j.available_at is null and j.run_key is null
                       and j.priority = lane_priority and j.id > lane.cursor_id
                     order by j.priority desc, j.id limit room) x) k;
    if job_claim_lane.ids is null then
        return;
    end if;
    picked := tide.id_ranges(job_claim_lane.ids);
    update tide.job_lane l set cursor_id = upper(picked) - 1, turn = l.turn + 1
     where l.outbox_id = queue and l.priority = lane_priority and l.turn = lane.turn
    returning l.turn into strict lane.turn;
    update tide.job_lane l set gaps = l.gaps + unseen - picked, old_gaps = l.old_gaps - picked, horizon = greatest(l.horizon, h)
     where l.outbox_id = queue and l.priority = 0 and l.turn = job_claim_lane.turn
    returning l.turn into strict new_turn;
end $$;

-- Which priorities have jobs, highest first, by loose scans of the two indexes; 0 always.
create or replace function tide.job_priorities(queue int) returns smallint[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    with recursive lanes as (
        (select j.priority from tide.job j
          where j.outbox_id = queue and j.priority <> 0 and j.available_at is null and j.run_key is null order by j.priority desc limit 1)
        union all
        select (select j.priority from tide.job j
                 where j.outbox_id = queue and j.priority <> 0 and j.available_at is null and j.run_key is null and j.priority < a.priority
                 order by j.priority desc limit 1)
          from lanes a where a.priority is not null
    ), waiting as (
        (select w.priority from tide.job_wait w where w.outbox_id = queue and w.run_key is null order by w.priority desc limit 1)
        union all
        select (select w.priority from tide.job_wait w
                 where w.outbox_id = queue and w.run_key is null and w.priority < b.priority order by w.priority desc limit 1)
          from waiting b where b.priority is not null
    )
    select array_agg(u.priority order by u.priority desc)
      from (select a.priority from lanes a where a.priority is not null
             union select b.priority from waiting b where b.priority is not null union select 0::smallint) u;
end;

-- A job, also one whose partition has gone while it waited.
create or replace function tide.job_stored(queue int, job_id bigint) returns setof tide.job
language sql stable rows 1
begin atomic
    select j.* from tide.job j where j.outbox_id = queue and j.id = job_id
     union all
    select k.* from tide.job_kept k where k.outbox_id = queue and k.id = job_id;
end;

create or replace function tide.job_claim(queue int, worker bigint, want int) returns setof tide.job_claimed
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    lane     tide.job_lane;
    limits   record;
    room     int := want;
    lease    bigint;
    late     record;
    part     record;
    ids      bigint[] := '{}';
    attempts smallint[] := '{}';
    h        bigint;
    p        smallint;
    ps       smallint[] := '{0}';
    got      int;
    waiting  boolean;
    skipping boolean;
begin
    select * into lane from tide.job_lane l where l.outbox_id = queue and l.priority = 0 order by l.turn desc limit 1 for no key update;
    if not found then
        raise exception 'there is no job queue with the id %', queue using
            errcode = 'undefined_object', hint = 'It was dropped. List them: select * from tide.job_queue_list();';
    end if;
    -- Room: a later statement, so it sees every claim before this one. Exact over the whole fleet.
    select q.concurrency_limit, q.key_limit, p.enabled into limits
      from tide.job_queue q join tide.pipeline p on p.group_id = q.group_id where q.outbox_id = queue;
    if not limits.enabled then
        return;
    end if;
    if limits.concurrency_limit is not null then
        select least(room, limits.concurrency_limit - coalesce(sum(l.open), 0)) into room from tide.job_lease l where l.outbox_id = queue;
    end if;
    if room <= 0 then
        return;
    end if;
    skipping := exists (select from tide.job_skip s where s.outbox_id = queue);
    h := lane.horizon;
    if not (isempty(lane.gaps) and isempty(lane.old_gaps)) then
        select * into late from tide.job_claim_late(lane, room);
        h := late.horizon;
        lane.turn := late.turn;
        if late.ids is not null then
            ids := late.ids;
            attempts := array_fill(1::smallint, array[cardinality(ids)]);
            room := room - cardinality(ids);
        end if;
    end if;
    waiting := room > 0 and exists (select from tide.job_wait w where w.outbox_id = queue and w.run_key is null);
    if room > 0 and exists (select from tide.job_wait w where w.outbox_id = queue and w.run_key is not null) then
        lease := nextval('tide.job_lease_lease_id_seq');
        select * into part from tide.job_claim_keyed(queue, lane.last_key, lane.turn, limits.key_limit, lease, room);
        if part.ids is not null then
            ids := ids || part.ids;
            attempts := attempts || part.attempts;
            room := room - cardinality(part.ids);
        end if;
    end if;
    if room > 0 and (waiting or exists (select from tide.job j where j.outbox_id = queue and j.priority <> 0 and j.available_at is null
                                                                  and j.run_key is null)) then
        ps := tide.job_priorities(queue);
    end if;
    foreach p in array ps loop
        exit when room <= 0;
        if waiting then
            select * into part from tide.job_claim_due(queue, p, room);
            if part.ids is not null then
                ids := ids || part.ids;
                attempts := attempts || part.attempts;
                room := room - cardinality(part.ids);
                continue when room <= 0;
            end if;
        end if;
        if p <> 0 then
            select * into part from tide.job_claim_lane(queue, p, room, h, lane.turn);
            lane.turn := part.new_turn;
            if part.ids is not null then
                ids := ids || part.ids;
                attempts := attempts || array_fill(1::smallint, array[cardinality(part.ids)]);
                room := room - cardinality(part.ids);
            end if;
            continue;
        end if;
        -- A backlog needs no new horizon until the old one comes near. One that is too low costs gaps, never a job.
        if lane.cursor_id + room > h then
            select o.horizon into h from tide.outbox_horizon(queue) o;
        end if;
        return query
        with picked as materialized (
            select j.* from tide.job j
             where j.outbox_id = queue and j.priority = 0 and j.available_at is null and j.run_key is null and j.id > lane.cursor_id
             order by j.id limit room
        ), seen as (
            select count(*)::int as n, max(f.id) as last, range_agg(int8range(f.id, f.id, '[]')) as ids from picked f
        ), leased as (
            insert into tide.job_lease (outbox_id, worker_id, ids, open) select queue, worker, s.ids, s.n from seen s where s.n > 0
            returning lease_id
        ), moved as (
            update tide.job_lane l
               set turn = l.turn + 1, cursor_id = s.last, horizon = h, old_gaps = l.old_gaps - s.ids,
                   gaps = case when s.last <= h then l.gaps
                               else l.gaps + (int8multirange(int8range(greatest(lane.cursor_id, h), s.last, '(]')) - coalesce((
                                        select range_agg(int8range(v.id, v.id, '[]')) from tide.job v
                                         where v.outbox_id = queue and v.id > greatest(lane.cursor_id, h) and v.id <= s.last), '{}'))
                          end - s.ids
              from seen s where l.outbox_id = queue and l.priority = 0 and l.turn = lane.turn and s.n > 0
        )
        select leased.lease_id, f.id, 1::smallint, f.kind, f.name, f.priority, f.timeout_seconds, f.max_attempts, f.created_at, f.created_at,
               f.payload::text, f.headers::text, f.metadata::text, f.options::text, f.idempotency_key, f.run_key, f.trace_id
          from picked f, leased
         where not (skipping and exists (select from tide.job_skip s where s.outbox_id = queue and s.id = f.id))
         order by f.id;
        get diagnostics got = row_count;
        room := room - got;
        -- The row of the turn has its next version if anything was picked, also what was skipped.
        select l.turn into lane.turn from tide.job_lane l where l.outbox_id = queue and l.priority = 0 order by l.turn desc limit 1;
    end loop;
    if cardinality(ids) > 0 then
        return query
        with leased as (
            insert into tide.job_lease (lease_id, outbox_id, worker_id, ids, open) overriding system value
            values (coalesce(lease, nextval('tide.job_lease_lease_id_seq')), queue, worker, tide.id_ranges(ids), cardinality(ids))
            returning lease_id
        )
        select leased.lease_id, j.id, t.attempt, j.kind, j.name, j.priority, j.timeout_seconds, j.max_attempts, j.created_at,
               coalesce(j.available_at, j.created_at), j.payload::text, j.headers::text, j.metadata::text, j.options::text,
               j.idempotency_key, j.run_key, j.trace_id
          from leased, unnest(ids, attempts) as t (id, attempt) cross join lateral tide.job_stored(queue, t.id) j
         where not (skipping and exists (select from tide.job_skip s where s.outbox_id = queue and s.id = j.id));
    end if;
    if skipping then
        perform tide.job_end_skipped(queue, worker);
    end if;
    if exists (select from tide.job_key k where k.outbox_id = queue and k.free_on = 'c') then
        delete from tide.job_key k
         using (select unnest(l.ids) as r from tide.job_lease l where l.worker_id = worker and l.outbox_id = queue) c
         where k.outbox_id = queue and k.free_on = 'c' and k.id >= lower(c.r) and k.id < upper(c.r);
    end if;
end $$;
comment on function tide.job_claim is
    'Claims at most so many jobs of a queue for a worker of tide.job_worker_start; each comes with its lease. See tide.job_finish.';
