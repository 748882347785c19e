-- The statements by which writers maintain a stream table: those of a refresh, over the rows of one statement of theirs.

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
