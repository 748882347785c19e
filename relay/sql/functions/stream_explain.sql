-- How stream tables are refreshed.

create or replace function tide.refresh_strategies(name text) returns table (changed text[], strategy text, reason text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select array(select u.source::regclass::text from unnest(s.sources) u (source) order by 1), s.strategy, s.reason
      from tide.stream_statement s
     where s.stream_id = (tide.find_stream(refresh_strategies.name)).stream_id
     order by cardinality(s.sources), 1
$$;
comment on function tide.refresh_strategies is
    'How a stream table is refreshed after these tables changed together: for each alone, and for each set that has changed so far.';
