-- Retention of what stream tables read: notes, captured rows, history.

-- Takes the frontier from stream tables for which too many rows wait: they are computed as a whole then, and keep nothing. One that
-- is refreshed meanwhile keeps its claim: its row is locked. One that has begun, but has not locked it yet, fails, since its
-- snapshot does not show this update.
create or replace function tide.stream_limit_waiting(source oid, max_waiting int) returns setof int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    reader record;
begin
    for reader in select f.stream_id, f.frontier
                    from tide.stream_source s join tide.stream line using (stream_id) join tide.stream_state f using (stream_id)
                   where s.source = stream_limit_waiting.source and not line.suspended and line.tier <> 'frozen' and not tide.stream_is_immediate(line.stream_id)
                     for update of f skip locked
    loop
        if tide.stream_waits_for_more(source, reader.frontier, max_waiting) then
            update tide.stream_state f set frontier = null where f.stream_id = reader.stream_id;
            return next reader.stream_id;
        end if;
    end loop;
end $$;

create or replace function tide.stream_waits_for_more(source oid, frontier pg_snapshot, max_waiting int) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_more boolean;
begin
    execute format('select (select count(*) from (select from tide_stream.b_%1$s
                             where frontier is null or __xid >= pg_snapshot_xmin(frontier) and not pg_visible_in_snapshot(__xid, frontier) limit $2 + 1) b)
                           + (select coalesce(sum(__n), 0) from tide_stream.m_%1$s
                               where frontier is null or __xid >= pg_snapshot_xmin(frontier) and not pg_visible_in_snapshot(__xid, frontier)) > $2
                      from (select $1) f (frontier)', source)
       into found_more using frontier, max_waiting;
    return found_more;
end $$;

-- Removes from a buffer what every stream table that reads its source has seen: also one that is computed as a whole looks there. An
-- array counts as one, and is removed as a whole.
create or replace function tide.stream_buffer_clean(source oid, max_rows int) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    max_waiting int := tide.setting_number('stream_max_buffer_rows');
    forgotten   int[] := case when max_waiting > 0 then array(select l from tide.stream_limit_waiting(source, max_waiting) l) else '{}' end;
    frontiers   pg_snapshot[];
    removed     int := 0;
    of_one      int;
    buffer      text;
begin
    select array_agg(f.frontier) into frontiers
      from tide.stream_source s join tide.stream line using (stream_id) join tide.stream_state f using (stream_id)
     where s.source = stream_buffer_clean.source and not line.suspended and line.tier <> 'frozen' and not tide.stream_is_immediate(line.stream_id)
       and line.stream_id <> all (forgotten);
    -- Null: it is computed now or soon, by a snapshot that is not known yet.
    if exists (select from unnest(frontiers) f where f is null) then
        return 0;
    end if;
    foreach buffer in array array['b_', 'm_'] loop
        execute format('delete from tide_stream.%1$s where ctid = any (array(
                            select b.ctid from tide_stream.%1$s b
                             where not exists (select from unnest($1) f (frontier) where not pg_visible_in_snapshot(b.__xid, f.frontier)) limit $2))', buffer || source)
          using coalesce(frontiers, '{}'), max_rows;
        get diagnostics of_one = row_count;
        removed := removed + of_one;
    end loop;
    return removed;
end $$;

-- Removes what every stream table has seen, and old history. What is visible at a frontier stays so at later ones: a refresh that
-- runs meanwhile does not miss it.
create or replace function tide.stream_clean(max_rows int default 10000) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    removed  int;
    buffered int;
    sources  oid[];
    hours    int := tide.setting_number('stream_history_retention_hours');
begin
    -- A stream table that is restored from a snapshot goes back meanwhile, or sees what we removed.
    lock table tide.stream_cleaned in row exclusive mode;
    with gone as (
        delete from tide.stream_change c
         using (select o.source, o.xid from tide.stream_change o
                 where not exists (select from tide.stream_source s join tide.stream line using (stream_id) join tide.stream_state f using (stream_id)
                                    where s.source = o.source and not line.suspended and line.tier <> 'frozen' and not tide.stream_is_immediate(line.stream_id)
                                      and not coalesce(pg_visible_in_snapshot(o.xid, f.frontier), false))
                 limit max_rows) old
         where c.source = old.source and c.xid = old.xid returning c.source
    )
    select count(*), array_agg(distinct g.source) into removed, sources from gone g;
    with cleaned as materialized (select b.source, tide.stream_buffer_clean(b.source, max_rows) as removed from tide.stream_buffer b)
    select coalesce(sum(c.removed), 0), sources || array_agg(c.source) filter (where c.removed > 0) into buffered, sources from cleaned c;
    removed := removed + buffered;
    perform tide.stream_note_cleaned(sources);
    if hours > 0 then
        delete from tide.stream_history h
         using (select o.refresh_id from tide.stream_history o
                 where o.started_at < clock_timestamp() - make_interval(hours => hours) order by o.refresh_id limit max_rows) old
         where h.refresh_id = old.refresh_id;
    end if;
    return removed;
end $$;
