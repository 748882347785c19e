-- A refresh: in one REPEATABLE READ transaction the table becomes what its query yields, and the snapshot becomes its frontier.
--
-- What changed since is what is visible now and was not at the frontier. The rows of tide.stream_change are visible with the change
-- that they tell of; a slow transaction is in progress in both snapshots, and counts in the first that shows it, however old its id is.

-- Where transaction ids mean the same.
create or replace function tide.stream_cluster() returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return (select c.system_identifier || '/' || d.oid from pg_control_system() c, pg_database d where d.datname = current_database());
end $$;

-- Whether a source was changed since a frontier in a way that no captured row tells.
create or replace function tide.stream_noted(stream_id int, frontier pg_snapshot) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from tide.stream_source s
                    cross join lateral (select from tide.stream_change c
                                         where c.source = s.source and c.xid >= pg_snapshot_xmin(frontier)
                                           and not pg_visible_in_snapshot(c.xid, frontier) limit 1) c
                    where s.stream_id = stream_noted.stream_id);
end $$;

-- Of these stream tables, those of which a source was changed since their frontier. One statement for each source. A buffer that is
-- dropped meanwhile is waited for, and is gone then, whatever this snapshot shows: a refresh will say what to do, and one who asks for
-- many is told of the others.
create or replace function tide.stream_changed(stream_ids int[]) returns int[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    changed int[] := array(select f.stream_id from tide.stream_state f
                            where f.stream_id = any (stream_ids) and tide.stream_noted(f.stream_id, f.frontier));
    more    int[];
    read    oid;
begin
    for read in select distinct b.source from tide.stream_source s join tide.stream_buffer b using (source) where s.stream_id = any (stream_ids) loop
        begin
            execute format('select array_agg(f.stream_id) from tide.stream_source s join tide.stream_state f using (stream_id)
                             where s.source = %1$s and s.stream_id = any ($1) and s.stream_id <> all ($2)
                               and (exists (select from tide_stream.b_%1$s
                                             where __xid >= pg_snapshot_xmin(f.frontier) and not pg_visible_in_snapshot(__xid, f.frontier))
                                    or exists (select from tide_stream.m_%1$s
                                                where __xid >= pg_snapshot_xmin(f.frontier) and not pg_visible_in_snapshot(__xid, f.frontier)))',
                           read)
               into more using stream_ids, changed;
        exception when undefined_table then
            more := array(select s.stream_id from tide.stream_source s where s.source = read and s.stream_id = any (stream_ids));
        end;
        changed := changed || more;
    end loop;
    return changed;
end $$;

-- Why the next refresh has to do something; null if what is there is the result. Capture: what the capture of its sources is like now;
-- changed: whether they were changed since its frontier.
create or replace function tide.stream_why(line tide.stream, state tide.stream_state, capture text, changed boolean) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return case
        when state.frontier is null then 'it has not been computed since it was created, resumed or restored'
        when state.cluster <> tide.stream_cluster() or pg_snapshot_xmax(state.frontier) > pg_snapshot_xmax(pg_current_snapshot())
            then 'the database is a copy'
        when tide.stream_is_immediate(line.stream_id) then tide.stream_immediate_behind(line, state)
        when line.always_reason is not null then line.always_reason
        when capture is null then 'a trigger that captures changes is missing or disabled, or a source became part of another table'
        when capture is distinct from state.sources then 'the capture of its sources was changed'
        when changed then 'its sources changed'
        when line.daily and (state.data_timestamp at time zone (line.settings ->> 'timezone'))::date
                         <> (clock_timestamp() at time zone (line.settings ->> 'timezone'))::date then 'a new day began'
        when line.refresh_mode = 'IMMEDIATE' then 'its writers do not maintain it yet' end;
end $$;

-- Why the next refresh of each of these has to do something. What they have in common is looked at once.
create or replace function tide.stream_reasons(stream_ids int[]) returns table (stream_id int, reason text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    changed int[] := tide.stream_changed(stream_ids);
begin
    return query
    select line.stream_id, tide.stream_why(line, state, c.capture, line.stream_id = any (changed))
      from tide.stream_captures(stream_ids) c join tide.stream line using (stream_id) join tide.stream_state state using (stream_id);
end $$;

-- The same, of one.
create or replace function tide.stream_reason(stream_id int) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic select r.reason from tide.stream_reasons(array[stream_reason.stream_id]) r; end;

-- Of these pipelines of stream tables, those that have something to do.
create or replace function tide.stream_behind(pipelines text[]) returns setof text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return query
    select distinct led.pipeline
      from tide.stream_led(pipelines) led
      join tide.stream_reasons(array(select (l.line).stream_id from tide.stream_led(pipelines) l)) r on r.stream_id = (led.line).stream_id
     where r.reason is not null;
end $$;

-- Before a refresh, in a transaction of its own: makes the capture of its sources what is needed, if no one is in the way. Whether the
-- query has to be analysed first, by this version. What it found in order is noted: nothing more is looked at until that differs.
create or replace function tide.stream_prepare(pipeline text, version int) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set lock_timeout = '100ms' as $$
declare
    line      tide.stream;
    unplanned boolean;
begin
    select * into line from tide.stream s where s.pipeline = stream_prepare.pipeline;
    if tide.stream_immediate_stays(line) then
        return false;
    end if;
    perform tide.stream_recover(line);
    if not tide.stream_append_broken(line.stream_id)
       and tide.stream_basis(line.stream_id, version) = (select s.prepared from tide.stream_state s where s.stream_id = line.stream_id) then
        return false;
    end if;
    line := tide.stream_read_again(line);
    unplanned := tide.stream_unplanned(line, version);
    if unplanned then
        -- Rows that were not worth capturing may be, for another version.
        delete from tide.stream_plan p where p.stream_id = line.stream_id and p.reason is not null;
    end if;
    if tide.stream_sources_now(line.stream_id) is null or tide.stream_capture_differs(line.stream_id) then
        perform tide.stream_capture_sources(line.stream_id);
    end if;
    unplanned := tide.stream_unplanned(line, version);
    if not unplanned then
        update tide.stream_state s set prepared = tide.stream_basis(line.stream_id, version) where s.stream_id = line.stream_id;
    end if;
    return unplanned;
exception when lock_not_available then
    return false;  -- the refresh computes everything, and the next one retries
end $$;

-- Writes down which tables its query reads now, and whether their changes can be captured: one may have become part of another.
create or replace function tide.stream_read_again(line tide.stream) returns tide.stream
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    sources oid[] := array(select s.source from tide.stream_source s where s.stream_id = line.stream_id);
    reason  text := tide.stream_always_reason(format('tide_stream.q_%s', line.stream_id)::regclass);
begin
    perform tide.stream_sources_read(line.stream_id);
    sources := array(select o from unnest(sources) o
                      where o not in (select s.source from tide.stream_source s where s.stream_id = line.stream_id));
    if sources <> '{}' then
        perform tide.stream_forget_plan(line.stream_id);
        perform tide.stream_capture_end(s) from unnest(sources) s;
    end if;
    if reason is distinct from line.always_reason then
        update tide.stream s set always_reason = reason where s.stream_id = line.stream_id returning * into line;
    end if;
    return line;
end $$;

-- What a prepared stream table relies on; null if some change may go unseen.
create or replace function tide.stream_basis(stream_id int, version int) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return tide.stream_sources_now(stream_id) || ' ' || tide.stream_facts(stream_id) || ' ' || concat_ws(' ', version,
                     -- Another reader of a source may be gone, or have another promise.
                     (select string_agg(tide.stream_appends(s.source)::text, ' ' order by s.source)
                        from tide.stream_source s join tide.stream line using (stream_id) join tide.stream_buffer b using (source)
                       where s.stream_id = stream_basis.stream_id and (line.append_only or b.append_only)));
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
-- sources that changed together, if no statement is kept for them. What it asks is by ids: a session plans that once, not five times.
create or replace function tide.stream_refresh(
    pipeline text, out action text, out rows_inserted bigint, out rows_updated bigint, out rows_deleted bigint, out missing oid[],
    out strategy text, out reason text
)
language plpgsql security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
    line      tide.stream;
    state     tide.stream_state;
    plan      tide.stream_plan;
    choice    tide.stream_choice;
    done      tide.stream_done;
    started   timestamptz := clock_timestamp();
    refreshed bigint;
    wrote     boolean := pg_current_xact_id_if_assigned() is not null;
begin
    select * into line from tide.stream s where s.pipeline = stream_refresh.pipeline;
    if current_setting('transaction_isolation') not in ('repeatable read', 'serializable') and not tide.stream_sources_locked(line.stream_id) then
        raise exception 'a stream table is refreshed in a transaction that is REPEATABLE READ' using
            errcode = 'invalid_transaction_state', hint = 'begin isolation level repeatable read; or: relay stream refresh.';
    end if;
    perform tide.stream_immediate_check(line);
    -- Two refreshes at once: the second fails here, and does nothing.
    select * into state from tide.stream_state s where s.stream_id = line.stream_id for update;
    if tide.stream_is_immediate(line.stream_id) then
        perform tide.stream_immediate_lock(line.stream_id, true);
    end if;
    select * into plan from tide.stream_plan p where p.stream_id = line.stream_id and p.kind is not null;
    choice := tide.stream_choose(line, state, plan, wrote and tide.stream_own(line.stream_id));
    if choice.action <> 'NO_DATA' then
        perform tide.stream_told_make(line);
    end if;
    if choice.action = 'DIFFERENTIAL' then
        begin
            done := tide.stream_follow(line, plan, choice);
            perform tide.stream_require_sound(done);
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
    if choice.large then
        perform tide.stream_deltas_drop(line.stream_id);
    end if;
    perform tide.stream_check_files(line.stream_id);
    action := choice.action;
    rows_inserted := done.inserted;
    rows_updated := done.updated;
    rows_deleted := done.deleted;
    missing := choice.missing;
    strategy := choice.strategy;
    reason := choice.reason;
    refreshed := tide.stream_refreshed(line, choice, coalesce(rows_inserted, 0), coalesce(rows_updated, 0), coalesce(rows_deleted, 0), started);
    if line.outbox_id is not null and action <> 'NO_DATA' then
        perform tide.stream_publish(line, refreshed);
    end if;
end $$;

-- The catalog is read as of our snapshot, by which changes are seen too: what was changed there since is seen by the next refresh. But
-- PostgreSQL opens tables as they are now, and one that was truncated, or written as a whole by ALTER TABLE, after our snapshot had no
-- rows for us: a source, or a buffer, to which a column of a domain was added. Raises 40001 then. What we have read is locked by now,
-- so that it stays.
create or replace function tide.stream_check_files(stream_id int) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    changed regclass := (select c.oid
                           from (select t.part::oid as read
                                   from tide.stream_source s cross join lateral tide.stream_captured(s.source) t (part) where s.stream_id = stream_check_files.stream_id
                                  union all
                                 select to_regclass('tide_stream.' || b.kind || s.source)
                                   from tide.stream_source s cross join unnest(array['b_', 'm_']) b (kind) where s.stream_id = stream_check_files.stream_id) r
                           join pg_class c on c.oid = r.read
                          where c.relkind = 'r' and pg_relation_filenode(c.oid) is distinct from c.relfilenode limit 1);
begin
    if changed is not null then
        raise exception 'table % was written as a whole while a stream table that reads it was refreshed', changed using
            errcode = 'serialization_failure', hint = 'The next refresh sees what it holds now.';
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
           cluster = tide.stream_cluster(), sources = choice.capture, data_timestamp = transaction_timestamp(),
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
