-- Groups: stream tables that are refreshed as one, in one transaction, so that a reader of two of them sees one state of their sources.
--
-- Two are in a group if they were given the same refresh_group, or lie between a table and the stream table in which two ways from it
-- meet again; and they belong to one role, so that no one holds up the tables of others. One of a group leads: its pipeline refreshes all,
-- and the pipelines of the others are part of it.

-- The stream tables that one reads, and those that they read.
create or replace function tide.stream_above(stream_id int) returns setof tide.stream
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive above as (
        select s.source from tide.stream_source s where s.stream_id = stream_above.stream_id
         union
        select n.source from above a join tide.stream line on line.relation = a.source join tide.stream_source n on n.stream_id = line.stream_id
    )
    select line.* from tide.stream line where line.relation in (select a.source from above a)
$$;

-- Pairs that belong together. Of what two ways have in common only the lowest counts: what lies above it is one way.
create or replace function tide.stream_ties() returns table (one int, other int)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with recursive reads as materialized (
        select line.relation::oid as upper, s.source as lower from tide.stream line join tide.stream_source s using (stream_id)
    ), beneath (upper, lower) as (
        select r.upper, r.lower from reads r
         union
        select b.upper, r.lower from beneath b join reads r on r.upper = b.lower
    ), reached as materialized (
        select b.upper, b.lower from beneath b union select r.lower, r.lower from reads r
    ), atomic as materialized (
        select line.stream_id, line.relation::oid as relation, tide.stream_owner(line.relation) as owner from tide.stream line
         where line.diamond_consistency = 'atomic' and line.refresh_mode <> 'IMMEDIATE'
    ), common as materialized (
        select a.stream_id as meets, a.owner, one.lower as one_way, other.lower as other_way, x.lower as source
          from atomic a
          join reads one on one.upper = a.relation
          join reads other on other.upper = a.relation and other.lower > one.lower
          join reached x on x.upper = one.lower
          join reached y on y.upper = other.lower and y.lower = x.lower
    ), higher as materialized (
        select distinct c.meets, c.one_way, c.other_way, b.lower as source from common c join beneath b on b.upper = c.source
    ), lowest as materialized (
        select c.* from common c left join higher h using (meets, one_way, other_way, source) where h.meets is null
    ), between as materialized (
        select distinct l.meets, r.lower as relation, l.source, l.owner
          from lowest l cross join lateral unnest(array[l.one_way, l.other_way]) w (way) join reached r on r.upper = w.way
    )
    select distinct w.meets, a.stream_id
      from between w join beneath b on b.upper = w.relation and b.lower = w.source join atomic a on a.relation = w.relation and a.owner = w.owner
     union
    select min(line.stream_id) over (partition by line.refresh_group, tide.stream_owner(line.relation)), line.stream_id
      from tide.stream line where line.refresh_group is not null and line.refresh_mode <> 'IMMEDIATE'
$$;

-- Finds the groups again, after what they depend on has changed, and configures the pipelines of those that changed.
create or replace function tide.stream_regroup() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    changed int[];
    groups  int[];
begin
    if not exists (select from tide.stream s where s.group_id is not null or s.refresh_group is not null)
       and not exists (select from tide.stream_source s join tide.stream b on b.relation = s.source) then
        return;
    end if;
    -- Two at once would each not see the other.
    perform pg_advisory_xact_lock(hashtextextended('tide-relay groups of stream tables', 0));
    with recursive ties as materialized (
        select t.one, t.other from tide.stream_ties() t where t.one <> t.other
    ), neighbours as materialized (
        select t.one, t.other from ties t union select t.other, t.one from ties t
    ), reached (one, other) as (
        select n.one, n.other from neighbours n union select r.one, n.other from reached r join neighbours n on n.one = r.other
    ), found as (
        select r.one as stream_id, min(r.other) as group_id from reached r group by 1
    ), now as (
        select line.stream_id, line.group_id as was, f.group_id from tide.stream line left join found f using (stream_id)
    ), moved as (
        update tide.stream s set group_id = n.group_id from now n where n.stream_id = s.stream_id and n.was is distinct from n.group_id
        returning s.stream_id, array[n.was, n.group_id] as groups
    )
    select array_agg(m.stream_id), array_agg(distinct g.id) into changed, groups from moved m cross join lateral unnest(m.groups) g (id);
    if changed is not null then
        perform tide.stream_configure_all(array(
            select s.stream_id from tide.stream s
             where s.stream_id = any (changed) or s.group_id = any (groups)
                or s.schedule = 'calculated' and exists (select from tide.stream_above(s.stream_id) a where a.stream_id = any (changed))));
    end if;
