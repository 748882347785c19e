-- What the history of refreshes says about the refresh mode.

-- One pass over the history of these. Rows of a source are those that ANALYZE counted, of a partitioned table those of its parts.
create or replace function tide.stream_measured(stream_ids int[]) returns table (
    stream_id int, diff_count bigint, full_count bigint, avg_diff_ms float8, avg_full_ms float8, diff_ms float8, full_ms float8,
    change_ratio float8, source_rows float8, last_refresh_at timestamptz
)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with sizes as (
        select s.stream_id, sum(greatest(c.reltuples, 0))::float8 as source_rows
          from tide.stream_source s cross join lateral tide.stream_captured(s.source) part join pg_class c on c.oid = part and c.relkind <> 'p'
         where s.stream_id = any (stream_ids) group by s.stream_id
    ), history as (
        select h.stream_id, count(*) filter (where h.action = 'DIFFERENTIAL') as diff_count, count(*) filter (where h.action = 'FULL') as full_count,
               avg(h.milliseconds) filter (where h.action = 'DIFFERENTIAL') as avg_diff_ms,
               avg(h.milliseconds) filter (where h.action = 'FULL') as avg_full_ms,
               percentile_cont(0.5) within group (order by h.milliseconds) filter (where h.action = 'DIFFERENTIAL') as diff_ms,
               percentile_cont(0.5) within group (order by h.milliseconds) filter (where h.action = 'FULL') as full_ms,
               avg(h.source_rows)::float8 as changed_rows, max(h.started_at + make_interval(secs => h.milliseconds / 1000)) as last_refresh_at
          from tide.stream_history h
         where h.stream_id = any (stream_ids) and h.action <> 'FAILED' group by h.stream_id
    )
    select line.stream_id, coalesce(h.diff_count, 0), coalesce(h.full_count, 0), h.avg_diff_ms, h.avg_full_ms, h.diff_ms, h.full_ms,
           h.changed_rows / nullif(z.source_rows, 0), z.source_rows, h.last_refresh_at
      from unnest(stream_ids) line (stream_id) left join history h using (stream_id) left join sizes z using (stream_id)
$$;

