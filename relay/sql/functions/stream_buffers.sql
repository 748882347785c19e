-- Buffers: tide_stream.b_<source> holds the rows that were added to a source (__w 1) or removed from it (__w -1), with the transaction
-- that did it. An update is both. Sums of weights are the same whatever came first: so there is no order and no key.
--
-- tide_stream.d_<source> stands for its net change in the statements that are kept; a refresh puts the true one in its place.

-- The columns of a buffer, and those of its source as they are now. Same: what the source holds can be stored.
create or replace function tide.stream_buffer_columns(source oid)
returns table (place int, number smallint, name name, named name, type text, typid oid, typmod int, collation_id oid, same boolean)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select c.place::int, c.number, b.attname, o.attname, format_type(b.atttypid, b.atttypmod), b.atttypid, b.atttypmod, b.attcollation,
           coalesce(not o.attisdropped and o.atttypid = b.atttypid and o.atttypmod = b.atttypmod and o.attcollation = b.attcollation, false)
      from tide.stream_buffer f
     cross join lateral unnest(f.columns) with ordinality c (number, place)
      join pg_attribute b on b.attrelid = to_regclass(format('tide_stream.b_%s', source)) and b.attnum = c.place + 2
      left join pg_attribute o on o.attrelid = stream_buffer_columns.source and o.attnum = c.number
     where f.source = stream_buffer_columns.source;
end;