end $$;

-- The pipelines that are refreshed with that of a stream table, its own too: in the order of dependence.
create or replace function tide.stream_members(stream tide.stream) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when stream.group_id is null or stream.suspended or stream.tier = 'frozen' then array[stream.pipeline]
                else array(select m.pipeline from tide.stream m where m.group_id = stream.group_id and not m.suspended and m.tier <> 'frozen'
                            order by (select count(*) from tide.stream_above(m.stream_id)), m.stream_id) end
$$;

-- The pipeline that refreshes it.
create or replace function tide.stream_led_by(stream tide.stream) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select case when stream.group_id is null or stream.suspended or stream.tier = 'frozen' then stream.pipeline
                else (select m.pipeline from tide.stream m where m.group_id = stream.group_id and not m.suspended and m.tier <> 'frozen'
                       order by m.stream_id limit 1) end;
end;

-- The stream tables that these pipelines refresh.
create or replace function tide.stream_led(pipelines text[]) returns table (pipeline text, line tide.stream)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select s.pipeline, s from tide.stream s where s.pipeline = any (pipelines)
     union all
    select s.pipeline, m from tide.stream s join tide.stream m on m.group_id = s.group_id
     where s.pipeline = any (pipelines) and s.group_id is not null and m.stream_id <> s.stream_id and not m.suspended and m.tier <> 'frozen'
$$;

-- The pipelines whose ends make a stream table due that follows others: whichever of a group leads.
create or replace function tide.stream_follows(stream tide.stream) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(select a.pipeline from tide.stream_above(stream.stream_id) a
                  union
                 select m.pipeline from tide.stream_above(stream.stream_id) a join tide.stream m on m.group_id = a.group_id
                  order by 1)
$$;

-- What the pipeline of one that leads does: it is due when the first of its group is.
create or replace function tide.stream_group_config(stream tide.stream) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with members as materialized (select tide.stream_members(stream) as pipelines),
    timings as (
        select tide.stream_timing(m) as timing from tide.stream m join members on m.pipeline = any (members.pipelines)
    ), schedules as (
        select distinct case when t.timing ? 'follows' then t.timing - 'tier' || jsonb_build_object('follows', f.outside) else t.timing - 'tier' end as schedule
          from timings t
         cross join lateral (select array(select f.name from jsonb_array_elements_text(t.timing -> 'follows') f (name)
                                           where f.name <> all ((select pipelines from members)::text[])) as outside) f
         where not t.timing ? 'follows' or cardinality(f.outside) > 0
    )
    select jsonb_strip_nulls(jsonb_build_object(
        'tier', (select case when bool_or(not t.timing ? 'tier') then null when bool_or(t.timing ->> 'tier' = 'warm') then 'warm' else 'cold' end from timings t),
        'members', (select pipelines from members), 'schedules', (select jsonb_agg(s.schedule order by s.schedule) from schedules s)))
$$;

-- Refreshing one ------------------------------------------------------------------------------------------------------

-- Locks what refreshes write of these, always in one order.
create or replace function tide.stream_lock(pipelines text[]) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic
    select from tide.stream_state s join tide.stream line using (stream_id) where line.pipeline = any (pipelines) order by s.stream_id for update of s;
end;

