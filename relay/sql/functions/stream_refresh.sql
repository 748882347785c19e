-- A refresh: in one REPEATABLE READ transaction the table becomes what its query yields, and the snapshot becomes its frontier.
--
-- What changed since is what is visible now and was not at the frontier. The rows of tide.stream_change are visible with the change
-- that they tell of; a slow transaction is in progress in both snapshots, and counts in the first that shows it, however old its id is.

-- Where transaction ids mean the same.
create or replace function tide.stream_cluster() returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select c.system_identifier || '/' || d.oid from pg_control_system() c, pg_database d where d.datname = current_database();
end;

-- Whether a source has changed since a frontier.
create or replace function tide.stream_window(stream_id int, frontier pg_snapshot) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select exists (select from tide.stream_source s
                    cross join lateral (select from tide.stream_change c
                                         where c.source = s.source and c.xid >= pg_snapshot_xmin(frontier)
                                           and not pg_visible_in_snapshot(c.xid, frontier) limit 1) c
                    where s.stream_id = stream_window.stream_id);
end;

-- Why the next refresh has to compute the result; null if what is there is the result.
create or replace function tide.stream_reason(line tide.stream, state tide.stream_state) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select case
        when state.frontier is null then 'it has not been computed since it was created, resumed or restored'
        when state.cluster <> tide.stream_cluster() or pg_snapshot_xmax(state.frontier) > pg_snapshot_xmax(pg_current_snapshot())
            then 'the database is a copy'
        when line.always_reason is not null then line.always_reason
        when now.sources is null then 'a trigger that captures changes is missing or disabled'
        when now.sources is distinct from state.sources then 'the capture of its sources was changed'
        when tide.stream_window(line.stream_id, state.frontier) then 'its sources changed'
        when line.daily and (state.data_timestamp at time zone (line.settings ->> 'timezone'))::date
                         <> (clock_timestamp() at time zone (line.settings ->> 'timezone'))::date then 'a new day began' end
      from tide.stream_sources_now(line.stream_id) now (sources)
$$;

-- Of these pipelines of stream tables, those that have something to do.
create or replace function tide.stream_behind(pipelines text[]) returns setof text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select line.pipeline from tide.stream line join tide.stream_state state using (stream_id)
     where line.pipeline = any (pipelines) and tide.stream_reason(line, state) is not null
$$;

