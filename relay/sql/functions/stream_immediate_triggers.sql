-- The functions of the triggers by which writers maintain a stream table. Their text is a statement, and names tables and
-- columns: so each looks first whether they are still called so. Where they are not, the statement is made again each time, by the
-- names of now, until the fleet has made the function again: no writer fails because a column was renamed.

-- The settings that the query depends on, as a part of CREATE FUNCTION. Each costs time, so none if all that it calls is immutable.
create or replace function tide.stream_immediate_settings(line tide.stream) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return (select string_agg(format('set %I to %L', s.key, s.value), ' ') from jsonb_each_text(line.settings - 'search_path') s
             where exists (select from tide.stream_trees(format('tide_stream.q_%s', line.stream_id)::regclass) tree
                            where tree ~ 'COERCEVIAIO'
                               or exists (select from tide.stream_tree_ids(tree, 'funcid|opfuncid|aggfnoid|winfnoid') f join pg_proc p on p.oid = f
                                           where p.provolatile <> 'i')));
end $$;

create or replace function tide.stream_immediate_function(
    line tide.stream, plan tide.stream_plan, locks text, source oid, part oid, event text, function_name text
) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    changed text := case event when 'delete' then 'old_rows' else 'new_rows' end;
    groups  record;
    known   text := tide.stream_immediate_known(line, part);
    fast    text;
begin
    select '' as declared into groups;
    if locks = 'groups' then
        groups := tide.stream_immediate_groups(line, plan, source, part, event);
        fast := format(E'%s;\n            open __run for %s;', groups.first_text, groups.second_text);
    else
        fast := format('open __run for %s;', tide.stream_immediate_statement(line, plan, source, part, event));
        if locks = 'all' then
            -- A plan for few rows is a bad one for many.
            known := known || format(E'\n            and (select count(*) from (select from %s limit 301) r) <= 300', changed);
        end if;
    end if;
    return format(
        'create or replace function %s() returns trigger language plpgsql security definer set search_path = pg_catalog, tide_stream, pg_temp %s as %L',
        -- Planning takes longer than running it.
        function_name, concat_ws(' ', 'set plan_cache_mode to force_generic_plan', tide.stream_immediate_settings(line)), format($body$#variable_conflict use_column
declare
    __run    refcursor;
    __done   tide.stream_done;
    __before text := current_setting('tide.refreshing', true);
    __detail text;
    __hint   text;
%1$sbegin
    if not exists (select from %2$s) then
        return null;
    end if;
    perform set_config('tide.refreshing', %3$L, true);
    begin
        if %4$s then
            perform tide.stream_immediate_lock(%5$s, %6$s);
            %7$s
        else
            open __run for execute tide.stream_immediate_text(%5$s, tg_relid, tg_op);
        end if;
        perform set_config('search_path', %8$L, true);
        fetch __run into __done;
        close __run;
        perform pg_catalog.set_config('search_path', 'pg_catalog, tide_stream, pg_temp', true);
        if __done.unsound then
            raise data_exception using message = 'a sum is NaN or infinite, or a count is below zero';
        elsif __done.gone <> __done.updated + __done.deleted or __done.came <> __done.updated + __done.inserted then
            raise data_exception using message = 'the table did not hold the rows that were to be changed';
        end if;
        %9$s
    exception when others then
        get stacked diagnostics __detail = pg_exception_detail, __hint = pg_exception_hint;
        perform tide.stream_immediate_failed(%5$s, sqlstate, sqlerrm, __detail, __hint, %10$s);
    end;
    perform set_config('tide.refreshing', coalesce(__before, ''), true);
    return null;
end$body$,
            groups.declared, changed, line.relation::oid, known, line.stream_id, (locks = 'all')::text, fast, line.settings ->> 'search_path',
            case when line.outbox_id is not null then
                format('perform tide.stream_publish(s, null) from tide.stream s where s.stream_id = %s and s.outbox_id is not null;', line.stream_id) end,
            -- What reads the present may be computed as a whole in the middle of a command. What adds up rows may not: of the same command
            -- more may follow, and would count twice.
            (not exists (select from tide.stream_statement s where s.stream_id = line.stream_id and s.strategy = 'linear'))::text));
end $$;

-- The index by which writers find the state of a group. It is made with the state, while that is empty.
create or replace function tide.stream_immediate_index(id int, groups int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if groups > 0 then
        execute format('create unique index on tide_stream.s_%s (__h, hash_record_extended(row(%s), 1))', id,
                       (select string_agg('k' || k, ', ' order by k) from generate_series(0, groups - 1) k));
    end if;
end $$;

-- Makes the triggers, or only their functions if these are there.
create or replace function tide.stream_immediate_make(line tide.stream) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    plan  tide.stream_plan;
    locks text;
    fires record;
    event text;
    name  text;
begin
    select * into plan from tide.stream_plan p where p.stream_id = line.stream_id;
    locks := tide.stream_immediate_locks(line, plan);
    if line.outbox_id is not null then
        execute format('create unlogged table if not exists %s as select false as __came, 0::bigint as __times, t.* from %s t with no data',
                       tide.stream_told(line), line.relation);
    end if;
    for fires in select s.source, c.part from tide.stream_source s cross join lateral tide.stream_captured(s.source) c (part)
                  where s.stream_id = line.stream_id order by c.part
    loop
        foreach event in array array['insert', 'update', 'delete'] loop
            name := format('tide_stream.i_%s_%s_%s', line.stream_id, fires.part::oid, event);
            execute tide.stream_immediate_function(line, plan, locks, fires.source, fires.part, event, name);
            execute format('revoke all on function %s() from public', name);
            continue when exists (select from pg_trigger t
                                   where t.tgrelid = fires.part and t.tgname = format('tide_immediate_%s_%s', line.stream_id, event) and t.tgenabled in ('O', 'A'));
            execute format('create or replace trigger tide_immediate_%s_%s after %s on %s referencing %s for each statement execute function %s()',
                           line.stream_id, event, event, fires.part,
                           concat_ws(' ', case when event <> 'insert' then 'old table as old_rows' end,
                                          case when event <> 'delete' then 'new table as new_rows' end), name);
        end loop;
        if not exists (select from pg_trigger t where t.tgrelid = fires.part and t.tgname = format('tide_immediate_%s_truncate', line.stream_id)
                                                  and t.tgenabled in ('O', 'A')) then
            execute format('create or replace trigger tide_immediate_%1$s_truncate after truncate on %2$s for each statement execute function tide.stream_immediate_truncated(%1$L)',
                           line.stream_id, fires.part);
        end if;
    end loop;
end $$;
