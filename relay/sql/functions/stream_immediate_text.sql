-- The functions of the triggers by which writers maintain a stream table. Their text is the statement of a refresh, and names tables and
-- columns: so each looks first whether they are still called so. Where they are not, the statement is made again each time, by the
-- names of now, until the fleet has made the function again: no writer fails because a column was renamed.

-- Which lock a writer takes. rows: each row is made of one row of the only source, which its writer has locked. groups: sums are added to
-- the state, whose row is locked. all: the stream table is locked.
create or replace function tide.stream_immediate_locks(line tide.stream, plan tide.stream_plan) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    kept tide.stream_statement;
begin
    if (select count(*) from tide.stream_source s where s.stream_id = line.stream_id) > 1 then
        return 'all';
    end if;
    select * into kept from tide.stream_statement s where s.stream_id = line.stream_id;
    return case
        when kept.strategy <> 'linear' or plan.key is null then 'all'
        when plan.kind = 'rows' then 'rows'
        -- Arrays of arrays lose their form.
        when plan.groups = 0 or exists (select from pg_attribute a join pg_type t on t.oid = a.atttypid
                                         where a.attrelid = to_regclass(format('tide_stream.s_%s', line.stream_id))
                                           and a.attname ~ '^k[0-9]+$' and t.typcategory = 'A') then 'all'
        else 'groups' end;
end $$;

