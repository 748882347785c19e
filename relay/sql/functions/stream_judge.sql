-- What a worker may have run as the owner of stream tables: nothing but what the query of the stream table runs.
--
-- A worker derives statements from a query. They become views, which runs nothing, and the stored trees of these views are judged: they
-- name every relation, function, operator and type, however the text was written.

-- A view in tide_stream. The text is one statement: a cursor refuses more than one, and refuses CREATE VIEW by its name. Neither
-- plans anything, for planning runs functions.
create or replace function tide.stream_view(name text, text text) returns regclass
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    probe     refcursor;
    statement text := format(E'create view tide_stream.%I as %s\n', name, text);
begin
    -- The changes of sources and the state have names without a schema. It holds until this function ends.
    perform set_config('search_path', 'pg_catalog, tide_stream, pg_temp', true);
    begin
        open probe for execute statement;
    exception when invalid_cursor_definition then
        if position('CREATE VIEW' in sqlerrm) = 0 then
            raise exception 'a statement of a stream table is more than one' using errcode = 'insufficient_privilege';
        end if;
    end;
    execute statement;
    return format('tide_stream.%I', name)::regclass;
end $$;

-- Whether a function only computes: whatever calls it, it reads and writes nothing.
create or replace function tide.stream_harmless(function oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select exists (select from pg_proc p
                    where p.oid = function and p.oid < 16384
                      and (p.provolatile = 'i'
                           or p.provolatile = 's' and (exists (select from pg_operator o where o.oprcode = p.oid)
                                                       or exists (select from pg_cast c where c.castfunc = p.oid))));
end;

-- All object ids that follow these words in a tree.
create or replace function tide.stream_tree_ids(tree text, words text) returns setof oid
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select distinct m[1]::oid from regexp_matches(tree, format(E' :(?:%s) (\\d+)', words), 'g') m where m[1]::bigint between 1 and 4294967295;
end;

-- Raises 42501 if a view of ours, of a stream table or a node of it, does what the query of the stream table does not. Changed: the
-- sources whose changes it may read.
create or replace function tide.stream_judge(id int, view regclass, changed oid[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    root    int := tide.stream_family(id);
    query   regclass := format('tide_stream.q_%s', root);
    tree    text := (select r.ev_action::text from pg_rewrite r where r.ev_class = view);
    own     text := (select string_agg(t, ' ') from tide.stream_trees(query) t);
    problem text;
begin
    with allowed as (
        select s.source as relation from tide.stream_source s where s.stream_id = root
         union select v from tide.stream_views(query) v
         union select line.relation from tide.stream line where line.stream_id = id
         union select to_regclass(format('tide_stream.n_%s', n.stream_id)) from tide.stream_node_plans(root) n
         union select to_regclass(format('tide_stream.n_%s', id))
         union select to_regclass(format('tide_stream.s_%s', id))
         union select to_regclass(format('tide_stream.d_%s', c)) from unnest(changed) c
         union select to_regclass(format('tide_stream.d_n%s', n.stream_id)) from tide.stream_node_plans(root) n
                where to_regclass(format('tide_stream.n_%s', n.stream_id)) = any (changed)
         -- On PostgreSQL 14 and 15 a view names itself.
         union select view
    ), problems as (
        select 1 as rank, format('it reads %s', r::regclass) as problem
          from tide.stream_tree_ids(tree, 'relid') r where not exists (select from allowed a where a.relation = r)
         union all
        select 2, format('it reads column %I of %s', a.attname, a.attrelid::regclass)
          from pg_rewrite r join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
          join tide.stream_source s on s.stream_id = root and s.source = d.refobjid
          join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
         where r.ev_class = view and d.refobjsubid <> all (s.columns::int[] || 0)
         union all
        select 3, 'it reads rows as a whole, or system columns' where tree ~ E'\\{VAR :varno \\d+ :varattno (0|-\\d+) '
         union all
        select 4, format('it calls %s', f::regprocedure)
          from tide.stream_tree_ids(tree, 'funcid|opfuncid|aggfnoid|winfnoid|hashfuncid|negfuncid|startInRangeFunc|endInRangeFunc') f
         where not tide.stream_harmless(f)
           and f not in (select o from tide.stream_tree_ids(own, 'funcid|opfuncid|aggfnoid|winfnoid|hashfuncid|negfuncid|startInRangeFunc|endInRangeFunc') o)
         union all
        select 5, format('it compares by %s', o::regoperator)
          from tide.stream_tree_ids(tree, 'eqop|sortop|opno') o
         where o >= 16384 and o not in (select k from tide.stream_tree_ids(own, 'eqop|sortop|opno') k)
         union all
        -- Values of a domain run its checks. Every number is looked at, for types have many names in trees.
        select 6, format('it makes values of type %s', t.oid::regtype)
          from (select distinct m[1]::numeric as number from regexp_matches(tree, E'\\m(\\d{5,10})\\M', 'g') m) n
          join pg_type t on t.oid = case when n.number <= 4294967295 then n.number::bigint::oid end and t.oid >= 16384
         where own !~ format(E'\\m%s\\M', t.oid)
           and not exists (select from tide.stream_source s join pg_attribute a on a.attrelid = s.source and a.attnum = any (s.columns)
                            where s.stream_id = root and a.atttypid = t.oid and t.typtype <> 'd')
         union all
        select 7, 'it reads the time, a user or a schema of the session'
          from tide.stream_tree_ids(tree, 'op') o
         where tree ~ format(E'SQLVALUEFUNCTION :op %s ', o) and own !~ format(E'SQLVALUEFUNCTION :op %s ', o)
         union all
        select 8, 'it locks rows' where tree ~ 'ROWMARKCLAUSE'
         union all
        select 9, 'it takes a random sample' where tree ~ 'TABLESAMPLECLAUSE'
    )
    select p.problem into problem from problems p order by p.rank, p.problem limit 1;
    if problem is not null then
        raise exception 'a statement of a stream table is refused: %, and its query does not', problem using
            errcode = 'insufficient_privilege', hint = 'Statements are derived from the query by: relay worker.';
    end if;
end $$;

-- Raises 42501 unless a view has these columns: names and types.
create or replace function tide.stream_judge_columns(view regclass, wanted text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    found_columns text[] := tide.stream_columns_of(view);
begin
    if found_columns <> wanted then
        raise exception 'a statement of a stream table has the columns %, not %', array_to_string(found_columns, ', '),
            array_to_string(wanted, ', ') using errcode = 'insufficient_privilege';
    end if;
end $$;

create or replace function tide.stream_columns_of(relation regclass) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(array_agg(format('%I %s', a.attname, format_type(a.atttypid, -1)) order by a.attnum), '{}')
      from pg_attribute a where a.attrelid = relation and a.attnum > 0 and not a.attisdropped;
end;
