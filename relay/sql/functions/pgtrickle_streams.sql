-- Stream tables by the names of pg_trickle, as in pgtrickle.sql.

-- Monitoring ----------------------------------------------------------------------------------------------------------

create or replace function pgtrickle.pgt_status() returns table (
    name text, status text, refresh_mode text, is_populated boolean, consecutive_errors int, schedule text, data_timestamp timestamptz,
    staleness interval, effective_mode text, tier text, behind text
)
language sql stable
begin atomic select * from tide.pgt_status(); end;

create or replace function pgtrickle.refresh_history(name text, max_rows int default 20) returns table (
    refresh_id bigint, start_time timestamptz, end_time timestamptz, action text, status text, strategy text, reason text,
    source_rows bigint, rows_inserted bigint, rows_updated bigint, rows_deleted bigint, duration_ms float8, error_message text
)
language sql stable
begin atomic select * from tide.refresh_history(name, max_rows); end;

create or replace function pgtrickle.get_refresh_history(name text, max_rows int default 20) returns table (
    refresh_id bigint, start_time timestamptz, end_time timestamptz, action text, status text, strategy text, reason text,
    source_rows bigint, rows_inserted bigint, rows_updated bigint, rows_deleted bigint, duration_ms float8, error_message text
)
language sql stable
begin atomic select * from tide.refresh_history(name, max_rows); end;

create or replace function pgtrickle.latency_percentiles(name text default null) returns table (
    pgt_schema text, pgt_name text, refreshes bigint, p50_ms float8, p95_ms float8, p99_ms float8,
    p50_staleness_seconds float8, p95_staleness_seconds float8, p99_staleness_seconds float8
)
language sql stable
begin atomic select * from tide.latency_percentiles(name); end;

create or replace function pgtrickle.change_buffer_sizes() returns table (
    stream_table text, source_table text, source_oid bigint, cdc_mode text, pending_rows bigint, buffer_bytes bigint
)
language sql stable
begin atomic select * from tide.change_buffer_sizes(); end;

create or replace function pgtrickle.health_check() returns table (check_name text, severity text, detail text)
language sql stable
begin atomic select * from tide.health_check(); end;

create or replace function pgtrickle.refresh_efficiency() returns table (
    pgt_schema text, pgt_name text, refresh_mode text, total_refreshes bigint, diff_count bigint, full_count bigint,
    avg_diff_ms float8, avg_full_ms float8, avg_change_ratio float8, diff_speedup text, last_refresh_at timestamptz
)
language sql stable
begin atomic select * from tide.refresh_efficiency(); end;

create or replace function pgtrickle.recommend_refresh_mode(st_name text default null) returns table (
    pgt_schema text, pgt_name text, current_mode text, effective_mode text, recommended_mode text, confidence text, reason text, signals jsonb
)
language sql stable
begin atomic select * from tide.recommend_refresh_mode(st_name); end;

create or replace function pgtrickle.explain_refresh_mode(name text) returns table (
    configured_mode text, effective_mode text, downgrade_reason text, strategies jsonb, changes jsonb
)
language sql stable
begin atomic select * from tide.explain_refresh_mode(name); end;

create or replace function pgtrickle.dependency_tree() returns table (
    tree_line text, node text, node_type text, depth int, status text, refresh_mode text
)
language sql stable
begin atomic select * from tide.dependency_tree(); end;

create or replace function pgtrickle.diamond_groups() returns table (
    group_id int, member_name text, member_schema text, is_convergence boolean, refresh_group text, schedule_policy text, led_by text
)
language sql stable
begin atomic select * from tide.diamond_groups(); end;

create or replace function pgtrickle.export_definition(st_name text) returns text
language sql stable
begin atomic select tide.export_definition(st_name); end;

create or replace view pgtrickle.pgt_stream_tables as select * from tide.pgt_stream_tables;

create or replace view pgtrickle.stream_tables_info as select * from tide.stream_tables_info;

-- Creating, changing and dropping -------------------------------------------------------------------------------------

