-- Claiming jobs of other priorities than 0. See job_claim.sql.

-- A lane of another priority than 0: as that, but it walks its partial index, and its gaps are kept with the turn. Its ids lie far
-- apart: so what is picked ends below the horizon, or a new one is read first.
create or replace function tide.job_claim_lane_in(
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
    if exists (select from tide.job j
                where j.outbox_id = queue and j.priority <> 0 and j.available_at is null and j.run_key is null
                  and j.priority = lane_priority and j.id > greatest(lane.cursor_id, h)) then
        select o.horizon into h from tide.outbox_horizon(queue) o;
    end if;
    select k.ids, case when k.last > h
                       then int8multirange(int8range(greatest(lane.cursor_id, h), k.last, '(]')) - coalesce((
                            select range_agg(int8range(v.id, v.id, '[]')) from tide.job v
                             where v.outbox_id = queue and v.id > greatest(lane.cursor_id, h) and v.id <= k.last), '{}')
                       else '{}' end
      into job_claim_lane_in.ids, unseen
      from (select array_agg(x.id order by x.id) as ids, max(x.id) as last
              from (select j.id from tide.job j
                     where j.outbox_id = queue and j.priority <> 0 and j.available_at is null and j.run_key is null
                       and j.priority = lane_priority and j.id > lane.cursor_id
                     order by j.priority desc, j.id limit room) x) k;
    if ids is null then
        ids := '{}';
        -- Nothing of this lane lies at or below the horizon: later looks leave out the partitions there.
        if h - lane.cursor_id > (select o.partition_size from tide.outbox o where o.outbox_id = queue) then
            update tide.job_lane l set cursor_id = h, turn = l.turn + 1
             where l.outbox_id = queue and l.priority = lane_priority and l.turn = lane.turn;
        end if;
        return;
    end if;
    picked := tide.id_ranges(job_claim_lane_in.ids);
    update tide.job_lane l set cursor_id = upper(picked) - 1, turn = l.turn + 1
     where l.outbox_id = queue and l.priority = lane_priority and l.turn = lane.turn
    returning l.turn into strict lane.turn;
    update tide.job_lane l
       set gaps = l.gaps + unseen - picked, old_gaps = l.old_gaps - picked, horizon = greatest(l.horizon, h), turn = l.turn + 1
     where l.outbox_id = queue and l.priority = 0 and l.turn = job_claim_lane_in.turn
    returning l.turn into strict new_turn;
end $$;

-- Which priorities have jobs, highest first; 0 always. Those that have a lane, by a loose scan of lanes (the living version first),
-- and by loose scans of the two indexes those of jobs from an id on, and of jobs that wait.
create or replace function tide.job_priorities_in(queue int, from_id bigint default 0) returns smallint[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    with recursive known as (
        (select l.priority from tide.job_lane l where l.outbox_id = queue order by l.priority desc, l.turn desc limit 1)
        union all
        select (select l.priority from tide.job_lane l
                 where l.outbox_id = queue and l.priority < k.priority order by l.priority desc, l.turn desc limit 1)
          from known k where k.priority is not null
    ), lanes as (
        (select j.priority from tide.job j
          where j.outbox_id = queue and j.id >= from_id and j.priority <> 0 and j.available_at is null and j.run_key is null
          order by j.priority desc limit 1)
        union all
        select (select j.priority from tide.job j
                 where j.outbox_id = queue and j.id >= from_id and j.priority <> 0 and j.available_at is null and j.run_key is null
                   and j.priority < a.priority
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
      from (select k.priority from known k where k.priority is not null
             union select a.priority from lanes a where a.priority is not null
             union select b.priority from waiting b where b.priority is not null union select 0::smallint) u;
end;
