-- The statement of a refresh. Its parts are common table expressions: net changes of sources, what they change in the state of
-- aggregates, rows that have gone and come, and the writes. No two of them are joined to each other: their sizes are not known to the
-- planner, and a nested loop over two is quadratic.
--
-- It is read with a search_path that holds nothing of others: their functions and operators are never taken for PostgreSQL's.

-- The columns that tell rows from each other.
create or replace function tide.stream_key_names(line tide.stream, plan tide.stream_plan) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(plan.key, array(select a.attname::text from pg_attribute a
                                     where a.attrelid = format('tide_stream.q_%s', line.stream_id)::regclass and a.attnum > 0 order by a.attnum));
end;

-- Columns of a relation whose values can be hashed: of the others no row is found by hash, but by comparing.
create or replace function tide.stream_hashed(relation regclass, names text[]) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select array(select n.name from unnest(names) with ordinality n (name, place) join pg_attribute a on a.attrelid = relation and a.attname = n.name
                  where tide.stream_hashable(format_type(a.atttypid, a.atttypmod)) order by n.place);
end;

create or replace function tide.stream_hash_text(relation regclass, alias text, names text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when count(*) = 0 then '0::bigint'
                else format('hash_record_extended(row(%s), 0)', string_agg(format('%s%I', alias, n.name), ', ' order by n.place)) end
      from unnest(tide.stream_hashed(relation, names)) with ordinality n (name, place)
$$;

-- That two rows have equal values in these columns: nulls are equal, and every type is compared as GROUP BY does.
create or replace function tide.stream_same_text(names text[], one text, other text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select case when cardinality(names) = 0 then 'true' else (
        select format('row(%s)::record = row(%s)::record', string_agg(format('%s.%I', one, n.name), ', ' order by n.place),
                      string_agg(format('%s.%I', other, n.name), ', ' order by n.place))
          from unnest(names) with ordinality n (name, place)) end;
end;

-- The text of a kept view, in which the changes of sources and the state have names without a schema.
create or replace function tide.stream_kept_text(name text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('search_path', 'pg_catalog, tide_stream, pg_temp', true);
    return rtrim(pg_get_viewdef(format('tide_stream.%I', name)::regclass), ';');
end $$;

-- The net change of a source, from signed rows of it. Rows are summed if they are the same, not only equal: of 1.5 and 1.50 a query may
-- show the difference.
create or replace function tide.stream_delta_text(id int, source oid, exact jsonb, rows text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('select %s sum(__w)::bigint as "__w" from %s %s having sum(__w) <> 0',
                  string_agg(case when c.comparable then format('%I,', c.name) else format('(array_agg(%1$I))[1] as %1$I,', c.name) end, ' ' order by c.place),
                  rows,
                  'group by ' || coalesce(nullif(concat_ws(', ',
                      string_agg(format('%I', c.name), ', ' order by c.place) filter (where c.comparable),
                      'record_send(row(' || string_agg(format('%I', c.name), ', ' order by c.place) filter (where not c.plain) || '))'), ''), '()'))
      from (select b.place, b.name,
                   t.typname in ('int2', 'int4', 'int8', 'oid', 'bool', 'uuid', 'date', 'time', 'timestamp', 'timestamptz', 'bytea', 'name')
                   or t.typtype = 'e' or t.typname in ('text', 'varchar') and coalesce(l.collisdeterministic, true)
                   or t.typname = 'numeric' and not coalesce(exact -> source::text ? b.name::text, false) as plain,
                   t.typtype <> 'b' or t.typcategory = 'A'
                   or exists (select from pg_opclass o where o.opcintype in (t.oid, case when t.typname = 'varchar' then 25 end) and o.opcdefault) as comparable
              from tide.stream_buffer_columns(source) b
              join tide.stream_source s on s.stream_id = id and s.source = stream_delta_text.source and b.number = any (s.columns)
              join pg_type d on d.oid = b.typid join pg_type t on t.oid = case when d.typtype = 'd' then d.typbasetype else d.oid end
              left join pg_collation l on l.oid = b.collation_id) c
$$;

-- The net change of a source since a frontier, which is $1. Arrays: whether some are in arrays.
create or replace function tide.stream_net_text(id int, source oid, exact jsonb, arrays boolean) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select tide.stream_delta_text(id, source, exact, case when arrays then
               format('(select __w%2$s from tide_stream.b_%1$s where __xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(__xid, $1)
                         union all
                        select m.__w%3$s from tide_stream.m_%1$s m cross join lateral unnest(m.__rows) r
                         where m.__xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(m.__xid, $1)) w', source, c.names, c.names_of_r)
               else format('tide_stream.b_%s where __xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(__xid, $1)', source) end)
      from (select string_agg(format(', %I', b.name), '' order by b.place) as names, string_agg(format(', r.%I', b.name), '' order by b.place) as names_of_r
              from tide.stream_buffer_columns(source) b
              join tide.stream_source s on s.stream_id = id and s.source = stream_net_text.source and b.number = any (s.columns)) c
$$;

-- What the state was and becomes: both_ has a row for each group. Whole: as computed from the sources; else the kept statement says what changes.
create or replace function tide.stream_state_text(id int, plan tide.stream_plan, changes text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    state    regclass := format('tide_stream.s_%s', id);
    ks       text[] := array(select format('k%s', k) from generate_series(0, plan.groups - 1) k);
    vs       text[] := array(select a.attname::text from pg_attribute a where a.attrelid = state and a.attnum > 1 + plan.groups order by a.attnum);
    keys     text := (select coalesce(string_agg(k || ', ', ''), '') from unnest(ks) k);
    hash     text := tide.stream_hash_text(state, '', ks);
    found_by text := format('s.__h = b.__h and %s', tide.stream_same_text(ks, 's', 'b'));
    there    text := case when plan.groups > 0 then 'b.n_n > 0' else 'true' end;
begin
    return case when changes is null then
        format('both_ as materialized (
            select %1$s as __h, %2$sbool_or(old) as had%3$s
              from (select false as old, f.* from (%7$s) f union all select true, %2$s%5$s from tide_stream.s_%4$s) r %6$s)',
            hash, keys,
            (select string_agg(format(', coalesce(max(%1$s) filter (where old), 0) as o_%1$s, coalesce(max(%1$s) filter (where not old), 0) as n_%1$s', v), '') from unnest(vs) v),
            id, array_to_string(vs, ', '), case when plan.groups > 0 then 'group by ' || array_to_string(ks, ', ') else '' end,
            tide.stream_kept_text(format('f_%s', id)))
        else
        format('changes_ as materialized (select %1$s as __h, r.* from (%2$s) r where %3$s),
        both_ as materialized (
            select b.__h, %4$ss.__h is not null as had%5$s from changes_ b left join tide_stream.s_%6$s s on %7$s)',
            hash, changes, (select string_agg(format('%s <> 0', v), ' or ') from unnest(vs) v),
            (select coalesce(string_agg(format('b.%s, ', k), ''), '') from unnest(ks) k),
            (select string_agg(format(', coalesce(s.%1$s, 0) as o_%1$s, coalesce(s.%1$s, 0) + b.%1$s as n_%1$s', v), '') from unnest(vs) v),
            id, found_by)
        end
        || format(',
        state_updated_ as (update tide_stream.s_%1$s s set %2$s from both_ b
                            where b.had and %3$s and row(%4$s) is distinct from row(%5$s) and %6$s),
        state_inserted_ as (insert into tide_stream.s_%1$s (__h, %7$s%8$s) select b.__h, %7$s%5$s from both_ b where not b.had and %3$s),
        state_deleted_ as (delete from tide_stream.s_%1$s s using both_ b where b.had and not %3$s and %6$s),
        old_ as materialized (with s_%1$s as (select b.__h, %7$s%9$s from both_ b where b.had) %11$s),
        new_ as materialized (with s_%1$s as (select b.__h, %7$s%10$s from both_ b where %3$s) %11$s)',
        id, (select string_agg(format('%1$s = b.n_%1$s', v), ', ') from unnest(vs) v), there,
        (select string_agg('b.o_' || v, ', ') from unnest(vs) v), (select string_agg('b.n_' || v, ', ') from unnest(vs) v), found_by,
        keys, array_to_string(vs, ', '), (select string_agg(format('b.o_%1$s as %1$s', v), ', ') from unnest(vs) v),
        (select string_agg(format('b.n_%1$s as %1$s', v), ', ') from unnest(vs) v), tide.stream_kept_text(format('o_%s', id)));
end $$;

-- Whether the state cannot be added to: it holds NaN or Infinity, or counts below zero, which no right state does.
create or replace function tide.stream_unsound_text(id int, groups int) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('exists (select from both_ where %s)', string_agg(
        case when starts_with(a.attname, 's') then format('o_%1$s in (%2$s) or n_%1$s in (%2$s)', a.attname, '''NaN'', ''Infinity'', ''-Infinity''')
             else format('n_%s < 0', a.attname) end, ' or '))
      from pg_attribute a where a.attrelid = format('tide_stream.s_%s', id)::regclass and a.attnum > 1 + groups
$$;

-- The writes, from signed rows (the columns of the table, and "__w") that do not have to be net. gone and came hold the net change when
-- all is done. A row of which only columns outside the key changed is updated: pairs are found by counting, not by joining.
create or replace function tide.stream_write_text(line tide.stream, plan tide.stream_plan, signed text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    names  text[] := tide.stream_key_names(line, null);
    keys   text[] := tide.stream_key_names(line, plan);
    cols   text := (select string_agg(format('%I', n), ', ') from unnest(names) n);
    others text := (select string_agg(format('%1$I = p.%1$I', n), ', ') from unnest(names) n where n <> all (keys));
    hash   text := tide.stream_hash_text(line.relation, '', keys);
    same   text := format('%s = p.__h and %s', tide.stream_hash_text(line.relation, 't.', keys), tide.stream_same_text(keys, 't', 'p'));
    net    text := format('net_ as materialized (select %1$s, sum("__w")::bigint as "__w" from (%2$s) r group by %1$s having sum("__w") <> 0),
        gone as materialized (select %1$s, -"__w" as __times from net_ where "__w" < 0),
        came as materialized (select %1$s, "__w" as __times from net_ where "__w" > 0)', cols, signed);
begin
    if plan.key is null then
        return net || format(',
        deleted_ as (delete from %1$s where ctid = any (array(
            select f.__found from (select t.ctid as __found, p.__times, row_number() over (partition by p.__h, %5$s) as __number
                                   from (select %2$s as __h, g.* from gone g) p join %1$s t on %3$s) f where f.__number <= f.__times)) returning 1),
        updated_ as (select 1 where false),
        inserted_ as (insert into %1$s (%4$s) select %4$s from came, generate_series(1, __times) where (select count(*) from deleted_) >= 0 returning 1)',
            line.relation, hash, same, cols, (select string_agg(format('p.%I', n), ', ') from unnest(names) n));
    end if;
    return net || format(',
        pairs_ as materialized (
            select p.*, count(*) over (partition by p.__h%1$s) as __both
              from (select 1 as __sign, %2$s as __h, c.* from came c union all select -1, %2$s, g.* from gone g) p),
        deleted_ as (delete from %3$s t using pairs_ p where p.__sign = -1 and p.__both = 1 and %4$s returning 1),
        updated_ as (%5$s),
        inserted_ as (insert into %3$s (%6$s) select %6$s from pairs_ where __sign = 1 and __both = 1 and (select count(*) from updated_) >= 0 returning 1)',
        (select coalesce(string_agg(format(', p.%I', k), ''), '') from unnest(keys) k), hash, line.relation, same,
        case when others is null then 'select 1 where false' else
            format('update %s t set %s from pairs_ p where p.__sign = 1 and p.__both = 2 and (select count(*) from deleted_) >= 0 and %s returning 1',
                   line.relation, others, same) end, cols);
end $$;
