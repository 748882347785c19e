-- What PostgreSQL knows of the query of a stream table: what it reads, and whether its result depends on anything else.

-- A view, and the views that it reads.
create or replace function tide.stream_views(view regclass) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive views as (
        select view::oid as relid
         union
        select c.oid
          from views join pg_rewrite r on r.ev_class = views.relid
         cross join lateral regexp_matches(r.ev_action::text, E' :relid (\\d+)', 'g') m
          join pg_class c on c.oid = m[1]::oid and c.relkind = 'v'
    )
    select v.relid::regclass from views v
$$;

-- Their stored trees. They name all that PostgreSQL comes with, which pg_depend does not.
create or replace function tide.stream_trees(view regclass) returns setof text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic select r.ev_action::text from tide.stream_views(view) v (relid) join pg_rewrite r on r.ev_class = v.relid; end;

-- Whether rows of a table change by statements that fire no trigger of it: those for a table of which it is a part, or for tables that
-- inherit from it; and what a subscription applies.
create or replace function tide.stream_unseen(source oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from pg_inherits i where i.inhrelid = source)
           or exists (select from pg_inherits i join pg_class c on c.oid = i.inhparent where i.inhparent = source and c.relkind = 'r')
           or exists (select from pg_subscription_rel s where s.srrelid = source)
           or exists (select from pg_partition_tree(source) t join pg_subscription_rel s on s.srrelid = t.relid);
end $$;