-- Refuses what is not built; what is taken and has no effect is named in the documentation.
create or replace function pgtrickle.stream_options(cdc_mode text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(lower(cdc_mode), 'trigger') not in ('auto', 'trigger') then
        raise exception 'cdc_mode % does not exist', quote_literal(cdc_mode) using
            errcode = 'feature_not_supported', hint = 'Changes are captured by triggers: give ''trigger'', or leave it out.';
    end if;
end $$;

-- Names in the query are looked up as in the session of the caller: nothing here has a search_path of its own.
create or replace function pgtrickle.create_stream_table(
    name text, query text, schedule text default null, refresh_mode text default 'AUTO', initialize boolean default true,
    diamond_consistency text default 'atomic', cdc_mode text default null, append_only boolean default false,
    pooler_compatibility_mode boolean default false, tier text default 'hot', schedule_seconds int default null, refresh_group text default null
) returns void
language sql
begin atomic
    select pgtrickle.stream_options(cdc_mode);
    select tide.create_stream_table(name, query, schedule, refresh_mode, initialize, diamond_consistency, append_only, pooler_compatibility_mode,
                                    tier, schedule_seconds, refresh_group);
end;
comment on function pgtrickle.create_stream_table is
    'Creates a table that is kept equal to a query. pooler_compatibility_mode is taken and not needed.';

create or replace function pgtrickle.alter_stream_table(
    name text, query text default null, schedule text default null, refresh_mode text default null, status text default null,
    diamond_consistency text default null, cdc_mode text default null, append_only boolean default null,
    pooler_compatibility_mode boolean default null, tier text default null, schedule_seconds int default null, refresh_group text default null
) returns void
language sql
begin atomic
    select pgtrickle.stream_options(cdc_mode);
    select tide.alter_stream_table(name, query, schedule, refresh_mode, tier, status, append_only, diamond_consistency, pooler_compatibility_mode,
                                   schedule_seconds, refresh_group);
end;

create or replace function pgtrickle.create_stream_table_if_not_exists(
    name text, query text, schedule text default null, refresh_mode text default 'AUTO', initialize boolean default true,
    diamond_consistency text default 'atomic', cdc_mode text default null, append_only boolean default false,
    pooler_compatibility_mode boolean default false, tier text default 'hot', schedule_seconds int default null, refresh_group text default null
) returns void
language sql
begin atomic
    select pgtrickle.stream_options(cdc_mode);
    select tide.create_stream_table_if_not_exists(name, query, schedule, refresh_mode, initialize, diamond_consistency, append_only,
                                                  pooler_compatibility_mode, tier, schedule_seconds, refresh_group);
end;

create or replace function pgtrickle.create_or_replace_stream_table(
    name text, query text, schedule text default null, refresh_mode text default 'AUTO', initialize boolean default true,
    diamond_consistency text default 'atomic', cdc_mode text default null, append_only boolean default false,
    pooler_compatibility_mode boolean default false, tier text default 'hot', schedule_seconds int default null, refresh_group text default null
) returns void
language sql
begin atomic
    select pgtrickle.stream_options(cdc_mode);
    select tide.create_or_replace_stream_table(name, query, schedule, refresh_mode, initialize, diamond_consistency, append_only,
                                               pooler_compatibility_mode, tier, schedule_seconds, refresh_group);
end;

create or replace function pgtrickle.drop_stream_table(name text, if_exists boolean default false) returns void
language sql
begin atomic select tide.drop_stream_table(name, if_exists); end;

create or replace function pgtrickle.refresh_stream_table(name text) returns void
language sql
begin atomic select tide.refresh_stream_table(name); end;

create or replace function pgtrickle.resume_stream_table(name text) returns void
language sql
begin atomic select tide.resume_stream_table(name); end;

create or replace function pgtrickle.wait_for_stream_table(name text, timeout interval default '1 minute') returns void
language sql
begin atomic select tide.wait_for_stream_table(name, timeout); end;

-- Snapshots -----------------------------------------------------------------------------------------------------------

create or replace function pgtrickle.snapshot_stream_table(name text, target text) returns text
language sql
begin atomic select tide.snapshot_stream_table(name, target); end;

create or replace function pgtrickle.restore_from_snapshot(name text, source text) returns text
language sql
begin atomic select tide.restore_from_snapshot(name, source); end;

create or replace function pgtrickle.list_snapshots(name text default null) returns table (
    snapshot_table text, created_at timestamptz, row_count bigint, frontier text, size_bytes bigint, stream_table text, data_timestamp timestamptz
)
language sql stable
begin atomic select * from tide.list_snapshots(name); end;

create or replace function pgtrickle.drop_snapshot(snapshot_table text) returns void
language sql
begin atomic select tide.drop_snapshot(snapshot_table); end;
