-- When stream tables are due: what is chosen, and what schedulers ask.

-- Whether a schedule is meant as a cron expression.
create or replace function tide.stream_is_cron(schedule text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select btrim(schedule) ~ '^@' or btrim(schedule) ~ E'^(\\S+\\s+){4,5}\\S+$' and lower(schedule) !~ E'^\\s*(\\d+(ms|s|m|h|d)\\s*)+$';
end;

-- Refuses what is certainly none. A scheduler reads the rest, and says on the pipeline what is wrong.
create or replace function tide.stream_check_cron(schedule text, time_zone text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    fields text[] := regexp_split_to_array(btrim(schedule), E'\\s+');
    shift  int := 6 - cardinality(fields);
    wrong  text;
begin
    if schedule ~ '@' then
        wrong := case when lower(btrim(schedule)) <> all (array['@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually'])
                      then 'there is no ' || btrim(schedule) end;
    else
        select format('%s cannot be %s', kind.name, quote_literal(f.field)) into wrong
          from unnest(fields) with ordinality f (field, number)
          join (values (1, 'the second', 0, 59), (2, 'the minute', 0, 59), (3, 'the hour', 0, 23), (4, 'the day of the month', 1, 31),
                       (5, 'the month', 1, 12), (6, 'the day of the week', 0, 7)) kind (number, name, lowest, highest)
            on kind.number = f.number + shift
         where f.field !~ '^[0-9A-Za-z*/,#-]{1,100}$'
            or exists (select from regexp_matches(f.field, E'(?<![/#\\d])\\d+', 'g') m
                        where m[1]::numeric not between kind.lowest and kind.highest)
         order by f.number limit 1;
    end if;
    if wrong is not null or length(schedule) > 200 then
        raise exception '% is no cron expression: %', quote_literal(left(schedule, 100)), coalesce(wrong, 'it is longer than 200 characters') using
            errcode = 'invalid_parameter_value',
            hint = 'Give minute, hour, day of month, month and day of week, such as ''30 6 * * MON-FRI'', with the second before them if you like; '
                   'or @hourly, @daily, @weekly, @monthly, @yearly.';
    elsif not exists (select from pg_timezone_names z where z.name = time_zone) then
        raise exception 'a cron expression needs a time zone that has a name, and that of this stream table is %', quote_literal(time_zone) using
            errcode = 'invalid_parameter_value', hint = 'Create it in a session with a named one: set time zone ''Europe/Berlin'';';
    end if;
end $$;

-- The schedule that was given, or what a stream table over these sources has without one.
create or replace function tide.stream_schedule(schedule text, view regclass, time_zone text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    follows boolean := exists (select from tide.stream_tables_read(view) t join tide.stream s on s.relation = t.source);
begin
    if schedule is null then
        -- Those that their writers maintain have no refreshes to follow.
        schedule := case when exists (select from tide.stream_tables_read(view) t join tide.stream s on s.relation = t.source
                                       where s.refresh_mode <> 'IMMEDIATE') then 'calculated' else (tide.find_setting('stream_default_schedule')).value end;
    end if;
    if tide.stream_is_cron(schedule) then
        perform tide.stream_check_cron(schedule, time_zone);
        return btrim(schedule);
    end if;
    schedule := lower(btrim(schedule));
    perform tide.stream_interval_ms(schedule);
    if schedule = 'immediate' then
        return 'IMMEDIATE';
    end if;
    if schedule = 'calculated' and not follows then
        raise exception 'a stream table that reads no other has no calculated schedule' using
            errcode = 'invalid_parameter_value', hint = 'Give a duration, such as ''1s''; or no schedule at all.';
    end if;
    return schedule;
end $$;

-- The schedule of one that has none of its own.
create or replace function tide.stream_usual_schedule(name text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select tide.stream_schedule(null, format('tide_stream.q_%s', (tide.find_stream(name)).stream_id)::regclass, current_setting('timezone'))
$$;

create or replace function tide.stream_is_due(line tide.stream, state tide.stream_state) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select tide.stream_reason(line.stream_id) is not null
           and (state.data_timestamp is null or line.schedule = 'calculated'
                or coalesce(state.data_timestamp + make_interval(secs => i.interval_ms / 1000) <= clock_timestamp(), false))
      from tide.pipeline p
     cross join lateral (select min((s.schedule ->> 'poll_interval_ms')::float8) as interval_ms
                           from jsonb_array_elements(coalesce(p.config -> 'schedules', jsonb_build_array(p.config))) s (schedule)
                          where not s.schedule ? 'follows') i
     where p.name = tide.stream_led_by(line)
$$;

-- Whether one that follows others waits for the refresh of one of them: it is under way, or due. It waits once for each, so that none
-- that is always under way keeps it waiting; for none that fails, or is not refreshed; and for none that is refreshed with it.
create or replace function tide.stream_waits(line tide.stream, state tide.stream_state) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select line.schedule = 'calculated' and exists (
        select from tide.stream_above(line.stream_id) other
          join tide.stream_state its on its.stream_id = other.stream_id
          join tide.drain d on d.pipeline = tide.stream_led_by(other)
         where not other.suspended and other.tier <> 'frozen' and its.errors = 0
           and (other.group_id <> line.group_id) is not false
           and coalesce(its.refreshed_at <= state.data_timestamp, true)
           and (d.lease_until > clock_timestamp() or tide.stream_is_due(other, its)))
$$;

-- Of these pipelines of stream tables, those that have something to do, and wait for no other.
create or replace function tide.stream_ready(pipelines text[]) returns setof text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select distinct led.pipeline
      from tide.stream_led(pipelines) led
      join tide.stream_reasons(array(select (l.line).stream_id from tide.stream_led(pipelines) l)) r on r.stream_id = (led.line).stream_id
      join tide.stream_state state on state.stream_id = r.stream_id
     where r.reason is not null and not tide.stream_waits(led.line, state)
$$;

-- Of these pipelines, the stream tables that wait for their schedule, and how long ago their last refresh began. Not those of which
-- nothing is known, nor those that someone asked for: they are refreshed at once.
create or replace function tide.stream_begun(pipelines text[]) returns table (pipeline text, seconds float8)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select led.pipeline, max(extract(epoch from clock_timestamp() - state.data_timestamp))::float8
      from tide.stream_led(pipelines) led join tide.stream_state state on state.stream_id = (led.line).stream_id
     group by 1
    having bool_and(state.frontier is not null and ((led.line).asked is null or pg_visible_in_snapshot((led.line).asked, state.frontier)));
end;
