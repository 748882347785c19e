-- Sources of which rows are only ever added, as every stream table that follows them says (append_only): the trigger of INSERT stores the
-- key alone, and a refresh takes the rows from the source itself.
--
-- An UPDATE, a DELETE or a TRUNCATE that touches a row is noted instead. Where there is a note, a refresh computes everything: so a
-- promise that was broken costs time and no rows. Then the source is captured as any other.

-- Whether the rows of a source are captured by key.
create or replace function tide.stream_appends(source oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(bool_and(line.append_only), false) and tide.stream_key_numbers(stream_appends.source) is not null
      from tide.stream_source s join tide.stream line using (stream_id)
     where s.source = stream_appends.source and tide.stream_wants_rows(line);
end;

-- The rows that were added since a frontier, which is $1: as they are now, for none was changed.
create or replace function tide.stream_appended_text(id int, source oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('select %s, 1::bigint as "__w" from %s
                    where (%s) in (select %3$s from tide_stream.b_%s where __xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(__xid, $1))',
                  string_agg(format('%I', a.attname), ', ' order by a.attnum), stream_appended_text.source::regclass,
                  string_agg(format('%I', a.attname), ', ' order by a.attnum) filter (where a.attnum = any (tide.stream_key_numbers(s.source))),
                  stream_appended_text.source)
      from tide.stream_source s join pg_attribute a on a.attrelid = s.source and a.attnum = any (s.columns)
     where s.stream_id = id and s.source = stream_appended_text.source
$$;

-- Before a refresh: whether the promise was broken for one of its sources. If so, no stream table of that source goes by it any more.
create or replace function tide.stream_append_broken(id int) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    broken record;
    found_any boolean := false;
begin
    for broken in
        select b.source from tide.stream_source s join tide.stream_buffer b using (source) join tide.stream_state state using (stream_id)
         where s.stream_id = id and b.append_only
           and exists (select from tide.stream_change c where c.source = b.source and c.xid >= pg_snapshot_xmin(state.frontier)
                                                          and not pg_visible_in_snapshot(c.xid, state.frontier))
    loop
        found_any := true;
        update tide.stream line
           set append_only = false,
               append_broken = format('rows of %s were changed or removed, as was seen at %s', broken.source::regclass, date_trunc('second', clock_timestamp()))
          from tide.stream_source s
         where s.source = broken.source and s.stream_id = line.stream_id and line.append_only;
        raise warning 'rows of % were changed or removed: append_only is switched off for the stream tables that read it', broken.source::regclass;
    end loop;
    return found_any;
end $$;
