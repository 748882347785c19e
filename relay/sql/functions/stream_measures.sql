-- What schedulers measure of stream tables.

-- Of so many stream tables after the pipeline of one: whether it may differ from its query (null: nothing is meant to refresh it), the time
-- of what it shows, how many refreshes in a row PostgreSQL refused, and its schedule.
create or replace function tide.stream_numbers(after_pipeline text default '', max_streams int default null) returns table (
    pipeline text, is_behind boolean, shown_at timestamptz, failures int, interval_seconds float8, cron text, time_zone text, now timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select line.pipeline,
           case when not line.suspended and line.tier <> 'frozen' then reasons.reason is not null end,
           coalesce(state.data_timestamp, line.created_at), state.errors,
           (p.config ->> 'poll_interval_ms')::float8 / 1000, p.config ->> 'cron', p.config ->> 'time_zone', clock_timestamp()
      from tide.stream_reasons(array(select s.stream_id from tide.stream s where s.pipeline > after_pipeline
                                      order by s.pipeline limit max_streams)) reasons
      join tide.stream line using (stream_id)
      join tide.stream_state state using (stream_id)
      join tide.pipeline p on p.name = line.pipeline
     order by 1
$$;
comment on function tide.stream_numbers is 'What schedulers measure of stream tables, so many at a time: how stale each is, and whether its refreshes fail.';
