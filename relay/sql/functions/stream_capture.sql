-- Capture: what transactions change in the sources of stream tables, written by triggers in these transactions: so it is visible
-- exactly where the change is. Writers notify no one.
--
-- If a stream table can be refreshed by rows, each row that was added or removed is stored (stream_buffers.sql). For the others one
-- note for each transaction and source is enough; a note beside captured rows means: something changed that no row tells.

create or replace function tide.stream_note(source oid) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic
    insert into tide.stream_change (source, xid)
    select stream_note.source, pg_current_xact_id()
     where not exists (select from tide.stream_change c where c.source = stream_note.source and c.xid = pg_current_xact_id());
end;

create or replace function tide.stream_capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- A statement that changed no row changed nothing. TRUNCATE has no rows to look at.
    if tg_op <> 'TRUNCATE' then
        if not exists (select from changed_rows) then
            return null;
        end if;
    end if;
    perform tide.stream_note(tg_argv[0]::oid);
    return null;
end $$;

-- The tables that fire for changes of a source: statements that name a partition fire the triggers of that partition alone.
create or replace function tide.stream_captured(source oid) returns setof regclass
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return query select t.relid from pg_partition_tree(source) t union select c.oid::regclass from pg_class c where c.oid = source;
end $$;

-- Writes down which columns of which tables a stream table reads: a view below it may have been replaced, and a key dropped.
create or replace function tide.stream_sources_read(stream_id int) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    with read_now as materialized (select c.source, c.columns from tide.stream_reads(format('tide_stream.q_%s', stream_id)::regclass) c),
    gone as (delete from tide.stream_source s where s.stream_id = stream_sources_read.stream_id
                and not exists (select from read_now n where n.source = s.source))
    insert into tide.stream_source as s (stream_id, source, columns)
    select stream_sources_read.stream_id, n.source, n.columns from read_now n
        on conflict on constraint stream_source_pkey do update set columns = excluded.columns where s.columns <> excluded.columns
$$;

