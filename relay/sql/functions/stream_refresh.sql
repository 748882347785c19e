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

-- Whether a source was changed since a frontier in a way that no captured row tells.
create or replace function tide.stream_noted(stream_id int, frontier pg_snapshot) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select exists (select from tide.stream_source s
                    cross join lateral (select from tide.stream_change c
                                         where c.source = s.source and c.xid >= pg_snapshot_xmin(frontier)
                                           and not pg_visible_in_snapshot(c.xid, frontier) limit 1) c
                    where s.stream_id = stream_noted.stream_id);
end;

-- Whether a source was changed since a frontier.
create or replace function tide.stream_window(stream_id int, frontier pg_snapshot) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select tide.stream_noted(stream_id, frontier)
           or exists (select from tide.stream_source s where s.stream_id = stream_window.stream_id and tide.stream_rows_waiting(s.source, frontier));
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
    select distinct led.pipeline
      from tide.stream_led(pipelines) led join tide.stream_state state on state.stream_id = (led.line).stream_id
     where tide.stream_reason(led.line, state) is not null
$$;

-- Before a refresh, in a transaction of its own: makes the capture of its sources what is needed, if no one is in the way. Whether the
-- query has to be analysed first, by this version.
create or replace function tide.stream_prepare(pipeline text, version int) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
    line      tide.stream;
    unplanned boolean;
begin
    select * into line from tide.stream s where s.pipeline = stream_prepare.pipeline;
    perform tide.stream_recover(line);
    perform tide.stream_sources_read(line.stream_id);
    perform tide.stream_append_broken(line.stream_id);
    unplanned := tide.stream_unplanned(line, version);
    if unplanned then
        -- Rows that were not worth capturing may be, for another version.
        delete from tide.stream_plan p where p.stream_id = line.stream_id and p.reason is not null;
    end if;
    if tide.stream_sources_now(line.stream_id) is null or tide.stream_capture_differs(line.stream_id) then
        perform tide.stream_capture_source(s.source) from tide.stream_source s where s.stream_id = line.stream_id;
    end if;
    return tide.stream_unplanned(line, version);
exception when lock_not_available then
    return false;  -- the refresh computes everything, and the next one retries
end $$;

-- Whether the capture of the sources of a stream table is not what their stream tables need.
create or replace function tide.stream_capture_differs(id int) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select exists (select from tide.stream_source s join tide.stream line using (stream_id) left join tide.stream_buffer b using (source)
                    where s.stream_id = id
                      and (tide.stream_wants_rows(line) and not s.columns <@ coalesce(b.columns, '{}')
                           or b.source is not null and (tide.stream_wanted(s.source) is null or b.append_only <> tide.stream_appends(s.source))
                           or exists (select from tide.stream_buffer_columns(s.source) c where not c.same or c.name <> c.named)));
end;

-- One refresh, in the transaction of the caller, which must be REPEATABLE READ: each statement has to see the same. Missing: the
-- sources that changed together, if no statement is kept for them.
create or replace function tide.stream_refresh(
    pipeline text, out action text, out rows_inserted bigint, out rows_updated bigint, out rows_deleted bigint, out missing oid[]
)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    line      tide.stream;
    state     tide.stream_state;
    plan      tide.stream_plan;
    choice    tide.stream_choice;
    done      tide.stream_done;
    started   timestamptz := clock_timestamp();
    refreshed bigint;