-- The relations that a view reads, also through other views. Captured: every change of it fires a trigger of ours.
create or replace function tide.stream_tables_read(view regclass) returns table (source oid, captured boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.oid,
           c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname not in ('pg_catalog', 'information_schema')
           and not exists (select from pg_partition_tree(c.oid) t join pg_class p on p.oid = t.relid
                            where c.relkind = 'p' and p.relkind = 'f')
           and not tide.stream_unseen(c.oid)
      from (select distinct m[1]::oid as relid
              from tide.stream_trees(view) tree cross join lateral regexp_matches(tree, E' :relid (\\d+)', 'g') m) reads
      join pg_class c on c.oid = reads.relid join pg_namespace n on n.oid = c.relnamespace
     where c.relkind <> 'v'
$$;

-- The columns of the primary key of a table, or else of a unique index without nulls; null if there is none.
create or replace function tide.stream_key_numbers(source oid) returns smallint[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select (i.indkey::smallint[])[0:i.indnkeyatts - 1]
      from pg_index i
     where i.indrelid = source and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
       and not exists (select from unnest((i.indkey::smallint[])[0:i.indnkeyatts - 1]) k (number)
                         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number where not a.attnotnull)
     order by i.indisprimary desc, i.indnkeyatts, i.indexrelid limit 1
$$;

-- The columns of its sources that a view reads, also through other views. Columns of a key are read too: they tell rows of a table
-- from each other.
create or replace function tide.stream_reads(view regclass) returns table (source oid, columns smallint[])
language sql stable set search_path = pg_catalog, pg_temp as $$
    with sources as materialized (select t.source from tide.stream_tables_read(view) t where t.captured)
    select s.source, coalesce(array_agg(distinct c.number order by c.number) filter (where c.number is not null), '{}')
      from sources s
      left join lateral (
          select d.refobjsubid::smallint as number
            from tide.stream_views(view) v (relid) join pg_rewrite r on r.ev_class = v.relid
            join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
                            and d.refclassid = 'pg_class'::regclass and d.refobjid = s.source and d.refobjsubid > 0
           union
          select k.number from unnest(tide.stream_key_numbers(s.source)) k (number)
      ) c on true
     group by s.source
$$;

-- What the query looks up by the search_path while it runs; null: nothing, so that any path will do.
create or replace function tide.stream_path_reason(view regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with trees as materialized (select t as tree from tide.stream_trees(view) t),
    reasons as (
        select 1 as rank, format('it calls %s(), which has no search_path of its own', p.proname) as reason
          from trees cross join lateral regexp_matches(tree, E' :(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m
          join pg_proc p on p.oid = m[1]::oid join pg_language l on l.oid = p.prolang
         where p.oid >= 16384 and (p.prokind = 'a' or l.lanname not in ('internal', 'c') and p.prosqlbody is null)
           and not exists (select from unnest(p.proconfig) c (text) where starts_with(c.text, 'search_path='))
         union all
        select 2, 'it reads names by the search_path'
          from trees cross join lateral regexp_matches(tree, E' :(?:resulttype|funcresulttype|vartype) (\\d+)', 'g') m
         where m[1]::oid in ('regclass'::regtype, 'regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype,
                             'regtype'::regtype, 'regcollation'::regtype)
    )
    select reason from reasons order by rank, reason limit 1
$$;

-- Why the changes of its sources cannot be told row by row, or its statements not be run by any search_path; null if they can.
create or replace function tide.stream_full_reason(view regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with columns as (
        select a.*, s.source, t.oid as base, t.typtype, t.typcategory, t.typelem
          from tide.stream_reads(view) s cross join lateral unnest(s.columns) n (number)
          join pg_attribute a on a.attrelid = s.source and a.attnum = n.number
          join pg_type d on d.oid = a.atttypid join pg_type t on t.oid = case when d.typtype = 'd' then d.typbasetype else d.oid end
    ), reasons as (
        select 1 as rank, 'it reads whole rows of a table' as reason from tide.stream_trees(view) tree where tree ~ E'\\{VAR :varno \\d+ :varattno 0 '
         union all
        select 2, format('it reads column %I of %s, which is generated when it is read', c.attname, c.source::regclass)
          from columns c where c.attgenerated = 'v'
         union all
        -- Statements name operators, which are looked up in pg_catalog.
        select 3, format('it reads column %I of %s, whose type %s is not of PostgreSQL itself', c.attname, c.source::regclass, format_type(c.base, -1))
          from columns c
         where c.base >= 16384 and c.typtype in ('b', 'd') and c.typcategory <> 'A'
            or c.typcategory = 'A' and c.typelem in (select o.oid from pg_type o where o.oid >= 16384 and o.typtype in ('b', 'd'))
         union all
        select 4, format('it reads column %I of %s, whose values cannot be compared', c.attname, c.source::regclass)
          from columns c
         where c.typcategory = 'A' and c.typelem < 16384
           and not exists (select from pg_opclass o where o.opcintype in (c.typelem, case when c.typelem = 'varchar'::regtype then 25 end) and o.opcdefault)
         union all
        -- A buffer has columns of the same types, and where one is added to rows, its domain runs checks.
        select 5, format('it reads column %I of %s, whose domain belongs to another role', c.attname, c.source::regclass)
          from columns c join pg_type d on d.oid = c.atttypid and d.typtype = 'd' join pg_roles o on o.oid = d.typowner
         where not o.rolsuper and o.oid <> (select n.nspowner from pg_namespace n where n.nspname = 'tide')
         union all
        select 5, format('%s has row security', s.source::regclass)
          from tide.stream_reads(view) s join pg_class c on c.oid = s.source where c.relrowsecurity
         union all
        select 6, tide.stream_path_reason(view)
    )
    select reason from reasons where reason is not null order by rank, reason limit 1
$$;

-- Whether it reads current_date: SQLValueFunction 0.
create or replace function tide.stream_day(view regclass) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic select exists (select from tide.stream_trees(view) t where t ~ 'SQLVALUEFUNCTION :op 0 '); end;

-- Why changes of the tables that it reads do not tell whether its result changes; null if they do.
--
-- A stable function may read what it likes: so only those of PostgreSQL that depend on settings alone are taken for safe, for
-- the settings of the creation are restored for each refresh. They stand behind operators and casts, or in this list.
create or replace function tide.stream_always_reason(view regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with trees as materialized (select t as tree from tide.stream_trees(view) t),
    used as (
        select distinct m[1]::oid as oid
          from trees cross join lateral regexp_matches(tree, E' :(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m
    ), reasons as (
        select 1 as rank, format('it calls %s(), whose result may change at any time', p.proname) as reason
          from used join pg_proc p on p.oid = used.oid
         where p.provolatile = 'v'
            or p.provolatile = 's' and (
                   p.oid >= 16384
                or not (exists (select from pg_operator o where o.oprcode = p.oid)
                        or exists (select from pg_cast c where c.castfunc = p.oid)
                        or p.proname in ('to_char', 'to_date', 'to_timestamp', 'date_trunc', 'date_part', 'extract', 'timezone', 'concat',
                                         'concat_ws', 'format', 'quote_literal', 'quote_nullable', 'array_to_string', 'string_to_array',
                                         'to_json', 'to_jsonb', 'row_to_json', 'array_to_json', 'json_build_object', 'json_build_array',
                                         'jsonb_build_object', 'jsonb_build_array', 'json_agg', 'jsonb_agg', 'json_object_agg',
                                         'jsonb_object_agg', 'to_tsvector', 'to_tsquery', 'plainto_tsquery', 'phraseto_tsquery',
                                         'websearch_to_tsquery', 'make_timestamptz', 'generate_series', 'text', 'timestamptz', 'timestamp',
                                         'date', 'time', 'timetz', 'interval', 'any_out', 'array_agg', 'string_agg')))
         union all
        select 2, 'it reads the time, a user or a schema of the session'
          from trees where tree ~ 'SQLVALUEFUNCTION :op (?!0 )'
         union all
        select 3, 'it reads system columns' from trees where tree ~ E'\\{VAR :varno \\d+ :varattno -\\d+'
         union all
        select 4, 'it takes a random sample' from trees where tree ~ 'TABLESAMPLECLAUSE'
         union all
        select 5, format('changes of %s cannot be captured', t.source::regclass)
          from tide.stream_tables_read(view) t where not t.captured
    )
    select reason from reasons order by rank, reason limit 1
$$;

-- Raises what a column of the query must not be: rows are compared, so every column has an equality.
create or replace function tide.stream_check_columns(name text, view regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    col record;
begin
    for col in select a.attname, format_type(a.atttypid, a.atttypmod) as type from pg_attribute a
                where a.attrelid = view and a.attnum > 0 order by a.attnum
    loop
        if col.attname like E'\\_\\_%' then
            raise exception 'column "%" of stream table % begins with "__"', col.attname, name using
                errcode = 'invalid_name', hint = 'Such names are used by the refresh: give it another one in the query.';
        end if;
        begin
            execute format('select from %s group by %I limit 0', view, col.attname);
        exception when undefined_function then
            raise exception 'column "%" of stream table % is of type %, whose values cannot be compared', col.attname, name, col.type using
                errcode = 'datatype_mismatch', hint = format('Cast it in the query, for example to %s.', case col.type when 'json' then 'jsonb' else 'text' end);
        end;
    end loop;
end $$;
