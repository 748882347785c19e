-- Waiting until a stream table shows what was written before: for scripts.

-- Whether a frontier shows everything that was visible in a snapshot.
create or replace function tide.stream_covers(frontier pg_snapshot, since pg_snapshot) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select pg_snapshot_xmax(frontier) >= pg_snapshot_xmax(since)
           and not exists (select from pg_snapshot_xip(frontier) x where x < pg_snapshot_xmax(since) and pg_visible_in_snapshot(x, since));
end;

-- Whether one shows everything of a snapshot; raises why it never will.
create or replace function tide.stream_shows(stream_id int, since pg_snapshot) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    line   tide.stream;
    state  tide.stream_state;
    reason text;
begin
    select * into line from tide.stream s where s.stream_id = stream_shows.stream_id;
    if not found then
        raise exception 'the stream table was dropped' using errcode = 'undefined_object';
    end if;
    select * into state from tide.stream_state s where s.stream_id = stream_shows.stream_id;
    if tide.stream_reason(line.stream_id) is null or line.refresh_mode <> 'IMMEDIATE' and state.cluster = tide.stream_cluster() and tide.stream_covers(state.frontier, since) then
        return true;
    end if;
    select p.invalid_reason into reason from tide.pipeline p where p.name = tide.stream_led_by(line);
    if line.suspended or line.tier = 'frozen' or reason is not null then
        raise exception 'stream table "%" is not refreshed: %', line.name,
            coalesce(reason, case when line.tier = 'frozen' then 'it is frozen' else 'it is suspended' || coalesce(': ' || state.last_error, '') end) using
            errcode = 'object_not_in_prerequisite_state', hint = 'Set another tier or schedule, or resume it: select tide.resume_stream_table(name).';
    end if;
    return false;
end $$;

-- Those that it reads first: what they show must be there before it can show it.
create or replace function tide.wait_for_stream_table(name text, timeout interval default '1 minute') returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line       tide.stream := tide.find_stream(name);
    one        int;
    since      pg_snapshot;
    until      timestamptz := clock_timestamp() + coalesce(timeout, '1 minute');
    pause      float8;
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'a transaction that is % does not see what becomes of a stream table', upper(current_setting('transaction_isolation')) using
            errcode = 'invalid_transaction_state', hint = 'Wait in a transaction that is READ COMMITTED; or refresh it in this one.';
    elsif pg_current_xact_id_if_assigned() is not null then
        raise exception 'no refresh sees what this transaction has written' using
            errcode = 'invalid_transaction_state', hint = 'Commit first, and wait in a later statement.';
    end if;
    foreach one in array array(select a.stream_id from (select a.stream_id from tide.stream_above(line.stream_id) a union select line.stream_id) a
                                order by (select count(*) from tide.stream_above(a.stream_id)))
    loop
        since := pg_current_snapshot();
        pause := 0.005;
        while not tide.stream_shows(one, since) loop
            if clock_timestamp() >= until then
                raise exception 'stream table "%" does not show yet what was written before', (select s.name from tide.stream s where s.stream_id = one) using
                    errcode = 'query_canceled', detail = format('It was waited for %s.', timeout),
                    hint = 'Look why: select name, status, schedule, behind, last_error from tide.stream_tables();';
            end if;
            perform pg_sleep(least(pause, greatest(0, extract(epoch from until - clock_timestamp()))));
            pause := least(0.1, pause * 1.5);
        end loop;
    end loop;
end $$;
comment on function tide.wait_for_stream_table is
    'Waits until a stream table, and those that it reads, show everything that was committed before the call.';
