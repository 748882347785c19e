-- What the analysis of a stream table's query is told: by which texts a refresh may find what differs is worked out outside the
-- database, and judged here. Nothing in this file reads a row of a user's table.

-- Whether values of a type have a hash, as hash_record_extended needs it, and so an equality too. Of a domain its base type is asked: a
-- value of the domain runs its checks, which are of its owner.
create or replace function tide.stream_hashable(type text) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    base oid := type::regtype;
begin
    while exists (select from pg_type t where t.oid = base and t.typtype = 'd') loop
        select t.typbasetype into base from pg_type t where t.oid = base;
    end loop;
    execute format('select hash_record_extended(row(null::%s), 0)', format_type(base, null));
    return true;
exception when undefined_function then
    return false;
end $$;

-- The columns of a relation: `deterministic` says whether texts that are equal are the same.
create or replace function tide.stream_columns(relation regclass) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
                                                 'hashable', tide.stream_hashable(format_type(a.atttypid, null)),
                                                 'deterministic', coalesce(c.collisdeterministic, true)) order by a.attnum), '[]')
      from pg_attribute a left join pg_collation c on c.oid = a.attcollation
     where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
$$;

-- A unique key of a table that is never null: the primary key, if there is one.
create or replace function tide.stream_key(source oid) returns name[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select array_agg(a.attname order by k.place)
      from unnest(tide.stream_key_numbers(source)) with ordinality k (number, place)
      join pg_attribute a on a.attrelid = source and a.attnum = k.number;
end;

-- The columns of a source that a query reads, itself or through views, and the key of the source: in the order of the table.
create or replace function tide.stream_columns_read(view regclass, source oid) returns name[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(a.attname order by a.attnum), '{}')
      from pg_attribute a
     where a.attrelid = source and a.attnum > 0 and not a.attisdropped
       and (a.attname = any (tide.stream_key(source))
            or exists (select from tide.stream_views(view) v join pg_rewrite r on r.ev_class = v
                         join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
                        where d.refclassid = 'pg_class'::regclass and d.refobjid = source and d.refobjsubid = a.attnum))
$$;

-- Why the changes of a source may not be applied to a query by themselves; null if they may. The query sees what its owner may see,
-- and a change buffer all that was written.
create or replace function tide.stream_source_reason(view regclass, source oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case
        when c.relrowsecurity then format('%s has row security', source::regclass)
        when not has_table_privilege(tide.stream_owner(line.relation), source, 'select') then format('its owner may not read %s itself', source::regclass)
        when exists (select from pg_attribute a where a.attrelid = source and a.attgenerated = 'v' and a.attname = any (tide.stream_columns_read(view, source)))
            then format('it reads a virtual column of %s', source::regclass)
      end
      from pg_class c left join tide.stream line on view = to_regclass(format('tide_stream.q_%s', line.stream_id)) where c.oid = source
$$;

-- All that is known of a stream table and its query.
create or replace function tide.stream_describe(pipeline text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    line tide.stream;
    view regclass;
begin
    select * into strict line from tide.stream s where s.pipeline = stream_describe.pipeline;
    view := format('tide_stream.q_%s', line.stream_id)::regclass;
    return jsonb_build_object(
        'stream_id', line.stream_id,
        'facts', tide.stream_facts(line.stream_id),
        'immediate', line.refresh_mode = 'IMMEDIATE',
        'is_ours', not tide.stream_is_foreign(line.relation),
        'table', line.relation::text,
        'reason', coalesce(line.always_reason, (select min(tide.stream_source_reason(view, s.source)) from tide.stream_tables_read(view) s)),
        'columns', tide.stream_columns(view),
        'query', rtrim(pg_get_viewdef(view), ';'),
        'views', (select coalesce(jsonb_object_agg(v::text, rtrim(pg_get_viewdef(v), ';')), '{}') from tide.stream_views(view) v where v <> view),
        'sources', (select coalesce(jsonb_agg(jsonb_build_object('oid', s.source::bigint, 'name', s.source::regclass::text, 'columns', tide.stream_columns(s.source),
                                                                 'key', tide.stream_key(s.source), 'captured', tide.stream_columns_read(view, s.source)) order by s.source), '[]')
                      from tide.stream_tables_read(view) s),
        'functions', (select coalesce(jsonb_object_agg(used.name, jsonb_build_object('aggregate', used.aggregate, 'set_returning', used.set_returning)), '{}')
                        from (select p.proname as name, bool_or(p.prokind = 'a') as aggregate, bool_or(p.proretset) as set_returning
                                from tide.stream_trees(view) tree
                               cross join lateral regexp_matches(tree, E' :(?:funcid|aggfnoid|winfnoid) (\\d+)', 'g') m
                                join pg_proc p on p.oid = m[1]::oid
                               group by p.proname) used));
exception when no_data_found then
    raise exception 'pipeline % is not one of a stream table', quote_nullable(pipeline) using errcode = 'undefined_object';
end $$;

-- How a SELECT is read: its text as PostgreSQL writes it, and its columns. It is made a view, which runs nothing, not even what a
-- planner would compute ahead; and without a semicolon it is one statement.
create or replace function tide.stream_read(pipeline text, query text) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    view  text := format('tide_stream.read_%s', pg_backend_pid());
    found jsonb;
begin
    if not exists (select from tide.stream s where s.pipeline = stream_read.pipeline) then
        raise exception 'pipeline % is not one of a stream table', quote_nullable(pipeline) using errcode = 'undefined_object';
    elsif coalesce(strpos(query, ';') > 0, true) then
        raise exception 'a query to be read is one statement, without a semicolon' using errcode = 'invalid_parameter_value';
    end if;
    execute format('create view %s as %s', view, query);
    found := jsonb_build_object('text', rtrim(pg_get_viewdef(view::regclass), ';'), 'columns', tide.stream_columns(view::regclass));
    execute format('drop view %s', view);
    return found;
end $$;