-- Before a refresh, in a transaction of its own: captures partitions that were added, if no one is in the way.
create or replace function tide.stream_prepare(pipeline text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
    line tide.stream;
begin
    select * into line from tide.stream s where s.pipeline = stream_prepare.pipeline;
    if tide.stream_sources_now(line.stream_id) is null then
        perform tide.stream_capture_source(s.source) from tide.stream_source s where s.stream_id = line.stream_id;
    end if;
exception when lock_not_available then
    null;  -- the refresh computes everything, and the next one retries
end $$;

-- Writes what differs, and nothing else. Equal rows are numbered, so that each is one of its kind: what occurs once in both
-- together has come or gone.
--
-- The search_path of the creation is for functions that the query calls. Nothing of ours is looked up by it.
create or replace function tide.stream_full(line tide.stream, out inserted bigint, out deleted bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    columns   text := (select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute a
                        where a.attrelid = format('tide_stream.q_%s', line.stream_id)::regclass and a.attnum > 0);
    statement text;
begin
    statement := format(
        'with both_ as materialized (
             select %1$s, pg_catalog.min(__ctid) as __ctid, pg_catalog.count(__ctid) as __old
               from (select %1$s, ctid as __ctid, pg_catalog.row_number() over (partition by %1$s) as __n from %2$s
                      union all
                     select %1$s, null, pg_catalog.row_number() over (partition by %1$s) from tide_stream.q_%3$s) r
              group by %1$s, __n having pg_catalog.count(*) operator(pg_catalog.=) 1),
         gone as (delete from %2$s t using both_ b
                   where b.__old operator(pg_catalog.=) 1 and t.ctid operator(pg_catalog.=) b.__ctid returning 1),
         come as (insert into %2$s (%1$s) select %1$s from both_ where __old operator(pg_catalog.=) 0 returning 1)
         select (select pg_catalog.count(*) from come), (select pg_catalog.count(*) from gone)',
        columns, line.relation, line.stream_id);
    perform set_config('tide.refreshing', line.relation::oid::text, true);
    perform set_config(s.key, s.value, true) from jsonb_each_text(line.settings - 'search_path') s;
    perform set_config('search_path', line.settings ->> 'search_path', true);
    execute statement into inserted, deleted;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    perform set_config('tide.refreshing', '', true);
end $$;

-- One refresh, in the transaction of the caller, which must be REPEATABLE READ: each statement has to see the same.
create or replace function tide.stream_refresh(pipeline text, out action text, out rows_inserted bigint, out rows_deleted bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    line    tide.stream;
    state   tide.stream_state;
    why     text;
    started timestamptz := clock_timestamp();
begin
    if current_setting('transaction_isolation') not in ('repeatable read', 'serializable') then
        raise exception 'a stream table is refreshed in a transaction that is REPEATABLE READ' using
            errcode = 'invalid_transaction_state', hint = 'begin isolation level repeatable read; or: relay stream refresh.';
    end if;
    select * into line from tide.stream s where s.pipeline = stream_refresh.pipeline;
    -- Two refreshes at once: the second fails here, and does nothing.
    select * into state from tide.stream_state s where s.stream_id = line.stream_id for update;
    why := tide.stream_reason(line, state);
    action := case when why is null then 'NO_DATA' else 'FULL' end;
    if why is not null then
        select f.inserted, f.deleted into rows_inserted, rows_deleted from tide.stream_full(line) f;
    end if;
    perform tide.stream_refreshed(line, action, why, coalesce(rows_inserted, 0), coalesce(rows_deleted, 0), started);
end $$;

create or replace function tide.stream_refreshed(
    line tide.stream, action text, why text, rows_inserted bigint, rows_deleted bigint, started timestamptz
) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    update tide.stream_state s
       set frontier = case when not line.suspended and line.tier <> 'frozen' then pg_current_snapshot() end, cluster = tide.stream_cluster(),
           sources = tide.stream_sources_now(line.stream_id), data_timestamp = transaction_timestamp(), errors = 0, last_error = null,
           refreshed_at = clock_timestamp()
     where s.stream_id = line.stream_id;
    if action <> 'NO_DATA' then
        insert into tide.stream_history (stream_id, started_at, action, reason, rows_inserted, rows_deleted, milliseconds)
        values (line.stream_id, started, action, why, rows_inserted, rows_deleted, extract(epoch from clock_timestamp() - started) * 1000);
    end if;
end $$;

-- A refresh failed. After three in a row nothing is tried any more until someone resumes it: true then.
create or replace function tide.stream_failed(pipeline text, error text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line     tide.stream;
    failures int;
begin
    select * into line from tide.stream s where s.pipeline = stream_failed.pipeline;
    update tide.stream_state s set errors = s.errors + 1, last_error = error where s.stream_id = line.stream_id
    returning errors into failures;
    insert into tide.stream_history (stream_id, started_at, action, milliseconds, error)
    values (line.stream_id, clock_timestamp(), 'FAILED', 0, error);
    if failures >= 3 and not line.suspended then
        update tide.stream s set suspended = true where s.stream_id = line.stream_id returning * into line;
        perform tide.stream_configure(line);
    end if;
    return failures >= 3;
end $$;

-- After a restore, each is computed again.
create or replace function tide.stream_forget() returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic update tide.stream_state set frontier = null where frontier is not null; end;

-- Removes what every stream table has seen, and old history. What is visible at a frontier stays so at later ones: a refresh that
-- runs meanwhile does not miss it.
create or replace function tide.stream_clean(max_rows int default 10000) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    removed int;
    sources oid[];
    hours   int := tide.setting_number('stream_history_retention_hours');
begin
    -- A stream table that is restored from a snapshot goes back meanwhile, or sees what we removed.
    lock table tide.stream_cleaned in row exclusive mode;
    with gone as (
        delete from tide.stream_change c
         using (select o.source, o.xid from tide.stream_change o
                 where not exists (select from tide.stream_source s join tide.stream line using (stream_id) join tide.stream_state f using (stream_id)
                                    where s.source = o.source and not line.suspended and line.tier <> 'frozen'
                                      and not coalesce(pg_visible_in_snapshot(o.xid, f.frontier), false))
                 limit max_rows) old
         where c.source = old.source and c.xid = old.xid returning c.source
    )
    select count(*), array_agg(distinct g.source) into removed, sources from gone g;
    perform tide.stream_note_cleaned(sources);
    if hours > 0 then
        delete from tide.stream_history h
         using (select o.refresh_id from tide.stream_history o
                 where o.started_at < clock_timestamp() - make_interval(hours => hours) order by o.refresh_id limit max_rows) old
         where h.refresh_id = old.refresh_id;
    end if;
    return removed;
end $$;
