-- After a restore of the schema tide alone, tide_stream and all in it is missing: the views of queries, buffers, plans. What they are made
-- of is in tide.stream, so they are made again, and everything is computed once.

-- Makes the view of a query again, if it is missing. Of another role it is read from its text, and run by what its owner gives again.
create or replace function tide.stream_recover(line tide.stream) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    view text := format('tide_stream.q_%s', line.stream_id);
begin
    if to_regclass(view) is not null then
        return;
    elsif line.runner is not null then
        raise exception 'the query of stream table "%" is missing', line.name using
            errcode = 'undefined_table', hint = format('Have the owner create it again: select tide.drop_stream_table(%L); and create_stream_table.', line.name);
    end if;
    if to_regnamespace('tide_stream') is null then
        create schema tide_stream;
    end if;
    perform tide.stream_define(view, line.name, line.query, line.settings ->> 'search_path');
    perform set_config('search_path', 'pg_catalog, pg_temp', true);
    delete from tide.stream_plan p where p.stream_id = line.stream_id;
    delete from tide.stream_buffer b where to_regclass(format('tide_stream.b_%s', b.source)) is null;
    update tide.stream_state s set frontier = null where s.stream_id = line.stream_id;
end $$;
