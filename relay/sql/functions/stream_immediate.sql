-- Mode IMMEDIATE: the writers of its sources maintain a stream table, each in its own transaction.
--
-- The fleet computes it first, and then puts triggers in the place of the capture: tide.stream_immediate_begin. From then on each
-- statement that changes a source runs the kept statement of that source, with the rows that it added and removed
-- (stream_immediate_text.sql). Two kinds of kept statements are right there, whatever else the same command changes:
--   - of one table that is read once: the rows of the statement say all;
--   - keyed: what is affected is made again from what is there now, so the last trigger of a command sees the end of it.

-- Whether its writers maintain a stream table now.
create or replace function tide.stream_is_immediate(id int) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from tide.stream_immediate i where i.stream_id = id);
end $$;

-- Why its writers cannot maintain a stream table of mode IMMEDIATE; null if they can, or if its query has not been analysed yet.
create or replace function tide.stream_immediate_reason(line tide.stream) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return coalesce(
        -- Its triggers run with our rights, and so would what its query calls.
        (select format('it belongs to %s, not to the owner of the schema tide', pg_get_userbyid(c.relowner))
           from pg_class c where c.oid = line.relation and c.relowner <> (select n.nspowner from pg_namespace n where n.nspname = 'tide')),
        line.always_reason, case when line.daily then 'it reads current_date, which changes without a write' end, line.full_reason,
        case when exists (select from tide.stream_node_plans(line.stream_id)) then 'parts of its query are kept in tables of their own' end,
        -- Triggers within triggers tell of changes in another order than that of the changes.
        (select 'the least or the greatest of all rows is no sum of changes'
           from tide.stream_plan p join tide.stream_statement s using (stream_id)
          where p.stream_id = line.stream_id and p.kind = 'rows' and p.key = '{}' and s.strategy = 'groups' limit 1),
        -- A plan that was made for another mode says nothing.
        (select coalesce(p.reason, kept.reason, format('a change of %s alone does not say what changes in it', s.source::regclass))
           from tide.stream_plan p join tide.stream_source s using (stream_id)
           left join tide.stream_statement kept on kept.stream_id = s.stream_id and kept.sources = array[s.source]
          where p.stream_id = line.stream_id and p.facts = tide.stream_facts(line.stream_id)
            and coalesce(kept.strategy, 'full') in ('full', 'two states') order by s.source limit 1));
end $$;

-- Raises that reason.
create or replace function tide.stream_immediate_check(line tide.stream) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    reason text := case when line.refresh_mode = 'IMMEDIATE' then tide.stream_immediate_reason(line) end;
begin
    if reason is not null then
        raise exception 'stream table "%" cannot be IMMEDIATE: %', line.name, reason using
            errcode = 'feature_not_supported',
            hint = format('Give it a schedule: select tide.alter_stream_table(%L, schedule => ''1s''). Writers do not wait for it then.', line.name);
    end if;
end $$;