-- The rows that a statement added to a source, or removed from it: its net change.
create or replace function tide.stream_immediate_delta(line tide.stream, plan tide.stream_plan, source oid, part oid, event text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    names text;
    added text;
    gone  text;
begin
    -- A partition may have its columns in another order, and a renamed column has its old name in what is kept.
    select coalesce(string_agg(format('%I as %I, ', c.named, c.name), '' order by c.place), '') into names
      from tide.stream_buffer_columns(source) c join tide.stream_source s on s.stream_id = line.stream_id and s.source = stream_immediate_delta.source
     where c.number = any (s.columns);
    added := format('select %s1::bigint as "__w" from new_rows', names);
    gone := format('select %s-1::bigint as "__w" from old_rows', names);
    return format('d_%s as materialized (%s)', source,
                  case event when 'insert' then added when 'delete' then gone
                       else tide.stream_delta_text(line.stream_id, source, plan.exact, format('(%s union all %s) changed', added, gone)) end);
end $$;

-- What is counted of what was written, and whether the state cannot be added to.
create or replace function tide.stream_immediate_counts(unsound text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select format('select (select coalesce(sum(__times), 0)::bigint from gone), (select coalesce(sum(__times), 0)::bigint from came),
                   (select count(*) from inserted_), (select count(*) from updated_), (select count(*) from deleted_), %s', unsound);
end;

-- One statement that does it all.
create or replace function tide.stream_immediate_statement(line tide.stream, plan tide.stream_plan, source oid, part oid, event text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    number int := (select s.number from tide.stream_statement s where s.stream_id = line.stream_id and s.sources = array[stream_immediate_statement.source]);
    kept   text := tide.stream_kept_text(format('w_%s_%s', line.stream_id, number));
    names  text := (select string_agg(format('%I', n), ', ') from unnest(tide.stream_key_names(line, null)) n);
    delta  text := tide.stream_immediate_delta(line, plan, source, part, event);
begin
    return 'with ' || array_to_string(
        case when plan.kind = 'rows' then array[delta, tide.stream_write_text(line, plan, kept), tide.stream_told_text(line)]
             else array[delta, tide.stream_state_text(line.stream_id, plan, kept),
                        tide.stream_write_text(line, plan, format('select %1$s, 1::bigint as "__w" from new_ union all select %1$s, -1 from old_', names)),
                        tide.stream_told_text(line)] end, ', ')
        || ' ' || tide.stream_immediate_counts(case plan.kind when 'rows' then 'false' else tide.stream_unsound_text(line.stream_id, plan.groups) end);
end $$;

-- The same in two, for groups: the first adds to the state and keeps the locks of its rows, in the order of their hashes; the second, which
-- sees what those have written that held them before, writes the rows of the table. Between them, arrays hold what the groups were and are.
--
-- Two hashes find a group, whatever its columns are: null, or too long for an index.
create or replace function tide.stream_immediate_groups(
    line tide.stream, plan tide.stream_plan, source oid, part oid, event text, out declared text, out first_text text, out second_text text
)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    id     int := line.stream_id;
    number int := (select s.number from tide.stream_statement s where s.stream_id = id and s.sources = array[stream_immediate_groups.source]);
    state  regclass := format('tide_stream.s_%s', id);
    ks     text[] := array(select format('k%s', k) from generate_series(0, plan.groups - 1) k);
    vs     text[] := array(select a.attname::text from pg_attribute a where a.attrelid = state and a.attnum > 1 + plan.groups order by a.attnum);
    keys   text := array_to_string(ks, ', ');
    cols   text := array_to_string(ks || vs, ', ');
    names  text := (select string_agg(format('%I', n), ', ') from unnest(tide.stream_key_names(line, null)) n);
    shown  text := tide.stream_kept_text(format('o_%s', id));
    -- What the arrays hold: the hash, the columns of the group, and each number before and after.
    held   text[] := array['__h'] || ks || array(select p || v from unnest(vs) v cross join unnest(array['o_', 'n_']) p);
begin
    declared := (select string_agg(format(E'    __held_%s %s[];\n', h, coalesce(format_type(a.atttypid, -1), 'bigint')), '')
                   from unnest(held) h left join pg_attribute a on a.attrelid = state and a.attname = regexp_replace(h, '^[on]_', ''));
    first_text := format(
        'with %1$s,
         changes_ as materialized (select %2$s as __h, r.* from (%3$s) r where %4$s),
         added_ as (insert into tide_stream.s_%5$s as s (__h, %6$s) select __h, %6$s from changes_ order by __h
                    on conflict (__h, (%7$s)) do update set %8$s where %9$s returning s.*)
         select %10$s into %11$s
           from (select __h, %12$s, %13$s
                   from (select true as added, __h, %6$s from added_ union all select false, __h, %6$s from changes_) r group by __h, %12$s) b',
        tide.stream_immediate_delta(line, plan, source, part, event), tide.stream_hash_text(state, '', ks),
        tide.stream_kept_text(format('w_%s_%s', id, number)), (select string_agg(format('%s <> 0', v), ' or ') from unnest(vs) v),
        id, cols, format('hash_record_extended(row(%s), 1)', keys), (select string_agg(format('%1$s = s.%1$s + excluded.%1$s', v), ', ') from unnest(vs) v),
        tide.stream_same_text(ks, 's', 'excluded'),
        (select string_agg(format('array_agg(b.%s)', h), ', ') from unnest(held) h), (select string_agg('__held_' || h, ', ') from unnest(held) h), keys,
        (select string_agg(format('max(%1$s) filter (where added) - max(%1$s) filter (where not added) as o_%1$s, max(%1$s) filter (where added) as n_%1$s', v), ', ')
           from unnest(vs) v));
    second_text := format(
        'with both_ as materialized (select b.*, b.o_n > 0 as had from unnest(%1$s) b (%2$s)),
         state_deleted_ as (delete from tide_stream.s_%3$s s using both_ b where b.n_n = 0 and s.__h = b.__h and %4$s),
         old_ as materialized (with s_%3$s as (select b.__h, %5$s from both_ b where b.had) %7$s),
         new_ as materialized (with s_%3$s as (select b.__h, %6$s from both_ b where b.n_n > 0) %7$s), %8$s %9$s',
        (select string_agg('__held_' || h, ', ') from unnest(held) h), array_to_string(held, ', '), id, tide.stream_same_text(ks, 's', 'b'),
        (select string_agg(format('b.%s', k), ', ') from unnest(ks) k) || (select string_agg(format(', b.o_%1$s as %1$s', v), '') from unnest(vs) v),
        (select string_agg(format('b.%s', k), ', ') from unnest(ks) k) || (select string_agg(format(', b.n_%1$s as %1$s', v), '') from unnest(vs) v),
        shown,
        concat_ws(', ', tide.stream_write_text(line, plan, format('select %1$s, 1::bigint as "__w" from new_ union all select %1$s, -1 from old_', names)),
                  tide.stream_told_text(line)),
        -- Null: another group has both hashes.
        tide.stream_immediate_counts('exists (select from both_ b where b.n_n is null) or ' || tide.stream_unsound_text(id, plan.groups)));
end $$;

-- Whether all is called as in the text of a function, and is unique by the same index.
create or replace function tide.stream_immediate_known(line tide.stream, part oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return (
        with sources as (select s.source, s.columns from tide.stream_source s where s.stream_id = line.stream_id),
        columns as (
            select s.source as relation, s.columns from sources s
             union
            select part, array(select p.attnum from pg_attribute o join pg_attribute p on p.attrelid = part and p.attname = o.attname
                                where o.attrelid = s.source and o.attnum = any (s.columns) and not o.attisdropped order by p.attnum)
              from sources s where part in (select c from tide.stream_captured(s.source) c)
        )
        select string_agg(known.text, E'\n            and ') from (
            select format('to_regclass(%L) = %L::oid', line.relation::text, line.relation::oid)
             union all
            select format('to_regclass(%L) = %L::oid', s.source::regclass::text, s.source) from sources s
             union all
            select format('(select string_agg(a.attname || a.attnotnull::text, '','' order by a.attnum) from pg_attribute a where a.attrelid = %L::oid and a.attnum = any (%L)) = %L',
                          c.relation, c.columns,
                          (select string_agg(a.attname || a.attnotnull::text, ',' order by a.attnum) from pg_attribute a
                            where a.attrelid = c.relation and a.attnum = any (c.columns)))
              from columns c
             union all
            select format('exists (select from pg_index i where i.indexrelid = %L::oid and i.indisvalid)', i.indexrelid)
              from sources s
             cross join lateral (select i.indexrelid from pg_index i
                                  where i.indrelid = s.source and i.indisunique and i.indisvalid
                                    and (i.indkey::smallint[])[0:i.indnkeyatts - 1] = tide.stream_key_numbers(s.source) order by i.indexrelid limit 1) i
        ) known (text));
end $$;

-- The statement by the names of now, for the trigger that asks: also where it changed many rows, for which it is planned by itself.
create or replace function tide.stream_immediate_text(id int, part oid, op text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line   tide.stream;
    plan   tide.stream_plan;
    source oid := (select s.source from tide.stream_source s
                    where s.stream_id = id and part in (select c from tide.stream_captured(s.source) c));
begin
    select * into line from tide.stream s where s.stream_id = id;
    select * into plan from tide.stream_plan p where p.stream_id = id and p.kind is not null;
    if source is null or plan.kind is null
       or (select s.cluster from tide.stream_state s where s.stream_id = id) is distinct from tide.stream_cluster() then
        -- The database is a copy, in which tables have other numbers.
        perform tide.stream_immediate_whole(id);
        return 'select 0, 0, 0, 0, 0, false';
    end if;
    perform tide.stream_immediate_lock(id, true);
    if plan.facts <> tide.stream_facts(id) then
        -- What was unique may be so no longer: rows are counted.
        plan.key := null;
    end if;
    return tide.stream_immediate_statement(line, plan, source, part, lower(op));
end $$;

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
