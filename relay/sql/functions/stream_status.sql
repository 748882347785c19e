-- How stream tables are, and refreshing one now.

-- The ids of all, or of the one of that name.
create or replace function tide.streams_named(name text) returns int[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select case when name is null then array(select s.stream_id from tide.stream s) else array[(tide.find_stream(name)).stream_id] end;
end;

create or replace function tide.stream_tables() returns table (
    name text, status text, schedule text, refresh_mode text, effective_mode text, tier text, is_populated boolean, behind text,
    data_timestamp timestamptz, staleness_seconds float8, consecutive_errors int, last_error text, stream_id int, why_full text,
    outbox text, refreshed_with text[], append_broken text
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select line.name,
           case when line.suspended then 'SUSPENDED' when state.errors > 0 or p.invalid_reason is not null then 'ERROR'
                when state.data_timestamp is null or line.refresh_mode = 'IMMEDIATE' and not writers.maintain then 'INITIALIZING' else 'ACTIVE' end,
           line.schedule, line.refresh_mode, case when writers.maintain then 'IMMEDIATE' when whole.reason is null then 'DIFFERENTIAL' else 'FULL' end,
           line.tier, state.data_timestamp is not null, why.reason,
           case when writers.maintain and why.reason is null then clock_timestamp() else state.data_timestamp end,
           case when why.reason is null then 0 else extract(epoch from clock_timestamp() - state.data_timestamp)::float8 end,
           state.errors, coalesce(p.invalid_reason, state.last_error), line.stream_id, case when not writers.maintain then whole.reason end,
           (select o.name from tide.outbox o where o.outbox_id = line.outbox_id),
           array(select m.name from tide.stream m where m.pipeline = any (tide.stream_members(line)) and m.stream_id <> line.stream_id order by m.name), line.append_broken
      from tide.stream line join tide.stream_state state using (stream_id) join tide.pipeline p on p.name = tide.stream_led_by(line)
      join tide.stream_reasons(tide.streams_named(null)) why using (stream_id)
     cross join lateral nullif(tide.stream_why_full(line), '') whole (reason)
     cross join lateral tide.stream_is_immediate(line.stream_id) writers (maintain)
     order by line.name
$$;
comment on function tide.stream_tables is
    'The stream tables, and why one is behind its query; null: it is equal to it. Staleness is 0 then. Why_full: why a refresh computes it all; null: it does not have to. Refreshed_with: the others of its group.';

-- Asks for a refresh of it and its group: by the fleet, at once; or, in a REPEATABLE READ transaction, here and now.
create or replace function tide.refresh_stream_table(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line    tide.stream := tide.find_stream(name);
    leader  text := tide.stream_led_by(line);
    members text[] := tide.stream_members(line);
    member  text;
begin
    perform tide.stream_require_mine(line, 'tide.relay_enable(text)');
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        perform tide.stream_lock(members);
        foreach member in array members loop
            perform tide.stream_refresh(member);
        end loop;
        -- As the end of a drain does: others follow it.
        perform pg_notify('tide_relay_drain', leader);
    elsif line.suspended or line.tier = 'frozen' then
        raise exception 'stream table "%" is %', line.name, case when line.suspended then 'suspended' else 'frozen' end using
            errcode = 'object_not_in_prerequisite_state',
            hint = case when line.suspended then format('Resume it: select tide.resume_stream_table(%L).', line.name)
                        else 'Refresh it in a transaction: begin isolation level repeatable read.' end;
    else
        update tide.stream s set asked = pg_current_xact_id() where s.stream_id = line.stream_id;
        update tide.pipeline p set revision = nextval('tide.revisions'), updated_at = now() where p.name = leader;
        update tide.drain d set retry_at = null where d.pipeline = leader;
        perform pg_notify('tide_relay_config', leader);
    end if;
end $$;
comment on function tide.refresh_stream_table is
    'Has the fleet refresh a stream table and its group now; in a transaction that is REPEATABLE READ it is refreshed within it.';