-- The first thing that a writer does. Alone: one transaction after the other, and each sees what those before it have written; else
-- side by side with others that lock what they change row by row.
--
-- A transaction that is REPEATABLE READ or SERIALIZABLE cannot update a row that was updated since its snapshot. So the row of this
-- table tells it that it does not see what the stream table holds: 40001.
create or replace function tide.stream_immediate_lock(id int, alone boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- A class above those of outboxes: see tide.lock_class.
    if not alone then
        perform pg_advisory_xact_lock_shared(1953670720, id);
        return;
    end if;
    perform pg_advisory_xact_lock(1953670720, id);
    update tide.stream_immediate i set touched = pg_current_xact_id() where i.stream_id = id and i.touched <> pg_current_xact_id();
    if not found and not tide.stream_is_immediate(id) then
        raise serialization_failure using message = 'its triggers were put in place after the snapshot of this transaction';
    end if;
end $$;

-- Computes it all in the transaction of a writer, and writes what differs.
create or replace function tide.stream_immediate_whole(id int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line  tide.stream;
    plan  tide.stream_plan;
    saved jsonb;
begin
    perform tide.stream_immediate_lock(id, true);
    select * into line from tide.stream s where s.stream_id = id;
    select * into plan from tide.stream_plan p where p.stream_id = id and p.kind is not null;
    -- The settings of the creation are those of the query alone: the writer goes on with its own.
    saved := (select jsonb_object_agg(k.key, current_setting(k.key)) from jsonb_object_keys(line.settings - 'search_path') k (key));
    perform tide.stream_full_checked(line, plan);
    perform set_config(s.key, s.value, true) from jsonb_each_text(saved) s;
    if line.outbox_id is not null then
        perform tide.stream_publish(line, null);
    end if;
end $$;

-- What a trigger could not do fails its statement, by the name of the stream table. What reads the present anyway is computed as a whole
-- first: a part of a query may meet values that the query does not.
create or replace function tide.stream_immediate_failed(id int, state text, message text, detail text, hint text, may_repair boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text := (select s.name from tide.stream s where s.stream_id = id);
begin
    if may_repair and (state ~ '^22' or state in ('42883', '42P01', '42703')) then
        begin
            perform tide.stream_immediate_whole(id);
            return;
        exception when others then
            state := sqlstate;
            message := sqlerrm;
            get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
        end;
    end if;
    if state = '40001' then
        raise exception 'stream table "%" was changed by a transaction that this one does not see', name using
            errcode = state, detail = message, hint = 'Run the transaction again.';
    end if;
    raise exception 'stream table "%" cannot follow this change: %', name, message using
        errcode = state, detail = detail,
        hint = coalesce(nullif(hint, ''), format('If writers shall not depend on it, give it a schedule: select tide.alter_stream_table(%L, schedule => ''1s'').', name));
end $$;

-- TRUNCATE has no rows to look at.
create or replace function tide.stream_immediate_truncated() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    before text := current_setting('tide.refreshing', true);
begin
    perform tide.stream_immediate_failed(tg_argv[0]::int, '22000', null, null, null, true);
    perform set_config('tide.refreshing', coalesce(before, ''), true);
    return null;
end $$;

-- What the triggers, and the sources, are like: null if a trigger is missing or disabled. xmin tells of what was changed and changed back.
create or replace function tide.stream_immediate_triggers(id int) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return (
        select case when bool_and(t.firing = 4) then
                   md5(string_agg(format('%s %s %s %s', s.source, c.part::oid, t.triggers, a.columns), ',' order by s.source, c.part::oid)) end
          from tide.stream_source s
         cross join lateral tide.stream_captured(s.source) c (part)
         cross join lateral (select count(*) filter (where t.tgenabled in ('O', 'A')) as firing,
                                    string_agg(concat_ws(' ', t.oid, t.xmin, t.tgenabled::text), ' ' order by t.oid) as triggers
                               from pg_trigger t where t.tgrelid = c.part and starts_with(t.tgname, format('tide_immediate_%s_', id))) t
         cross join lateral (select string_agg(concat_ws(' ', p.attname, p.atttypid, p.xmin), ' ' order by p.attnum) as columns
                               from pg_attribute o join pg_attribute p on p.attrelid = c.part and p.attname = o.attname
                              where o.attrelid = s.source and o.attnum = any (s.columns) and not o.attisdropped) a
         where s.stream_id = id);
end $$;

-- Why the fleet has to look at a stream table that its writers maintain; null: it is equal to its query.
create or replace function tide.stream_immediate_behind(line tide.stream, state tide.stream_state) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    armed tide.stream_immediate;
begin
    select * into armed from tide.stream_immediate i where i.stream_id = line.stream_id;
    return case
        when armed.triggers is distinct from tide.stream_immediate_triggers(line.stream_id) then 'its triggers or its sources were changed'
        when not exists (select from tide.stream_plan p where p.stream_id = line.stream_id and p.facts = tide.stream_facts(line.stream_id))
            then 'its sources are not what they were when its query was analysed'
        when not coalesce(pg_visible_in_snapshot(line.asked, state.frontier), true) then 'someone asked for a refresh' end;
end $$;

-- Before a refresh: whether it stays with its writers, and is only compared. Else it is taken from them.
create or replace function tide.stream_immediate_stays(line tide.stream) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not tide.stream_is_immediate(line.stream_id) then
        return false;
    elsif coalesce(tide.stream_reason(line.stream_id), 'someone asked for a refresh') = 'someone asked for a refresh' then
        return true;
    end if;
    perform tide.stream_immediate_end(line.stream_id);
    return false;
end $$;

-- Whether this transaction keeps all writers from the sources of a stream table: then all its statements see the same of them.
create or replace function tide.stream_sources_locked(id int) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return not exists (
        select from tide.stream_source s cross join lateral tide.stream_captured(s.source) c (part)
         where s.stream_id = id
           and not exists (select from pg_locks l
                            where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.relation = c.part::oid and l.granted
                              and l.database = (select d.oid from pg_database d where d.datname = current_database())
                              and l.mode in ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')));
end $$;

-- Whether any stream table needs the changes of a source to be captured: those that their writers maintain do not.
create or replace function tide.stream_is_followed(source oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from tide.stream_source s
                    where s.source = stream_is_followed.source and not tide.stream_is_immediate(s.stream_id));
end $$;

-- Hands a stream table of mode IMMEDIATE over to its writers: what they have changed since the last refresh is followed, and the
-- triggers are put in place, while none writes. They wait 100 ms at most: if one is in the way for longer, it is false, and the fleet
-- retries.
create or replace function tide.stream_immediate_begin(pipeline text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
    line tide.stream;
    part regclass;
begin
    select * into line from tide.stream s where s.pipeline = stream_immediate_begin.pipeline;
    if line.refresh_mode is distinct from 'IMMEDIATE' or line.suspended or line.tier = 'frozen' or tide.stream_is_immediate(line.stream_id)
       or tide.stream_unplanned(line, (select p.version from tide.stream_plan p where p.stream_id = line.stream_id)) then
        return false;
    elsif current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'stream table "%" is handed over to its writers in a transaction that is READ COMMITTED', line.name using
            errcode = 'invalid_transaction_state';
    end if;
    perform tide.stream_immediate_check(line);
    for part in select distinct c from tide.stream_source s cross join lateral tide.stream_captured(s.source) c
                 where s.stream_id = line.stream_id order by c
    loop
        execute format('lock table only %s in share row exclusive mode', part);
    end loop;
    perform tide.stream_refresh(pipeline);
    insert into tide.stream_immediate (stream_id, touched) values (line.stream_id, pg_current_xact_id());
    perform tide.stream_immediate_make(line);
    update tide.stream_immediate i set triggers = tide.stream_immediate_triggers(line.stream_id) where i.stream_id = line.stream_id;
    perform tide.stream_capture_end(s.source) from tide.stream_source s where s.stream_id = line.stream_id;
    return true;
exception when lock_not_available then
    return false;
end $$;
comment on function tide.stream_immediate_begin is 'Puts the triggers in place by which its writers maintain a stream table; false if one is in the way.';

-- Takes it from its writers. It is computed as a whole next: changes are not captured until tide.stream_prepare. The triggers are disabled,
-- not dropped: readers of the sources do not have to be waited for.
create or replace function tide.stream_immediate_end(id int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    made record;
begin
    delete from tide.stream_immediate i where i.stream_id = id;
    if not found then
        return;
    end if;
    for made in select t.tgname, t.tgrelid::regclass as part from pg_trigger t
                 where t.tgname ~ format('^tide_immediate_%s_', id) and not t.tgisinternal order by t.tgrelid
    loop
        execute format('alter table only %s disable trigger %I', made.part, made.tgname);
    end loop;
    execute format('drop table if exists tide_stream.told_%s', id);
    update tide.stream_state s set frontier = null where s.stream_id = id;
end $$;

-- The same permanently: it is of another mode now, or is dropped.
create or replace function tide.stream_immediate_drop(id int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    made record;
begin
    perform tide.stream_immediate_end(id);
    for made in select t.tgname, t.tgrelid::regclass as part from pg_trigger t
                 where t.tgname ~ format('^tide_immediate_%s_', id) and not t.tgisinternal order by t.tgrelid
    loop
        execute format('drop trigger %I on %s', made.tgname, made.part);
    end loop;
    for made in select p.oid::regprocedure as name from pg_proc p
                 where p.pronamespace = 'tide_stream'::regnamespace and p.proname ~ format('^i_%s_', id)
    loop
        execute format('drop function %s', made.name);
    end loop;
end $$;