begin
    if current_setting('transaction_isolation') not in ('repeatable read', 'serializable') then
        raise exception 'a stream table is refreshed in a transaction that is REPEATABLE READ' using
            errcode = 'invalid_transaction_state', hint = 'begin isolation level repeatable read; or: relay stream refresh.';
    end if;
    select * into line from tide.stream s where s.pipeline = stream_refresh.pipeline;
    -- Two refreshes at once: the second fails here, and does nothing.
    select * into state from tide.stream_state s where s.stream_id = line.stream_id for update;
    select * into plan from tide.stream_plan p where p.stream_id = line.stream_id and p.kind is not null;
    choice := tide.stream_choose(line, state, plan);
    if choice.action <> 'NO_DATA' then
        perform tide.stream_told_make(line);
    end if;
    if choice.action = 'DIFFERENTIAL' then
        begin
            done := tide.stream_differential(line, plan, choice);
            if done.unsound then
                raise data_exception using message = 'a sum is NaN or infinite, or a count is below zero';
            elsif done.gone <> done.updated + done.deleted or done.came <> done.updated + done.inserted then
                raise data_exception using message = 'the table did not hold the rows that were to be changed';
            end if;
        exception when data_exception or undefined_function or undefined_table or undefined_column then
            -- It met a value that the query does not, or what is kept was replaced since this snapshot.
            choice.action := 'FULL';
            choice.strategy := 'full';
            choice.reason := 'the incremental refresh failed: ' || sqlerrm;
        end;
    end if;
    if choice.action = 'FULL' then
        done := tide.stream_full_checked(line, case when choice.planned then plan end);
    end if;
    perform tide.stream_deltas_drop(line.stream_id);
    action := choice.action;
    rows_inserted := done.inserted;
    rows_updated := done.updated;
    rows_deleted := done.deleted;
    missing := choice.missing;
    refreshed := tide.stream_refreshed(line, choice, coalesce(rows_inserted, 0), coalesce(rows_updated, 0), coalesce(rows_deleted, 0), started);
    if line.outbox_id is not null and action <> 'NO_DATA' then
        perform tide.stream_publish(line, refreshed);
    end if;
end $$;

-- Writes down what a refresh did; its number in the history, if it did anything.
create or replace function tide.stream_refreshed(
    line tide.stream, choice tide.stream_choice, rows_inserted bigint, rows_updated bigint, rows_deleted bigint, started timestamptz
) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    refreshed bigint;
begin
    -- What this transaction itself changed in the sources is not visible in its snapshot, but was read: no frontier tells that, unless
    -- it can change no more there.
    update tide.stream_state s
       set frontier = case when not line.suspended and line.tier <> 'frozen' and not choice.own then tide.stream_frontier(line.stream_id) end,
           cluster = tide.stream_cluster(), sources = tide.stream_sources_now(line.stream_id), data_timestamp = transaction_timestamp(),
           errors = 0, last_error = null, refreshed_at = clock_timestamp()
     where s.stream_id = line.stream_id;
    if choice.action <> 'NO_DATA' then
        insert into tide.stream_history (stream_id, started_at, action, strategy, reason, source_rows, rows_inserted, rows_updated, rows_deleted,
                                         milliseconds)
        values (line.stream_id, started, choice.action, choice.strategy, choice.reason, choice.source_rows, rows_inserted, rows_updated, rows_deleted,
                extract(epoch from clock_timestamp() - started) * 1000)
        returning refresh_id into refreshed;
    end if;
    return refreshed;
end $$;

-- A refresh failed. After some in a row nothing is tried any more until someone resumes it: true then.
create or replace function tide.stream_failed(pipeline text, error text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line       tide.stream;
    failures   int;
    most       int := tide.setting_number('stream_max_consecutive_errors');
    is_too_bad boolean;
begin
    select * into line from tide.stream s where s.pipeline = stream_failed.pipeline;
    update tide.stream_state s set errors = s.errors + 1, last_error = error where s.stream_id = line.stream_id
    returning errors into failures;
    insert into tide.stream_history (stream_id, started_at, action, milliseconds, error)
    values (line.stream_id, clock_timestamp(), 'FAILED', 0, error);
    is_too_bad := most > 0 and failures >= most;
    if is_too_bad and not line.suspended then
        update tide.stream s set suspended = true where s.stream_id = line.stream_id returning * into line;
        perform tide.stream_configure(line);
    end if;
    return is_too_bad;
end $$;

-- After a restore, each is computed again.
create or replace function tide.stream_forget() returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic update tide.stream_state set frontier = null where frontier is not null; end;
