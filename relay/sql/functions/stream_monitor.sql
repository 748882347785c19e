-- How stream tables are, by the names that users of pg_trickle know. The history of refreshes is read once for all of them.

create or replace function tide.pgt_status() returns table (
    name text, status text, refresh_mode text, is_populated boolean, consecutive_errors int, schedule text, data_timestamp timestamptz,
    staleness interval, effective_mode text, tier text, behind text
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select s.name, s.status, s.refresh_mode, s.is_populated, s.consecutive_errors, s.schedule, s.data_timestamp,
           make_interval(secs => s.staleness_seconds), s.effective_mode, s.tier, s.behind
      from tide.stream_tables() s
$$;
comment on function tide.pgt_status is 'The stream tables, with the columns that users of pg_trickle know first. Staleness is 0 where one equals its query.';

create or replace function tide.refresh_history(name text, max_rows int default 20) returns table (
    refresh_id bigint, start_time timestamptz, end_time timestamptz, action text, status text, strategy text, reason text,
    source_rows bigint, rows_inserted bigint, rows_updated bigint, rows_deleted bigint, duration_ms float8, error_message text
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select h.refresh_id, h.started_at, h.started_at + make_interval(secs => h.milliseconds / 1000), h.action,
           case h.action when 'FAILED' then 'FAILED' else 'COMPLETED' end, h.strategy, h.reason, h.source_rows, h.rows_inserted,
           h.rows_updated, h.rows_deleted, h.milliseconds, h.error
      from tide.stream_history h
     where h.stream_id = (tide.find_stream(name)).stream_id
     order by h.refresh_id desc
     limit max_rows
$$;
comment on function tide.refresh_history is 'The last refreshes of a stream table, the newest first. Those that found nothing to do have no row.';

-- What a reader could have seen at worst, just before a refresh ended: rows of the refresh before, as old as its snapshot.
create or replace function tide.latency_percentiles(name text default null) returns table (
    pgt_schema text, pgt_name text, refreshes bigint, p50_ms float8, p95_ms float8, p99_ms float8,
    p50_staleness_seconds float8, p95_staleness_seconds float8, p99_staleness_seconds float8
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    with ended as materialized (
        select h.stream_id, h.milliseconds,
               extract(epoch from h.started_at - lag(h.started_at) over (partition by h.stream_id order by h.refresh_id))
                   + h.milliseconds / 1000 as age
          from tide.stream_history h
         where h.action <> 'FAILED' and h.stream_id = any (tide.streams_named(latency_percentiles.name))
    ), found as (
        select e.stream_id, count(*) as refreshes, percentile_cont(array[0.5, 0.95, 0.99]) within group (order by e.milliseconds) as ms,
               percentile_cont(array[0.5, 0.95, 0.99]) within group (order by e.age::float8) as ages
          from ended e group by e.stream_id
    )
    select n.nspname::text, c.relname::text, f.refreshes, f.ms[1], f.ms[2], f.ms[3], f.ages[1], f.ages[2], f.ages[3]
      from found f join tide.stream line using (stream_id) join pg_class c on c.oid = line.relation
      join pg_namespace n on n.oid = c.relnamespace
     order by 1, 2
$$;
comment on function tide.latency_percentiles is
    'How long refreshes took, and how old the rows were at most that each replaced. The latter says little where sources rest for long.';

-- How many changes of a source are visible that were not at a frontier: rows, and transactions of which only that is noted.
create or replace function tide.stream_pending(source oid, frontier pg_snapshot) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    pending bigint := (select count(*) from tide.stream_change c
                        where c.source = stream_pending.source and c.xid >= pg_snapshot_xmin(frontier) and not pg_visible_in_snapshot(c.xid, frontier));
    buffered bigint := 0;
begin
    if exists (select from tide.stream_buffer b where b.source = stream_pending.source) then
        execute format('select (select count(*) from tide_stream.b_%1$s where __xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(__xid, $1))
                               + (select coalesce(sum(__n), 0) from tide_stream.m_%1$s where __xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(__xid, $1))',
                       source)
           into buffered using frontier;
    end if;
    return pending + buffered;
end $$;

-- Null where everything will be computed: then nothing waits for it.
create or replace function tide.change_buffer_sizes() returns table (
    stream_table text, source_table text, source_oid bigint, cdc_mode text, pending_rows bigint, buffer_bytes bigint
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select line.name, s.source::regclass::text, s.source::bigint, 'trigger',
           case when tide.stream_is_immediate(line.stream_id) then 0 when f.frontier is not null then tide.stream_pending(s.source, f.frontier) end,
           coalesce(pg_total_relation_size(to_regclass(format('tide_stream.b_%s', s.source)))
                    + pg_total_relation_size(to_regclass(format('tide_stream.m_%s', s.source))), pg_total_relation_size('tide.stream_change'))
      from tide.stream line join tide.stream_source s using (stream_id) join tide.stream_state f using (stream_id)
     order by 1, 2
$$;
comment on function tide.change_buffer_sizes is
    'For each stream table and source, the changes that its next refresh looks at, and the size of the table that holds them.';

create or replace view tide.pgt_stream_tables as
select line.stream_id as pgt_id, line.relation::oid as pgt_relid, c.relname::text as pgt_name, n.nspname::text as pgt_schema,
       line.query as defining_query, s.schedule, s.refresh_mode, s.effective_mode, s.tier, s.status, s.is_populated, s.data_timestamp,
       state.frontier, state.refreshed_at as last_refresh_at, s.consecutive_errors, s.last_error as last_error_message, line.created_at
  from tide.stream_tables() s join tide.stream line using (stream_id) join tide.stream_state state using (stream_id)
  join pg_class c on c.oid = line.relation join pg_namespace n on n.oid = c.relnamespace;
comment on view tide.pgt_stream_tables is 'The stream tables: pgt_schema and pgt_name as the catalog has them, without quotes.';

create or replace view tide.stream_tables_info as
select t.*, s.staleness, s.behind as reason, b.buffer_rows
  from tide.pgt_stream_tables t join tide.stream line on line.stream_id = t.pgt_id join tide.pgt_status() s on s.name = line.name
  left join (select z.stream_table, sum(z.pending_rows)::bigint as buffer_rows from tide.change_buffer_sizes() z group by 1) b
         on b.stream_table = line.name;
comment on view tide.stream_tables_info is 'The same, with how stale each is, why it is behind, and how many changes its next refresh looks at.';

-- One row for each check: OK, WARN or ERROR.
create or replace function tide.health_check() returns table (check_name text, severity text, detail text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    with lines as materialized (select * from tide.stream_tables()),
    fleet as (
        select (select count(*) from tide.scheduler s where s.seen_at > clock_timestamp() - interval '60 seconds') as schedulers,
               (select count(*) from tide.process p where p.kind = 'workers' and 'tide.streams' = any (p.queues)
                                                      and p.seen_at > clock_timestamp() - interval '60 seconds') as workers,
               exists (select from lines) as needed
    ), checks (number, name, bad, found, fine) as (
        select 1, 'scheduler_running', 'ERROR', case when needed and schedulers = 0 then 'no scheduler has given a sign of life for 60 s' end,
               format('schedulers: %s', schedulers) from fleet
         union all
        select 2, 'worker_running', 'ERROR', case when needed and workers = 0 then 'no workers of queue tide.streams have given one for 60 s' end,
               format('worker processes: %s', workers) from fleet
         union all
        select 3, 'error_tables', 'ERROR', string_agg(format('%s: %s', l.name, l.status), ', ' order by l.name), 'no refresh failed'
          from lines l where l.status in ('ERROR', 'SUSPENDED')
         union all
        select 4, 'stale_tables', 'WARN', string_agg(format('%s: %s', l.name, l.behind), ', ' order by l.name),
               'none is behind while nothing refreshes it'
          from lines l cross join fleet f
         where l.behind is not null and (l.consecutive_errors > 0 or least(f.schedulers, f.workers) = 0 or l.status = 'SUSPENDED' or l.tier = 'frozen')
         union all
        select 5, 'needs_reinit', 'WARN', string_agg(l.name, ', ' order by l.name), 'all changes are captured'
          from lines l where tide.stream_sources_now(l.stream_id) is null and not tide.stream_is_immediate(l.stream_id)
         union all
        select 6, 'consecutive_errors', 'WARN', string_agg(format('%s: %s', l.name, l.consecutive_errors), ', ' order by l.name), 'none'
          from lines l where l.consecutive_errors > 0
         union all
        select 7, 'buffer_growth', 'WARN', string_agg(format('%s: %s of %s', b.stream_table, b.pending_rows, b.source_table), ', '),
               'at most 10000 changes wait for a refresh'
          from tide.change_buffer_sizes() b where b.pending_rows > 10000
    )
    select c.name, case when c.found is null then 'OK' else c.bad end, coalesce(c.found, c.fine) from checks c order by c.number
$$;
comment on function tide.health_check is 'What may be wrong with stream tables and with the fleet that refreshes them: one row for each check.';