-- Begins the refresh of a group by the fleet, in a transaction that changes nothing else. So what it has changed in one of the group
-- is complete when the next one reads it.
create or replace function tide.stream_together(pipelines text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.stream_lock(pipelines);
    update tide.stream_state s set together = pg_current_xact_id() from tide.stream line
     where line.stream_id = s.stream_id and line.pipeline = any (pipelines);
end $$;

-- Whether a source is a stream table of the group that this transaction refreshes.
create or replace function tide.stream_in_turn(source oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select exists (select from tide.stream line join tide.stream_state s using (stream_id)
                    where line.relation = source::regclass and s.together = pg_current_xact_id_if_assigned());
end;

-- Ends it, after all deferred triggers. Those of users on these tables may have changed a source after it was read: no frontier tells
-- which of this transaction's rows were.
create or replace function tide.stream_together_end(pipelines text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update tide.stream_state s set frontier = null from tide.stream line
     where line.stream_id = s.stream_id and line.pipeline = any (pipelines) and s.together = pg_current_xact_id_if_assigned()
       and pg_visible_in_snapshot(s.together, s.frontier)
       and (tide.stream_own(line.stream_id)
            or exists (select from tide.stream_source o join tide.stream_change c using (source)
                        where o.stream_id = line.stream_id and c.xid = s.together and not tide.stream_in_turn(o.source)));
end $$;

-- The frontier of a stream table that was refreshed in this transaction: its snapshot. In that the transaction itself is in progress: it
-- may change more. But what it changed in others of the group was read, and is all that it changes there: so it counts as finished, and
-- every id that was given between the snapshot and it as in progress.
create or replace function tide.stream_frontier(stream_id int) returns pg_snapshot
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    seen     pg_snapshot := pg_current_snapshot();
    own      xid8 := pg_current_xact_id_if_assigned();
    finished boolean := (select s.together = own from tide.stream_state s where s.stream_id = stream_frontier.stream_id)
                        and exists (select from tide.stream_source s where s.stream_id = stream_frontier.stream_id and tide.stream_in_turn(s.source));
begin
    return tide.stream_frontier_of(seen, own, coalesce(finished, false));
end $$;

-- A snapshot in which one transaction is finished, or is not.
create or replace function tide.stream_frontier_of(seen pg_snapshot, own xid8, finished boolean) returns pg_snapshot
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    number  bigint := own::text::bigint;
    lowest  bigint := pg_snapshot_xmin(seen)::text::bigint;
    beyond  bigint := pg_snapshot_xmax(seen)::text::bigint;
    running bigint[] := array(select x::text::bigint from pg_snapshot_xip(seen) x);
begin
    if own is null or pg_visible_in_snapshot(own, seen) = finished then
        return seen;
    elsif finished and number >= beyond then
        running := running || array(select x from generate_series(beyond, number - 1) x);
        beyond := number + 1;
    elsif finished then
        running := array_remove(running, number);
    else
        -- A transaction that had its id before its snapshot is in progress in the snapshots of others alone.
        running := array(select x from unnest(running || number) x order by x);
        lowest := running[1];
    end if;
    return format('%s:%s:%s', lowest, beyond, array_to_string(running, ','))::pg_snapshot;
end $$;

-- Showing them --------------------------------------------------------------------------------------------------------

create or replace function tide.diamond_groups() returns table (
    group_id int, member_name text, member_schema text, is_convergence boolean, refresh_group text, schedule_policy text, led_by text
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select line.group_id, c.relname::text, n.nspname::text,
           exists (select from tide.stream_ties() t where t.one = line.stream_id and t.other <> t.one and line.refresh_group is null),
           line.refresh_group, 'fastest', (select m.name from tide.stream m where m.pipeline = tide.stream_led_by(line))
      from tide.stream line join pg_class c on c.oid = line.relation join pg_namespace n on n.oid = c.relnamespace
     where line.group_id is not null
     order by line.group_id, (select count(*) from tide.stream_above(line.stream_id)), line.stream_id
$$;
comment on function tide.diamond_groups is 'The stream tables that are refreshed as one, by group, in the order in which they are refreshed.';
