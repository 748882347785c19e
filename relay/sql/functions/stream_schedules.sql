-- When stream tables are due, as schedulers ask.

-- Of these pipelines, the stream tables that wait for their schedule, and how long ago their last refresh began. Not those of which
-- nothing is known, nor those that someone asked for: they are refreshed at once.
create or replace function tide.stream_begun(pipelines text[]) returns table (pipeline text, seconds float8)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select line.pipeline, extract(epoch from clock_timestamp() - state.data_timestamp)::float8
      from tide.stream line join tide.stream_state state using (stream_id)
     where line.pipeline = any (pipelines) and state.frontier is not null
       and (line.asked is null or pg_visible_in_snapshot(line.asked, state.frontier));
end;