-- The triggers of a source: their function is tide.stream_capture, or one of tide_stream that stores rows. A dump of the schema tide alone
-- has no tide_stream, so it is looked up by name.
create or replace function tide.stream_triggers(source oid) returns table (oid oid, tgname name, tgrelid oid, tgenabled "char", version text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    schema  regnamespace := to_regnamespace('tide_stream');
    appends boolean := (select b.append_only from tide.stream_buffer b where b.source = stream_triggers.source);
    stored  boolean := appends is not null;
begin
    return query
    select t.oid, t.tgname, t.tgrelid, t.tgenabled, t.xmin::text
      from tide.stream_captured(stream_triggers.source) c (part)
      join pg_trigger t on t.tgrelid = c.part
      join pg_proc p on p.oid = t.tgfoid
     where t.tgname in ('tide_stream_insert_' || stream_triggers.source, 'tide_stream_update_' || stream_triggers.source,
                        'tide_stream_delete_' || stream_triggers.source, 'tide_stream_truncate_' || stream_triggers.source)
       and (p.oid = 'tide.stream_capture'::regproc or p.pronamespace = schema)
       -- 4: INSERT; 32: TRUNCATE.
       and (t.tgtype & 32 = 32 or (p.pronamespace = schema) = (stored and (t.tgtype & 4 = 4 or not appends)));
end $$;

-- Whether a stream table needs the rows of its sources.
create or replace function tide.stream_wants_rows(line tide.stream) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return line.refresh_mode <> 'FULL' and line.always_reason is null and line.full_reason is null
           and not exists (select from tide.stream_plan p where p.stream_id = line.stream_id and p.reason is not null);
end $$;

-- The columns of a source that stream tables need row by row; null if none does.
create or replace function tide.stream_wanted(source oid) returns smallint[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select case when count(*) > 0 then
               array(select distinct c.number
                       from tide.stream_source s join tide.stream line using (stream_id) cross join lateral unnest(s.columns) c (number)
                      where s.source = stream_wanted.source and tide.stream_wants_rows(line) order by c.number) end
      from tide.stream_source s join tide.stream line using (stream_id)
     where s.source = stream_wanted.source and tide.stream_wants_rows(line);
end;

-- Makes the capture of a source what its stream tables need. Writers that have begun are waited for, and others wait behind.
create or replace function tide.stream_capture_source(source oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    wanted  smallint[] := tide.stream_wanted(source);
    appends boolean := tide.stream_appends(source);
    is_same boolean := coalesce(tide.stream_buffer_serves(source), false);
    by_row  boolean;
    part    regclass;
    event   text;
    firing  name[];
begin
    if not tide.stream_is_followed(source) then
        return;
    end if;
    if wanted is null or exists (select from tide.stream_buffer b where b.source = stream_capture_source.source and b.append_only <> appends) then
        perform tide.stream_buffer_drop(source);
    end if;
    if wanted is not null and not is_same then
        perform tide.stream_buffer_make(source, wanted);
    end if;
    for part in select c from tide.stream_captured(source) c order by c loop
        firing := array(select t.tgname from tide.stream_triggers(source) t where t.tgrelid = part and t.tgenabled <> 'R');
        continue when is_same and cardinality(firing) = 4;
        -- As a new trigger does. No writer may go on with the old function once the stream table is computed.
        if cardinality(firing) = 4 and wanted is not null then
            if has_table_privilege(part, 'update, delete, truncate') then
                execute format('lock table only %s in share row exclusive mode', part);
            else
                firing := '{}';  -- making them again takes that lock
            end if;
        end if;
        foreach event in array array['insert', 'update', 'delete', 'truncate'] loop
            by_row := wanted is not null and event <> 'truncate' and (event = 'insert' or not appends);
            if by_row then
                perform tide.stream_buffer_function(source, part, event);
            end if;
            if format('tide_stream_%s_%s', event, source) <> all (firing) then
                perform tide.stream_make_trigger(source, part, tide.stream_trigger_text(source, part, event, by_row));
            end if;
        end loop;
    end loop;
end $$;

create or replace function tide.stream_trigger_text(source oid, part regclass, event text, by_row boolean) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('create or replace trigger %I after %s on %s %s for each statement execute function %s(%L)',
                  format('tide_stream_%s_%s', event, source), event, part,
                  case when event = 'truncate' then ''
                       when not by_row then format('referencing %s table as changed_rows', case event when 'delete' then 'old' else 'new' end)
                       else 'referencing ' || concat_ws(' ', case when event <> 'insert' then 'old table as old_rows' end,
                                                             case when event <> 'delete' then 'new table as new_rows' end) end,
                  case when by_row then format('tide_stream.c_%s_%s_%s', source, part::oid, event) else 'tide.stream_capture' end, source)
$$;

-- After a stream table no longer reads a source: its capture is that of those which do, or it ends.
create or replace function tide.stream_capture_end(source oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line record;
    used boolean;
begin
    if tide.stream_is_followed(source) then
        if tide.stream_wanted(source) is null and exists (select from tide.stream_buffer b where b.source = stream_capture_end.source) then
            perform tide.stream_capture_source(source);
        end if;
        return;
    end if;
    -- Stream tables that their writers maintain read no buffer, but their statements are derived from one; and the fleet may take them back.
    -- So triggers only rest, as those of replicas, for which readers do not have to be waited for.
    used := exists (select from tide.stream_source s where s.source = stream_capture_end.source);
    for line in select t.tgname, t.tgrelid::regclass as part from pg_trigger t
                 where t.tgname ~ format('^tide_stream_(insert|update|delete|truncate)_%s$', source) and not t.tgisinternal
                   and not (used and t.tgenabled = 'R')
    loop
        if used then
            execute format('alter table only %s enable replica trigger %I', line.part, line.tgname);
        else
            perform tide.stream_drop_trigger(line.tgname, line.part);
        end if;
    end loop;
    if not used then
        perform tide.stream_buffer_drop(source);
    end if;
    delete from tide.stream_change c where c.source = stream_capture_end.source;
end $$;

-- What the capture of the sources of stream tables is like: which tables, which triggers, which columns, and whether all fire. xmin
-- tells of what was changed and changed back. Null if some change may go unseen. One statement for all of them.
create or replace function tide.stream_captures(stream_ids int[]) returns table (stream_id int, capture text)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
    return query
    with reads as materialized (
        select line.stream_id, s.source, s.columns, tide.stream_wants_rows(line) as wants,
               exists (select from tide.stream_buffer b where b.source = s.source) as stored
          from unnest(stream_ids) i (stream_id) join tide.stream line using (stream_id) join tide.stream_source s using (stream_id)
    ), unseen as materialized (
        select s.source from (select distinct r.source from reads r) s where tide.stream_unseen(s.source)
    ), parts as materialized (
        select c.source, c.part, count(t.oid) filter (where t.tgenabled in ('O', 'A')) as firing,
               string_agg(t.oid || ' ' || t.version || t.tgenabled::text, ' ' order by t.oid) as triggers
          from (select s.source, p.part from (select distinct r.source from reads r) s cross join lateral tide.stream_captured(s.source) p (part)) c
          left join (select s.source, p.* from (select distinct r.source from reads r) s cross join lateral tide.stream_triggers(s.source) p) t
                 on t.source = c.source and t.tgrelid = c.part
         group by c.source, c.part
    )
    select i.stream_id, case when coalesce(bool_and(f.firing = 4 and f.source not in (select u.source from unseen u) and (f.stored or not f.wants)), true) then
               coalesce(md5(string_agg(concat_ws(' ', f.source, f.part::oid, f.triggers, f.columns), ',' order by f.source, f.part)), '') end
      from unnest(stream_ids) i (stream_id)
      left join (select r.stream_id, r.source, r.wants, r.stored, p.part, p.firing, p.triggers, a.columns
                   from reads r join parts p using (source)
                  cross join lateral (
                      select string_agg(concat_ws(' ', n.attname, n.atttypid, n.xmin), ' ' order by n.attnum) as columns
                        from pg_attribute o join pg_attribute n on n.attrelid = p.part and n.attname = o.attname
                       where r.wants and o.attrelid = r.source and o.attnum = any (r.columns) and not o.attisdropped) a) f using (stream_id)
     group by i.stream_id;
end $$;

create or replace function tide.stream_sources_now(stream_id int) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic select c.capture from tide.stream_captures(array[stream_sources_now.stream_id]) c; end;