-- Makes the buffer of a source, or makes it what is wanted. Columns that no one reads any more stay until the last reader leaves.
create or replace function tide.stream_buffer_make(source oid, wanted smallint[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    col  record;
    have smallint[];
begin
    if exists (select from tide.stream_buffer_columns(source) c where not c.same) then
        perform tide.stream_buffer_drop(source);
    end if;
    for col in select c.name, c.named, format('was_%s', c.place) as between from tide.stream_buffer_columns(source) c where c.name <> c.named loop
        execute format('alter table tide_stream.b_%s rename column %I to %I', source, col.name, col.between);
        execute format('alter view tide_stream.d_%s rename column %I to %I', source, col.name, col.between);
    end loop;
    -- In two steps: names may have been exchanged.
    for col in select c.name, c.named from tide.stream_buffer_columns(source) c where c.name <> c.named loop
        execute format('alter table tide_stream.b_%s rename column %I to %I', source, col.name, col.named);
        execute format('alter view tide_stream.d_%s rename column %I to %I', source, col.name, col.named);
    end loop;
    select b.columns into have from tide.stream_buffer b where b.source = stream_buffer_make.source;
    if have is null then
        execute format('create table tide_stream.b_%s (__xid xid8 not null, __w smallint not null) with (autovacuum_vacuum_scale_factor = 0,
                        autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0)', source);
        execute format('create index on tide_stream.b_%s (__xid)', source);
        insert into tide.stream_buffer (source, columns, append_only) values (stream_buffer_make.source, '{}', tide.stream_appends(source));
    end if;
    for col in select a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) as type, l.collation_name
                 from pg_attribute a
                 left join lateral (select format('collate %I.%I', n.nspname, c.collname) as collation_name
                                      from pg_collation c join pg_namespace n on n.oid = c.collnamespace where c.oid = a.attcollation) l on true
                where a.attrelid = source and a.attnum = any (wanted) and a.attnum <> all (coalesce(have, '{}')) order by a.attnum
    loop
        execute format('alter table tide_stream.b_%s add column %I %s %s', source, col.attname, col.type, col.collation_name);
        update tide.stream_buffer b set columns = b.columns || col.attnum where b.source = stream_buffer_make.source;
    end loop;
    -- A view takes more columns at its end alone.
    execute format('create or replace view tide_stream.d_%1$s as select __w::bigint as "__w"%2$s from tide_stream.b_%1$s', source,
                   (select string_agg(format(', %I', c.name), '' order by c.place) from tide.stream_buffer_columns(source) c));
end $$;

-- Ends the capture of rows. What was derived from them has to be derived again.
create or replace function tide.stream_buffer_drop(source oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    used record;
begin
    if not exists (select from tide.stream_buffer b where b.source = stream_buffer_drop.source) then
        return;
    end if;
    perform tide.stream_forget_plan(p.stream_id)
       from tide.stream_source s join tide.stream_plan p using (stream_id)
      where s.source = stream_buffer_drop.source and p.kind is not null;
    execute format('drop view tide_stream.d_%s', source);
    execute format('drop table tide_stream.b_%s', source);
    delete from tide.stream_buffer b where b.source = stream_buffer_drop.source;
    -- With their triggers, also on tables of others.
    for used in select p.oid::regprocedure as name from pg_proc p
                 where p.pronamespace = 'tide_stream'::regnamespace and p.proname ~ format('^c_%s_', source)
    loop
        execute format('drop function %s cascade', used.name);
    end loop;
end $$;

-- The names of the columns of a buffer in a table that fires for its source, as they are now; null if one cannot be stored.
create or replace function tide.stream_buffer_names(part oid, numbers smallint[], types oid[], typmods int[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select case when coalesce(bool_and(a.attnum is not null), true) then coalesce(string_agg(', ' || quote_ident(a.attname), '' order by c.place), '') end
      from unnest(numbers, types, typmods) with ordinality c (number, type, typmod, place)
      left join pg_attribute a on a.attrelid = part and a.attnum = c.number and not a.attisdropped and a.atttypid = c.type and a.atttypmod = c.typmod;
end;

-- The function that stores what a kind of statement did to a table. Its text names columns: so it looks whether they are still
-- called so, and a renamed column fails no writer. The next refresh makes it again.
create or replace function tide.stream_buffer_function(source oid, part regclass, event text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    function_name text := format('tide_stream.c_%s_%s_%s', source, part::oid, event);
    into_text text;
    names     text;
    numbers   smallint[];
    types     oid[];
    typmods   int[];
    known     text;
    rows_text text := concat_ws(' union all ', case when event <> 'insert' then 'select pg_current_xact_id(), -1 %1$s from old_rows' end,
                                               case when event <> 'delete' then 'select pg_current_xact_id(), 1 %1$s from new_rows' end);
begin
    -- A partition may have its columns in another order.
    select format('insert into tide_stream.b_%s (__xid, __w%s) ', source, coalesce(string_agg(format(', %I', c.name), '' order by c.place), '')),
           coalesce(string_agg(format(', %I', c.named), '' order by c.place), ''), coalesce(array_agg(a.attnum order by c.place), '{}'),
           coalesce(array_agg(c.typid order by c.place), '{}'), coalesce(array_agg(c.typmod order by c.place), '{}'),
           coalesce(string_agg(format('a.attnum = %s and a.attname = %L and a.atttypid = %s and a.atttypmod = %s', a.attnum, c.named, c.typid, c.typmod),
                               ' or '), 'false')
      into into_text, names, numbers, types, typmods, known
      from tide.stream_buffer_columns(source) c join pg_attribute a on a.attrelid = part and a.attname = c.named
     where c.number = any (tide.stream_key_numbers(source))
        or not exists (select from tide.stream_buffer b where b.source = stream_buffer_function.source and b.append_only);
    execute format(
        'create or replace function %s() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as %L', function_name,
        format('declare
    names text;
begin
    if (select count(*) from pg_attribute a where a.attrelid = %s and (%s)) = %s then
        %s;
    else
        names := tide.stream_buffer_names(%s, %L, %L, %L);
        if names is null then
            perform tide.stream_note(%s);
        else
            execute format(%L, names);
        end if;
    end if;
    return null;
end', part::oid, known, cardinality(numbers), into_text || format(rows_text, names),
            part::oid, numbers, types, typmods, source, replace(into_text, '%', '%%') || rows_text));
    execute format('revoke all on function %s() from public', function_name);
end $$;

-- What a source changed since a frontier: how many rows, of both signs or not, whether in this transaction too.
create or replace function tide.stream_waiting(
    source oid, frontier pg_snapshot, out waiting bigint, out both_signs boolean, out own boolean
)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    execute format(
        'select count(*), coalesce(bool_or(__w < 0) and bool_or(__w > 0), false), coalesce(bool_or(__xid = pg_current_xact_id_if_assigned()), false)
           from tide_stream.b_%s where __xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(__xid, $1)', source)
       into waiting, both_signs, own using frontier;
end $$;

-- Whether a source has captured rows that a frontier does not show. A buffer that is dropped meanwhile is waited for, and is gone then,
-- whatever this snapshot shows: a refresh will say what to do, and one that asks for many is told of the others.
create or replace function tide.stream_rows_waiting(source oid, frontier pg_snapshot) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_one boolean := false;
begin
    if exists (select from tide.stream_buffer b where b.source = stream_rows_waiting.source) then
        execute format('select exists (select from tide_stream.b_%s where __xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(__xid, $1))', source)
           into found_one using frontier;
    end if;
    return found_one;
exception when undefined_table then
    return true;
end $$;
