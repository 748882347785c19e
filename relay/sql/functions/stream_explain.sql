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

create or replace function tide.stream_nodes(name text) returns table (
    place int, relation text, kind text, reads text[], strategies text[], is_populated boolean, rows_estimate bigint, table_bytes bigint,
    state_bytes bigint, query text
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select row_number() over (order by p.stream_id = p.family, p.stream_id)::int, c.oid::regclass::text, p.kind,
           array(select r.oid::regclass::text from unnest(p.reads) r (oid) order by 1),
           array(select distinct s.strategy from tide.stream_statement s where s.stream_id = p.stream_id order by 1),
           itself.filled and state.data_timestamp is not null,
           -- As the planner estimates: by the density of the last ANALYZE or VACUUM, and the size of now.
           case when c.reltuples >= 0
                then round(c.reltuples / greatest(c.relpages, 1) * pg_relation_size(c.oid) / current_setting('block_size')::int)::bigint end,
           pg_total_relation_size(c.oid), pg_total_relation_size(to_regclass(format('tide_stream.s_%s', p.stream_id))),
           rtrim(pg_get_viewdef(to_regclass(format('tide_stream.q_%s', p.stream_id))), ';')
      from tide.stream_plan itself join tide.stream line using (stream_id) join tide.stream_state state using (stream_id)
      join tide.stream_plan p on p.family = itself.stream_id
      join pg_class c on c.oid = case when p.stream_id = itself.stream_id then line.relation else to_regclass(format('tide_stream.n_%s', p.stream_id)) end
     where itself.stream_id = (tide.find_stream(stream_nodes.name)).stream_id and itself.reason is null
     order by 1
$$;
comment on function tide.stream_nodes is
    'The hidden tables of a stream table, each with its size, in the order of their refreshes; the last row is the stream table itself.';
