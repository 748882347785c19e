-- Plans: the statements of incremental refreshes, as a worker derived them from a query, and as PostgreSQL judged them.
--
-- tide_stream.w_<id>_<number> is the statement for one set of changed sources; tide_stream.s_<id> the state of aggregates,
-- tide_stream.f_<id> the state as computed from the sources, tide_stream.o_<id> the output rows over the state. See stream_nodes.sql for
-- the hidden nodes below a stream table, which have plans of their own.

-- Removes what is kept of a plan, and of the hidden nodes below.
create or replace function tide.stream_forget_plan(id int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    kind     record;
    relation record;
begin
    -- A refresh with a snapshot from before fails at this row and is repeated: it would open tables that are gone.
    update tide.stream_state s set prepared = null where s.stream_id = id;
    perform tide.stream_immediate_end(id);
    for kind in select case c.relkind when 'v' then 'view' else 'table' end as name, string_agg(format('tide_stream.%I', c.relname), ', ') as relations
                  from pg_class c cross join lateral regexp_match(c.relname, '^([fnoqrsw]|d_n(?=[0-9]))_?([0-9]+)') m
                 where c.relnamespace = 'tide_stream'::regnamespace and c.relkind in ('v', 'r')
                   and m[2]::bigint between id and id + 99 and c.relname <> format('q_%s', id)
                 group by 1 order by 1 desc
    loop
        execute format('drop %s %s', kind.name, kind.relations);
    end loop;
    for relation in select c.oid::regclass as name from pg_index i join pg_class c on c.oid = i.indexrelid join tide.stream line on line.relation = i.indrelid
                     where line.stream_id = id and c.relname ~ format('^tide_stream_%s_', id)
    loop
        perform tide.stream_execute((select s.relation from tide.stream s where s.stream_id = id), format('drop index %s', relation.name));
    end loop;
    delete from tide.stream_plan p where p.family = id;
end $$;

-- What a plan relies on, beside the text of the query: the views below it, columns, keys, row security. The rule of a view has another
-- xmin when it was replaced.
create or replace function tide.stream_facts(id int) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
begin
    return md5(concat_ws(';',
        (select s.refresh_mode from tide.stream s where s.stream_id = id and s.refresh_mode = 'IMMEDIATE'),
        (with recursive rules as (
             select r.oid, r.ev_class, r.xmin::text as version from pg_rewrite r where r.ev_class = to_regclass('tide_stream.q_' || id)
              union
             select r.oid, r.ev_class, r.xmin::text
               from rules o join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = o.oid and d.refclassid = 'pg_class'::regclass
               join pg_class c on c.oid = d.refobjid and c.relkind = 'v' join pg_rewrite r on r.ev_class = c.oid)
         select string_agg(concat_ws(' ', r.oid, r.ev_class, r.version), ',' order by r.oid) from rules r),
        (select string_agg(concat_ws(' ', c.oid, c.relrowsecurity), ',' order by c.oid)
           from tide.stream_source s join pg_class c on c.oid = s.source where s.stream_id = id),
        (select string_agg(concat_ws(' ', a.attrelid, a.attnum, a.atttypid, a.atttypmod, a.attcollation, a.attnotnull), ',' order by a.attrelid, a.attnum)
           from tide.stream_source s join pg_attribute a on a.attrelid = s.source and a.attnum = any (s.columns) where s.stream_id = id),
        (select string_agg(concat_ws(' ', i.indexrelid, i.indkey, i.indisvalid, i.indpred is null and i.indexprs is null), ',' order by i.indexrelid)
           from tide.stream_source s join pg_index i on i.indrelid = s.source and i.indisunique where s.stream_id = id)));
end $$;

-- Why an incremental refresh is never made of a stream table as it is; null if there may be one.
create or replace function tide.stream_why_full(line tide.stream) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(line.always_reason, case when line.refresh_mode = 'FULL' then 'its refresh_mode is FULL' end, line.full_reason,
                    tide.stream_unreadable(line),
                    (select coalesce(p.reason, '') from tide.stream_plan p where p.stream_id = line.stream_id), 'its query has not been analysed yet');
end;

-- Whether a worker has to analyse the query: it has no plan, or one that was made from other facts or by another version.
create or replace function tide.stream_unplanned(line tide.stream, version int) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select line.always_reason is null and line.full_reason is null and line.refresh_mode <> 'FULL'
           and not exists (select from tide.stream_plan p where p.stream_id = line.stream_id and p.version = stream_unplanned.version
                              and p.facts = tide.stream_facts(line.stream_id));
end;

-- The line of a stream table that a plan is for. A refresh that runs is waited for, and one that has begun but has not locked its row
-- fails: it would read statements that are replaced meanwhile.
create or replace function tide.stream_to_plan(pipeline text) returns tide.stream
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line tide.stream;
begin
    select * into line from tide.stream s where s.pipeline = stream_to_plan.pipeline;
    if not found then
        raise exception 'pipeline "%" is of no stream table', pipeline using errcode = 'undefined_object';
    elsif line.always_reason is not null or line.full_reason is not null or line.refresh_mode = 'FULL' then
        raise exception 'stream table "%" is computed as a whole: %', line.name, tide.stream_why_full(line) using
            errcode = 'object_not_in_prerequisite_state';
    end if;
    update tide.stream_state s set frontier = s.frontier where s.stream_id = line.stream_id;
    return line;
end $$;

-- Judges and keeps a plan, in place of what was kept; {"version": 1, "reason": "..."} if there is none.
create or replace function tide.stream_keep(pipeline text, plan jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line  tide.stream := tide.stream_to_plan(pipeline);
    facts text := coalesce(plan ->> 'facts', tide.stream_facts(line.stream_id));
    node  jsonb;
    view  regclass;
begin
    perform tide.stream_forget_plan(line.stream_id);
    if plan ->> 'reason' is null then
        perform tide.stream_require_select(line, s.source) from tide.stream_source s where s.stream_id = line.stream_id;
    end if;
    for node in select n.value from jsonb_array_elements(plan -> 'nodes') with ordinality n (value, place) order by n.place loop
        perform tide.stream_keep_node(line, node || jsonb_build_object('facts', facts));
    end loop;
    if plan ->> 'query' is not null then
        view := tide.stream_view(format('r_%s', line.stream_id), plan ->> 'query');
        perform tide.stream_judge(line.stream_id, view, '{}');
        perform tide.stream_judge_columns(view, tide.stream_columns_of(format('tide_stream.q_%s', line.stream_id)::regclass));
    end if;
    perform tide.stream_keep_plan(line, plan || jsonb_build_object('facts', facts));
end $$;
comment on function tide.stream_keep is 'Keeps how a stream table is refreshed incrementally, if it does nothing that its query does not.';

-- Keeps the plan of a stream table, or of a node of it.
create or replace function tide.stream_keep_plan(line tide.stream, plan jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    col text;
begin
    insert into tide.stream_plan (stream_id, version, facts, reason, kind, key, groups, fields, exact, reads, joins, filled)
    values (line.stream_id, (plan ->> 'version')::int, plan ->> 'facts', plan ->> 'reason',
            case when plan ->> 'reason' is null then plan ->> 'kind' end,
            case when jsonb_typeof(plan -> 'key') = 'array' then array(select jsonb_array_elements_text(plan -> 'key')) end,
            (plan ->> 'groups')::int, plan -> 'fields', coalesce(plan -> 'exact', '{}'), tide.stream_table_oids(plan -> 'reads'), tide.stream_join_columns(plan -> 'joins'),
            plan ->> 'kind' is distinct from 'state' and plan ->> 'query' is null);
    if plan ->> 'reason' is not null then
        return;
    end if;
    for col in select jsonb_array_elements_text(plan -> 'key') where jsonb_typeof(plan -> 'key') = 'array' loop
        if not exists (select from pg_attribute a where a.attrelid = line.relation and a.attname = col and a.attnum > 0) then
            raise exception 'stream table "%" has no column "%"', line.name, col using errcode = 'insufficient_privilege';
        end if;
    end loop;
    if plan ->> 'kind' = 'state' then
        perform tide.stream_keep_state(line.stream_id, plan, tide.stream_columns_of(format('tide_stream.q_%s', line.stream_id)::regclass));
        perform tide.stream_lend(line, 'select, insert, update, delete', format('tide_stream.s_%s', line.stream_id));
    end if;
    perform tide.stream_keep_statement(line.stream_id, tide.stream_table_oids(c -> 'sources'), c ->> 'strategy', c ->> 'form', c ->> 'text', c ->> 'reason')
       from jsonb_array_elements(plan -> 'changes') c;
    perform tide.stream_keep_indexes(line, plan -> 'indexes');
end $$;

-- Columns by their numbers, which stay when they are renamed.
create or replace function tide.stream_join_columns(joins jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(jsonb_object_agg(j.key, (select coalesce(jsonb_agg(a.attnum order by a.attnum), '[]') from pg_attribute a
                                              where a.attrelid = j.key::oid and a.attnum > 0 and j.value ? a.attname::text)), '{}')
      from jsonb_each(joins) j;
end;

-- Views are read with the rights of their owners, statements with those of the owner of the stream table.
create or replace function tide.stream_require_select(line tide.stream, source oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not has_table_privilege(tide.stream_owner(line.relation), source, 'select') then
        raise exception 'permission denied for table %', source::regclass using errcode = 'insufficient_privilege';
    end if;
end $$;

-- The state of aggregates: an empty table, which the next refresh fills.
create or replace function tide.stream_keep_state(id int, plan jsonb, outputs text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    view   regclass := tide.stream_view(format('f_%s', id), plan ->> 'whole');
    wanted text[] := array(select format('k%s', k) from generate_series(0, (plan ->> 'groups')::int - 1) k) || 'n'::text
                     || array(select unnest(case f.value ->> 'kind' when 'sum' then array['c', 's'] else array['c'] end) || f.place - 1
                                from jsonb_array_elements(plan -> 'fields') with ordinality f (value, place) order by f.place);
begin
    perform tide.stream_judge(id, view, '{}');
    if array(select a.attname::text from pg_attribute a where a.attrelid = view order by a.attnum) <> wanted
       or exists (select from pg_attribute a where a.attrelid = view and a.attname ~ '^(n|c[0-9]+)$' and a.atttypid <> 'bigint'::regtype)
       or exists (select from pg_attribute a where a.attrelid = view and a.attname ~ '^s[0-9]+$' and a.atttypid <> 'numeric'::regtype) then
        raise exception 'a state of a stream table has the columns %', array_to_string(tide.stream_columns_of(view), ', ') using
            errcode = 'insufficient_privilege';
    end if;
    execute format('create table tide_stream.s_%1$s with (fillfactor = 80) as select 0::bigint as __h, f.* from tide_stream.f_%1$s f with no data', id);
    execute format('create index on tide_stream.s_%s (__h)', id);
    if (select s.refresh_mode = 'IMMEDIATE' from tide.stream s where s.stream_id = id) then
        perform tide.stream_immediate_index(id, (plan ->> 'groups')::int);
    end if;
    view := tide.stream_view(format('o_%s', id), plan ->> 'out');
    perform tide.stream_judge(id, view, '{}');
    perform tide.stream_judge_columns(view, outputs);
end $$;

-- One statement: what a change of these sources, and no others, changes in the result.
create or replace function tide.stream_keep_statement(id int, sources oid[], strategy text, form text, text text, reason text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    next_number int := coalesce((select max(s.number) from tide.stream_statement s where s.stream_id = id), 0) + 1;
    view        regclass;
begin
    sources := array(select s from unnest(sources) s order by s);
    if exists (select from unnest(sources) s (source)
                where s.source is null
                   or not exists (select from tide.stream_source o where o.stream_id = tide.stream_family(id) and o.source = s.source)
                      and not exists (select from tide.stream_node_plans(tide.stream_family(id)) n where s.source = to_regclass(format('tide_stream.n_%s', n.stream_id)))) then
        raise exception 'a statement of a stream table is of a table that its query does not read' using errcode = 'insufficient_privilege';
    elsif text is not null and form is distinct from (select p.kind from tide.stream_plan p where p.stream_id = id) then
        raise exception 'a statement of a stream table has the form "%", and its plan another kind', form using errcode = 'invalid_parameter_value';
    end if;
    delete from tide.stream_statement s where s.stream_id = id and s.sources = stream_keep_statement.sources;
    insert into tide.stream_statement (stream_id, number, sources, strategy, form, reason) values (id, next_number, sources, strategy, form, reason);
    if text is null then
        return;
    end if;
    view := tide.stream_view(format('w_%s_%s', id, next_number), text);
    perform tide.stream_judge(id, view, sources);
    if form = 'rows' then
        perform tide.stream_judge_columns(view, tide.stream_columns_of(format('tide_stream.q_%s', id)::regclass) || '__w bigint'::text);
    else
        perform tide.stream_judge_columns(view, tide.stream_columns_of(format('tide_stream.f_%s', id)::regclass));
    end if;
end $$;

-- Judges and keeps one statement more, for sources that were not foreseen to change together: of the stream table, or of a node of it.
create or replace function tide.stream_keep_change(
    pipeline text, sources bigint[], strategy text, form text, text text, reason text default null, node int default 0
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line tide.stream := tide.stream_to_plan(pipeline);
begin
    if node <> 0 and not exists (select from tide.stream_node_plans(line.stream_id) n where n.stream_id = node) then
        raise exception 'stream table "%" has no node %', line.name, node using errcode = 'insufficient_privilege';
    end if;
    perform tide.stream_keep_statement(case node when 0 then line.stream_id else node end, tide.stream_table_oids(to_jsonb(sources)),
                                       strategy, form, text, reason);
end $$;
comment on function tide.stream_keep_change is 'Keeps how a stream table is refreshed after these sources changed together.';

-- Indexes of the table by which a refresh finds rows: by the hash of the key, which is small whatever the values are; and by columns.
create or replace function tide.stream_keep_indexes(line tide.stream, indexes jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    plan tide.stream_plan := (select p from tide.stream_plan p where p.stream_id = line.stream_id);
    hash text := tide.stream_hash_text(line.relation, '', tide.stream_key_names(line, plan));
    list record;
begin
    if hash <> tide.stream_hash_text(line.relation, '', '{}') then
        perform tide.stream_execute(line.relation, format('create index %I on %s ((%s))', format('tide_stream_%s_hash', line.stream_id), line.relation, hash));
    end if;
    for list in select i.place, array_agg(format('%I', a.attname) order by c.place) as names, array_agg(a.attnum order by c.place) as numbers,
                       bool_or(t.typlen < 0 and t.typname <> 'numeric') as long
                  from jsonb_array_elements(indexes) with ordinality i (columns, place)
                 cross join lateral jsonb_array_elements_text(i.columns) with ordinality c (name, place)
                  join pg_attribute a on a.attrelid = line.relation and a.attname = c.name and a.attnum > 0
                  join pg_type t on t.oid = a.atttypid
                 group by i.place
    loop
        -- A value may be too long for a B-tree, and then every refresh would fail.
        if not (list.long and cardinality(list.names) > 1)
           and not exists (select from pg_index x where x.indrelid = line.relation and (x.indkey::smallint[])[0:cardinality(list.numbers) - 1] = list.numbers) then
            perform tide.stream_execute(line.relation, format('create index %I on %s using %s (%s)', format('tide_stream_%s_%s', line.stream_id, list.place),
                line.relation, case when list.long then 'hash' else 'btree' end, array_to_string(list.names, ', ')));
        end if;
    end loop;
end $$;
