-- Buffers: tide_stream.b_<source> holds the rows that were added to a source (__w 1) or removed from it (__w -1), with the transaction
-- that did it. An update is both. Sums of weights are the same whatever came first: so there is no order and no key.
--
-- What a statement did to many rows is in tide_stream.m_<source> instead, in arrays of t_<source>: one row and one entry of an index for
-- 1,000. Most of what capture costs a writer is the entry of the index for each row, more than the row.
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

-- Whether the buffer of a source has all that stream tables want, under the names of now; null if there is none.
create or replace function tide.stream_buffer_serves(source oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select tide.stream_wanted(source) <@ b.columns and b.append_only = tide.stream_appends(source)
           and not exists (select from tide.stream_buffer_columns(source) c where not c.same or c.name <> c.named)
      from tide.stream_buffer b where b.source = stream_buffer_serves.source;
end;

-- Makes the capture of all sources of a stream table what is needed. Refreshes read buffers in an order of their own, so what is
-- changed of several is locked before anything of it is: who then waits in a circle with a refresh lets go of all, and begins again.
create or replace function tide.stream_capture_sources(stream_id int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    sources oid[] := array(select s.source from tide.stream_source s where s.stream_id = stream_capture_sources.stream_id order by s.source);
    views   text := (select string_agg(format('tide_stream.d_%s', s), ', ') from unnest(sources) s
                      where not tide.stream_buffer_serves(s) and to_regclass(format('tide_stream.d_%s', s)) is not null);
begin
    if views is not null then
        for attempt in 1 .. 10 loop
            begin
                execute format('lock table %s in access exclusive mode', views);  -- and the tables below
                exit;
            exception when deadlock_detected then
                if attempt = 10 then
                    raise;
                end if;
            end;
        end loop;
    end if;
    perform tide.stream_capture_source(s) from unnest(sources) s;
end $$;

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
        execute format('alter type tide_stream.t_%s rename attribute %I to %I', source, col.name, col.between);
    end loop;
    -- In two steps: names may have been exchanged.
    delete from tide.stream_text t using tide.stream_source s
     where s.source = stream_buffer_make.source and t.stream_id = s.stream_id
       and exists (select from tide.stream_buffer_columns(stream_buffer_make.source) c where c.name <> c.named);
    for col in select c.name, c.named from tide.stream_buffer_columns(source) c where c.name <> c.named loop
        execute format('alter table tide_stream.b_%s rename column %I to %I', source, col.name, col.named);
        execute format('alter view tide_stream.d_%s rename column %I to %I', source, col.name, col.named);
        execute format('alter type tide_stream.t_%s rename attribute %I to %I', source, col.name, col.named);
    end loop;
    select b.columns into have from tide.stream_buffer b where b.source = stream_buffer_make.source;
    if have is null then
        execute format('create table tide_stream.b_%s (__xid xid8 not null, __w smallint not null) with (autovacuum_vacuum_scale_factor = 0,
                        autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false)', source);
        execute format('create index on tide_stream.b_%s (__xid)', source);
        execute format('create type tide_stream.t_%s as ()', source);
        execute format('create table tide_stream.m_%1$s (__xid xid8 not null, __w smallint not null, __n int not null, __rows tide_stream.t_%1$s[] not null)
                        with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_cost_delay = 0,
                              vacuum_truncate = false, toast.vacuum_truncate = false)', source);
        -- Not compressed: they are read and removed soon.
        execute format('alter table tide_stream.m_%s alter __rows set storage external', source);
        execute format('create index on tide_stream.m_%s (__xid)', source);
        insert into tide.stream_buffer (source, columns, append_only) values (stream_buffer_make.source, '{}', tide.stream_appends(source));
    end if;
    for col in select a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) as type, l.collation_name
                 from pg_attribute a
                 left join lateral (select format('collate %I.%I', n.nspname, c.collname) as collation_name
                                      from pg_collation c join pg_namespace n on n.oid = c.collnamespace where c.oid = a.attcollation) l on true
                where a.attrelid = source and a.attnum = any (wanted) and a.attnum <> all (coalesce(have, '{}')) order by a.attnum
    loop
        execute format('alter table tide_stream.b_%s add column %I %s %s', source, col.attname, col.type, col.collation_name);
        execute format('alter type tide_stream.t_%s add attribute %I %s %s', source, col.attname, col.type, col.collation_name);
        update tide.stream_buffer b set columns = b.columns || col.attnum where b.source = stream_buffer_make.source;
    end loop;
    -- A view takes more columns at its end alone.
    execute format('create or replace view tide_stream.d_%1$s as select b.__w::bigint as "__w"%2$s from tide_stream.b_%1$s b
                    union all select m.__w::bigint%3$s from tide_stream.m_%1$s m cross join lateral unnest(m.__rows) r', source,
                   (select string_agg(format(', b.%I', c.name), '' order by c.place) from tide.stream_buffer_columns(source) c),
                   (select string_agg(format(', r.%I', c.name), '' order by c.place) from tide.stream_buffer_columns(source) c));
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
    -- All that look there, as in tide.stream_forget_plan; in their order, before anything is locked that they read.
    update tide.stream_state f set prepared = null
      from (select state.stream_id from tide.stream_state state
             where state.stream_id in (select s.stream_id from tide.stream_source s where s.source = stream_buffer_drop.source)
             order by state.stream_id for update) reader
     where f.stream_id = reader.stream_id;
    perform tide.stream_forget_plan(p.stream_id)
       from tide.stream_source s join tide.stream_plan p using (stream_id)
      where s.source = stream_buffer_drop.source and p.kind is not null;
    execute format('drop view tide_stream.d_%s', source);
    execute format('drop table tide_stream.m_%1$s, tide_stream.b_%1$s', source);
    execute format('drop type tide_stream.t_%s', source);
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
--
-- Up to 20 rows are stored one by one; more in arrays, cut from the transition table a thousand at a time, which costs less than to count
-- rows: from 10,000 on they are counted, since each cut passes over what was cut before. Arrays are of rows that are all small: those of a
-- table that has stored no large value, or that are measured. So no array comes near what PostgreSQL can hold, whatever was compressed.
--
-- Its variables are named as no column is.
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
    small     text;
    appends   boolean := exists (select from tide.stream_buffer b where b.source = stream_buffer_function.source and b.append_only);
    -- An UPDATE may have fewer new ones, if a trigger refuses what is moved to another partition.
    changed   text := case event when 'insert' then 'new_rows' else 'old_rows' end;
    signs     text[] := case event when 'insert' then array['1 %1$s from new_rows'] when 'delete' then array['-1 %1$s from old_rows']
                                   else array['-1 %1$s from old_rows', '1 %1$s from new_rows'] end;
    rows_text text := (select string_agg(format('select pg_current_xact_id(), %s %%2$s', s), ' union all ') from unnest(signs) s);
    cut_text  text := (select string_agg(format(
                           'select pg_current_xact_id(), %s, cardinality(a.__rows), a.__rows
                  from (select array(select row(%%s)::tide_stream.t_%s from (select * from %s offset __cut limit 1000) r) as __rows offset 0) a',
                           split_part(s, ' ', 1), source, split_part(s, ' from ', 2)), ' union all ') from unnest(signs) s);
    rest_text text := (select string_agg(format(
                           'select pg_current_xact_id(), %s, count(*), array_agg(r.__row)
                  from (select row(%%s)::tide_stream.t_%s as __row, (row_number() over () - 1) / 1000 as __part from %s offset __cut) r group by r.__part',
                           split_part(s, ' ', 1), source, split_part(s, ' from ', 2)), ' union all ') from unnest(signs) s);
begin
    -- A partition may have its columns in another order.
    select format('insert into tide_stream.b_%s (__xid, __w%s) ', source, coalesce(string_agg(format(', %I', c.name), '' order by c.place), '')),
           coalesce(string_agg(format(', %I', c.named), '' order by c.place), ''), coalesce(array_agg(a.attnum order by c.place), '{}'),
           coalesce(array_agg(c.typid order by c.place), '{}'), coalesce(array_agg(c.typmod order by c.place), '{}'),
           coalesce(string_agg(format('a.attnum = %s and a.attname = %L and a.atttypid = %s and a.atttypmod = %s', a.attnum, c.named, c.typid, c.typmod),
                               ' or '), 'false'),
           case when bool_or(a.attlen < 0) then
               format('(select c.relkind = ''r'' and coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0) = 0 from pg_class c where c.oid = tg_relid)
               or (select max(%s) < 2000 from %s)',
                      string_agg(format('coalesce(pg_column_size(%I), 0)', c.named), ' + ' order by c.place) filter (where a.attlen < 0),
                      case event when 'insert' then 'new_rows' when 'delete' then 'old_rows' else '(table old_rows union all table new_rows) r' end)
           else 'true' end
      into into_text, names, numbers, types, typmods, known, small
      from tide.stream_buffer_columns(source) c join pg_attribute a on a.attrelid = part and a.attname = c.named
     where c.number = any (tide.stream_key_numbers(source)) or not appends;
    -- Rows in arrays have all columns.
    small := case when appends then 'false' else small end;
    execute format(
        'create or replace function %s() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as %L', function_name,
        format('declare
    __names text;
    __cut   int := 0;
begin
    if (select count(*) from pg_attribute a where a.attrelid = %s and (%s)) <> %s then
        __names := tide.stream_buffer_names(%s, %L, %L, %L);
        if __names is null then
            perform tide.stream_note(%s);
        else
            execute format(%L, __names, null);
        end if;
    elsif exists (select from %s offset 20) and (%s) then
        loop
            insert into tide_stream.m_%s (__xid, __w, __n, __rows)
            %s;
            __cut := __cut + 1000;
            exit when not exists (select from %s offset __cut);
            if __cut = 10000 then
                insert into tide_stream.m_%s (__xid, __w, __n, __rows)
                %s;
                exit;
            end if;
        end loop;
    else
        %s;
    end if;
    return null;
end', part::oid, known, cardinality(numbers), part::oid, numbers, types, typmods, source, replace(into_text, '%', '%%') || rows_text,
            changed, small, source, replace(cut_text, '%s', substr(names, 3)), changed, source, replace(rest_text, '%s', substr(names, 3)),
            into_text || format(rows_text, names, '')));
    execute format('revoke all on function %s() from public', function_name);
end $$;

-- What was captured of the sources of a stream table since a frontier: of each that has changed, how many rows, whether of both signs,
-- and whether in arrays too. One statement looks at all of them.
create or replace function tide.stream_waiting(
    stream_id int, frontier pg_snapshot, out sources oid[], out waiting bigint[], out both_signs boolean[], out arrays boolean[]
)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    looks text := (select string_agg(format(
                              'select %1$s::oid as source, count(*) as waiting, bool_or(__w < 0) as minus, bool_or(__w > 0) as plus, false as arrays
                                 from tide_stream.b_%1$s where __xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(__xid, $1)
                               union all
                               select %1$s, coalesce(sum(__n), 0), bool_or(__w < 0), bool_or(__w > 0), true
                                 from tide_stream.m_%1$s where __xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(__xid, $1)',
                              b.source), ' union all ')
                     from tide.stream_source s join tide.stream_buffer b using (source) where s.stream_id = stream_waiting.stream_id);
begin
    if looks is not null then
        execute format('select array_agg(source order by source), array_agg(waiting order by source), array_agg(minus and plus order by source),
                               array_agg(arrays order by source)
                          from (select source, sum(waiting)::bigint as waiting, bool_or(minus) as minus, bool_or(plus) as plus, bool_or(arrays) as arrays
                                  from (%s) l where waiting > 0 group by source) s', looks)
           into sources, waiting, both_signs, arrays using frontier;
    end if;
end $$;