create or replace function tide.refresh_efficiency() returns table (
    pgt_schema text, pgt_name text, refresh_mode text, total_refreshes bigint, diff_count bigint, full_count bigint,
    avg_diff_ms float8, avg_full_ms float8, avg_change_ratio float8, diff_speedup text, last_refresh_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select n.nspname::text, c.relname::text, line.refresh_mode, m.diff_count + m.full_count, m.diff_count, m.full_count,
           m.avg_diff_ms, m.avg_full_ms, m.change_ratio, round((m.avg_full_ms / nullif(m.avg_diff_ms, 0))::numeric, 1) || 'x', m.last_refresh_at
      from tide.stream line join tide.stream_measured(tide.streams_named(null)) m using (stream_id)
      join pg_class c on c.oid = line.relation join pg_namespace n on n.oid = c.relnamespace
     order by 1, 2
$$;
comment on function tide.refresh_efficiency is
    'What the refreshes in the history cost: diff_speedup is the average of the full ones by that of the incremental ones.';

-- Which mode is the better one; null: neither is, or it is not known.
create or replace function tide.stream_verdict(
    always_reason text, diff_count bigint, full_count bigint, diff_ms float8, full_ms float8, change_ratio float8, out mode text, out why text
)
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case
               when always_reason is not null then 'FULL'
               when least(diff_count, full_count) >= 5
                   then case when full_ms >= 1.2 * diff_ms then 'DIFFERENTIAL' when diff_ms >= 1.2 * full_ms then 'FULL' end
               when diff_count >= 5 then case when change_ratio < 0.05 then 'DIFFERENTIAL' when change_ratio > 0.5 then 'FULL' end
           end,
           case
               when always_reason is not null then always_reason
               when least(diff_count, full_count) >= 5
                   then format('the median of %s incremental refreshes is %s ms, that of %s full ones %s ms',
                               diff_count, round(diff_ms::numeric, 1), full_count, round(full_ms::numeric, 1))
               when diff_count >= 5 and change_ratio is not null
                   then format('%s %% of the rows of its sources change between two refreshes', round((100 * change_ratio)::numeric, 2))
               else format('too little is known: the history has %s incremental refreshes and %s full ones', diff_count, full_count)
           end
$$;

-- Columns by which the query of a stream table joins its sources, without an index that begins with one: whatever changed, all of that
-- table is read. Those of small tables are, by any plan. The primary key of a partitioned table is an index of each part.
create or replace function tide.stream_unindexed(stream_id int) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(
        select format('%s (%I)', s.source::regclass, a.attname)
          from tide.stream_plan p join tide.stream_source s using (stream_id)
         cross join lateral jsonb_array_elements_text(p.joins -> s.source::text) j (number)
          join pg_attribute a on a.attrelid = s.source and a.attnum = j.number::smallint and not a.attisdropped
         where p.stream_id = stream_unindexed.stream_id and tide.stream_rows_of(s.source) >= 1000
           and not exists (select from pg_index i where i.indrelid = s.source and i.indisvalid and i.indpred is null and i.indkey[0] = a.attnum)
         order by s.source, a.attnum)
$$;

create or replace function tide.recommend_refresh_mode(name text default null) returns table (
    pgt_schema text, pgt_name text, current_mode text, effective_mode text, recommended_mode text, confidence text, reason text, signals jsonb
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select n.nspname::text, c.relname::text, s.refresh_mode, s.effective_mode,
           case when v.mode is null or s.refresh_mode = 'IMMEDIATE' or v.mode = case s.refresh_mode when 'AUTO' then s.effective_mode else s.refresh_mode end then 'KEEP' else v.mode end,
           case when line.always_reason is not null or least(m.diff_count, m.full_count) >= 20 then 'high'
                when least(m.diff_count, m.full_count) >= 5 then 'medium' else 'low' end,
           v.why || coalesce('; no index begins with ' || nullif(array_to_string(u.columns, ', '), ''), ''),
           jsonb_build_object('diff_count', m.diff_count, 'full_count', m.full_count, 'diff_ms', m.diff_ms, 'full_ms', m.full_ms,
                              'change_ratio', m.change_ratio, 'source_rows', m.source_rows, 'target_rows', nullif(c.reltuples, -1),
                              'missing_indexes', to_jsonb(u.columns))
      from tide.stream_measured(tide.streams_named(recommend_refresh_mode.name)) m join tide.stream line using (stream_id)
      join tide.stream_tables() s using (stream_id)
      join pg_class c on c.oid = line.relation join pg_namespace n on n.oid = c.relnamespace
     cross join lateral tide.stream_verdict(line.always_reason, m.diff_count, m.full_count, m.diff_ms, m.full_ms, m.change_ratio) v
     cross join lateral tide.stream_unindexed(line.stream_id) u (columns)
     order by 1, 2
$$;
comment on function tide.recommend_refresh_mode is
    'Whether another refresh mode would be cheaper (DIFFERENTIAL, FULL, KEEP), how sure that is, why, and what it was judged by. Names indexes that joins lack.';

create or replace function tide.explain_refresh_mode(name text) returns table (
    configured_mode text, effective_mode text, downgrade_reason text, strategies jsonb, changes jsonb
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    with mine as materialized (
        select h.* from tide.stream_history h
         where h.stream_id = (tide.find_stream(explain_refresh_mode.name)).stream_id and h.action in ('DIFFERENTIAL', 'FULL')
    )
    select s.refresh_mode, s.effective_mode,
           case when s.refresh_mode = 'IMMEDIATE' and s.effective_mode <> 'IMMEDIATE' then coalesce(tide.stream_immediate_reason(line), s.behind)
                when s.effective_mode <> 'DIFFERENTIAL' and s.refresh_mode in ('AUTO', 'DIFFERENTIAL')
                then coalesce(s.why_full, line.always_reason, (select h.reason from mine h where h.action = 'FULL' order by h.refresh_id desc limit 1),
                              'it has not been computed yet') end,
           coalesce((select jsonb_object_agg(u.strategy, u.refreshes)
                       from (select coalesce(h.strategy, lower(h.action)) as strategy, count(*) as refreshes from mine h group by 1) u), '{}'),
           coalesce((select jsonb_agg(jsonb_build_object('sources', o.names, 'strategy', w.strategy, 'reason', w.reason) order by cardinality(w.sources), o.names)
                       from tide.stream_statement w
                      cross join lateral (select array_agg(u::regclass::text order by u::regclass::text) as names from unnest(w.sources) u) o
                      where w.stream_id = line.stream_id), '[]')
      from tide.stream line join tide.stream_tables() s using (stream_id)
     where line.stream_id = (tide.find_stream(explain_refresh_mode.name)).stream_id
$$;
comment on function tide.explain_refresh_mode is
    'The mode that was asked for, the one in use, why it is no better one, how often each strategy was used, and by which one each set of sources is followed.';
