-- Capture: that a transaction changed a source of a stream table. One row for each transaction and source, written by a trigger in
-- that transaction: so it is visible exactly where the change is. Writers notify no one.

create or replace function tide.stream_capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- A statement that changed no row changed nothing. TRUNCATE has no rows to look at.
    if tg_op <> 'TRUNCATE' then
        if not exists (select from changed_rows) then
            return null;
        end if;
    end if;
    insert into tide.stream_change (source, xid)
    select tg_argv[0]::oid, pg_current_xact_id()
     where not exists (select from tide.stream_change c where c.source = tg_argv[0]::oid and c.xid = pg_current_xact_id());
    return null;
end $$;

-- The tables that fire for changes of a source: statements that name a partition fire the triggers of that partition alone.
create or replace function tide.stream_captured(source oid) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select t.relid from pg_partition_tree(source) t
     union
    select c.oid::regclass from pg_class c where c.oid = source;
end;

-- Makes the triggers that are missing. Writers that have begun are waited for, and others wait behind.
create or replace function tide.stream_capture_source(source oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part    regclass;
    event   record;
begin
    for part in select c from tide.stream_captured(source) c order by c loop
        for event in select * from (values ('insert', 'referencing new table as changed_rows'), ('update', 'referencing new table as changed_rows'),
                                           ('delete', 'referencing old table as changed_rows'), ('truncate', '')) e (name, rows)
        loop
            if not exists (select from pg_trigger t where t.tgrelid = part and t.tgname = format('tide_stream_%s_%s', event.name, source)) then
                execute format('create trigger %I after %s on %s %s for each statement execute function tide.stream_capture(%L)',
                               format('tide_stream_%s_%s', event.name, source), event.name, part, event.rows, source);
            end if;
        end loop;
    end loop;
end $$;

-- Removes the triggers of a source, unless a stream table reads it.
create or replace function tide.stream_capture_end(source oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line record;
begin
    if exists (select from tide.stream_source s where s.source = stream_capture_end.source) then
        return;
    end if;
    for line in select t.tgname, t.tgrelid::regclass as part from pg_trigger t
                 where t.tgname ~ format('^tide_stream_(insert|update|delete|truncate)_%s$', source) and not t.tgisinternal
    loop
        execute format('drop trigger %I on %s', line.tgname, line.part);
    end loop;
    delete from tide.stream_change c where c.source = stream_capture_end.source;
end $$;

-- What the capture of the sources of a stream table is like: which tables, which triggers, and whether they fire. xmin tells of a
-- trigger that was off for a while. Null if some change may go unseen.
create or replace function tide.stream_sources_now(stream_id int) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select case when coalesce(bool_and(found.firing = 4), true) then
               coalesce(md5(string_agg(format('%s %s %s', found.source, found.part, found.triggers), ',' order by found.source, found.part)), '') end
      from (select s.source, c.part, count(t.oid) filter (where t.tgenabled in ('O', 'A')) as firing,
                   string_agg(t.oid || ' ' || t.xmin::text || t.tgenabled::text, ' ' order by t.oid) as triggers
              from tide.stream_source s
             cross join lateral tide.stream_captured(s.source) c (part)
              left join pg_trigger t on t.tgrelid = c.part and t.tgfoid = 'tide.stream_capture'::regproc
                                    and t.tgargs = convert_to(s.source::text, 'UTF8') || E'\\x00'::bytea
             where s.stream_id = stream_sources_now.stream_id
             group by s.source, c.part) found
$$;
