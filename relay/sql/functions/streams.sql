-- Stream tables: creating, changing and dropping them. A stream table is a table that the fleet keeps equal to a query. A scheduler
-- owns it as a pipeline of its own, whose timer is its schedule: streams.<name>, or streams.<id> where that is no name of a pipeline.

create or replace function tide.find_stream(name text) returns tide.stream
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_stream tide.stream;
begin
    -- In a name without schema, the schema is whichever has a stream table of that name, if one alone has. Quotes may be missing.
    select s.* into found_stream
      from tide.stream s left join pg_class c on c.oid = s.relation left join pg_namespace n on n.oid = c.relnamespace
     where find_stream.name in (s.name, n.nspname || '.' || c.relname, quote_ident(c.relname), c.relname)
     order by s.name <> find_stream.name, n.nspname || '.' || c.relname <> find_stream.name
     limit 1;
    if not found then
        raise exception 'stream table % does not exist', coalesce('"' || name || '"', 'NULL') using
            errcode = 'undefined_object', hint = 'List them: select * from tide.stream_tables(); or: relay stream list.';
    end if;
    if (select count(*) > 1 and bool_and(find_stream.name in (quote_ident(c.relname), c.relname))
          from tide.stream s join pg_class c on c.oid = s.relation
         where c.relname = (select relname from pg_class where oid = found_stream.relation)) then
        raise exception 'there are several stream tables "%"', name using errcode = 'undefined_object', hint = 'Name the schema as well.';
    end if;
    return found_stream;
end $$;

-- '250ms', '5s', '1m30s', '2h', '1d'; null for 'calculated'.
create or replace function tide.stream_interval_ms(schedule text) returns bigint
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    wanted text := lower(btrim(schedule));
    found_ms numeric;
begin
    if wanted = 'calculated' then
        return null;
    elsif wanted = 'immediate' then
        return 1000;  -- how soon the fleet sees that triggers are to be put in place
    elsif wanted ~ E'^(\\d{1,9}(ms|s|m|h|d) *)+$' then
        select sum(m[1]::numeric * case m[2] when 'ms' then 1 when 's' then 1000 when 'm' then 60000 when 'h' then 3600000 else 86400000 end)
          into found_ms
          from regexp_matches(wanted, E'(\\d+)(ms|[smhd])', 'g') m;
    end if;
    if found_ms is null or found_ms < 100 or found_ms > 31536000000 then
        raise exception '% is no schedule of a stream table', coalesce(quote_literal(schedule), 'NULL') using
            errcode = 'invalid_parameter_value',
            hint = 'Give a duration from 100ms to 365d, such as ''5s'' or ''1m30s''; a cron expression, such as ''*/15 9-17 * * MON-FRI'' '
                   'or ''@hourly''; ''calculated'', to follow the stream tables that it reads; or ''IMMEDIATE'', to be maintained by writers.';
    end if;
    return found_ms;
end $$;

-- What its schedule says.
create or replace function tide.stream_timing(stream tide.stream) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    is_cron     boolean := tide.stream_is_cron(stream.schedule);
    interval_ms bigint := coalesce(case when not is_cron then tide.stream_interval_ms(stream.schedule) end,
                                   greatest(100, tide.setting_number('stream_calculated_min_interval_ms')))
                          * case stream.tier when 'warm' then 2 when 'cold' then 10 else 1 end;
begin
    return jsonb_strip_nulls(
               jsonb_build_object('tier', case when stream.tier in ('warm', 'cold') then stream.tier end,
                                  'immediate', case when stream.refresh_mode = 'IMMEDIATE' then true end)
               || case when is_cron then jsonb_build_object('cron', stream.schedule, 'time_zone', stream.settings ->> 'timezone')
                       else jsonb_build_object('poll_interval_ms', interval_ms, 'follows',
                                               case when stream.schedule = 'calculated' then tide.stream_follows(stream) end) end);
end $$;

-- What its pipeline does: the timer, and whether it is drained at all.
create or replace function tide.stream_configure(stream tide.stream) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.stream_regroup();
    perform tide.stream_configure_all(array[stream.stream_id]);
end $$;

-- Configures the pipelines of these, and of those that are refreshed with them.
create or replace function tide.stream_configure_all(ids int[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.stream_configure_one(s) from tide.stream s
      where s.stream_id = any (ids) or s.group_id in (select g.group_id from tide.stream g where g.stream_id = any (ids));
end $$;

create or replace function tide.stream_configure_one(stream tide.stream) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    is_refreshed boolean := stream.tier <> 'frozen' and not stream.suspended;
    leader       text := tide.stream_led_by(stream);
begin
    update tide.pipeline p
       set config = case when stream.group_id is null or not is_refreshed then tide.stream_timing(stream)
                         when leader = stream.pipeline then tide.stream_group_config(stream)
                         else jsonb_build_object('part_of', leader) end,
           enabled = is_refreshed, revision = nextval('tide.revisions'), updated_at = now()
     where p.name = stream.pipeline;
    if stream.tier = 'frozen' or stream.suspended then
        perform tide.stream_immediate_end(stream.stream_id);
    end if;
    -- Retention does not wait for one that is not refreshed: what it would need may be gone.
    update tide.stream_state s set frontier = null where s.stream_id = stream.stream_id and not is_refreshed;
    update tide.drain d set retry_at = null where d.pipeline = stream.pipeline;
    perform pg_notify('tide_relay_config', stream.pipeline);
end $$;

-- The query of one that belongs to the owner of our functions runs with these rights: no one else may say what it is.
create or replace function tide.stream_require_owner() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if current_user <> (select n.nspowner::regrole::text from pg_namespace n where n.nspname = 'tide') then
        raise exception 'the query of this stream table is given by the role that owns the schema tide, not by %', current_user using
            errcode = 'insufficient_privilege',
            hint = format('Become it first: set role %s;', (select n.nspowner::regrole from pg_namespace n where n.nspname = 'tide'));
    end if;
end $$;

create or replace function tide.stream_check_options(refresh_mode text, tier text, diamond_consistency text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    wrong record;
begin
    for wrong in
        select o.* from (values ('refresh_mode', refresh_mode, upper(refresh_mode), array['AUTO', 'DIFFERENTIAL', 'FULL', 'IMMEDIATE']),
                                ('tier', tier, tier, array['hot', 'warm', 'cold', 'frozen']),
                                ('diamond_consistency', diamond_consistency, lower(diamond_consistency), array['atomic', 'none'])
                   ) o (name, given, value, known)
         where o.value <> all (o.known)
    loop
        raise exception '% % does not exist', wrong.name, quote_literal(wrong.given) using
            errcode = 'invalid_parameter_value', hint = format('It is one of %s.', array_to_string(wrong.known, ', '));
    end loop;
end $$;

-- Schema and table of a name, as the path of the caller has it.
create or replace function tide.stream_target(name text, path text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    parts text[] := parse_ident(name);
    here  text;
begin
    perform set_config('search_path', path, true);
    here := pg_catalog.current_schema();
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    if cardinality(parts) = 1 then
        parts := here || parts;
    end if;
    if cardinality(parts) <> 2 or parts[1] is null then
        raise exception '"%" is no name of a stream table', name using errcode = 'invalid_name', hint = 'Give schema.table, or a table alone.';
    end if;
    return format('%I.%I', parts[1], parts[2]);
end $$;

-- Makes the view of a query, which is read with the path of the caller; or puts another query into it. Returns the query.
create or replace function tide.stream_define(view_name text, name text, query text, path text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    probe      refcursor;
    probe_text text;
    view_text  text;
begin
    if coalesce(btrim(query), '') = '' then
        raise exception 'the query of stream table "%" is empty', name using errcode = 'invalid_parameter_value';
    end if;
    query := regexp_replace(query, E';\\s*$', '');
    probe_text := format(E'select from (%s\n) query', query);
    view_text := format(E'create or replace view %s as %s', view_name, query);
    -- Nothing of ours is looked up by the path of the caller.
    perform set_config('search_path', path, true);
    begin
        -- A cursor is of one statement, and this one runs nothing.
        open probe for execute probe_text;
        close probe;
    exception when invalid_cursor_definition then
        raise exception 'the query of stream table "%" is more than one statement', name using errcode = 'invalid_parameter_value';
    end;
    execute view_text;
    return stream_define.query;
end $$;

create or replace function tide.stream_create(
    name text, query text, schedule text, refresh_mode text, initialize boolean, diamond_consistency text, append_only boolean,
    pooler_compatibility_mode boolean, tier text, refresh_group text, path text
) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    target    text;
    next_id   int;
    view_name text;
begin
    if current_user <> (select pg_get_userbyid(n.nspowner) from pg_namespace n where n.nspname = 'tide') then
        if not has_schema_privilege('tide_run', 'create') then
            raise exception '% may not create stream tables', current_user using
                errcode = 'insufficient_privilege', hint = format('Have the owner of the schema tide call: select tide.grant_streams(%L);', current_user);
        end if;
        perform tide.stream_create_foreign(name, query, schedule, refresh_mode, initialize, diamond_consistency, append_only, pooler_compatibility_mode,
                                           tier, refresh_group, path);
        return;
    end if;
    next_id := nextval(pg_get_serial_sequence('tide.stream', 'stream_id'));
    view_name := format('tide_stream.q_%s', next_id);
    query := tide.stream_define(view_name, name, query, path);
    target := tide.stream_target(name, path);
    perform tide.stream_check_columns(target, view_name::regclass);
    execute format('create table %s as select * from %s with no data', target, view_name);
    execute format('create trigger tide_stream_guard before insert or update or delete or truncate on %s
                    for each statement execute function tide.stream_guard()', target);
    perform tide.stream_insert(next_id, target, query, schedule, refresh_mode, initialize, diamond_consistency, append_only,
                               pooler_compatibility_mode, tier, refresh_group, path, null);
end $$;

-- Its pipeline and its rows, and the capture of its sources. The table is there, and the view of its query.
create or replace function tide.stream_insert(
    next_id int, target text, query text, schedule text, refresh_mode text, initialize boolean, diamond_consistency text, append_only boolean,
    pooler_compatibility_mode boolean, tier text, refresh_group text, path text, runner name
) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    made      tide.stream;
    view_name text := format('tide_stream.q_%s', next_id);
    line_name text;
begin
    if 'IMMEDIATE' in (upper(btrim(schedule)), upper(refresh_mode)) then
        schedule := 'IMMEDIATE';
        refresh_mode := 'IMMEDIATE';
    end if;
    perform tide.stream_check_options(refresh_mode, tier, diamond_consistency);
    schedule := tide.stream_schedule(schedule, view_name::regclass, current_setting('timezone'));
    line_name := 'streams.' || case when target ~ '^[A-Za-z0-9_.-]{1,92}$'
                                     and not exists (select from tide.pipeline p where p.name = 'streams.' || target) then target
                                else next_id::text end;
    insert into tide.pipeline (name, direction, config) values (line_name, 'stream', '{}');
    insert into tide.drain (pipeline) values (line_name);
    insert into tide.stream (stream_id, name, relation, pipeline, query, schedule, refresh_mode, tier, suspended, diamond_consistency, append_only,
                             pooler_compatibility_mode, refresh_group, runner, daily, always_reason, full_reason, settings)
    overriding system value
    values (next_id, target, target::regclass, line_name, query, schedule, upper(coalesce(refresh_mode, 'AUTO')), coalesce(tier, 'hot'),
            not coalesce(initialize, true), lower(coalesce(diamond_consistency, 'atomic')), coalesce(append_only, false),
            coalesce(pooler_compatibility_mode, false), nullif(btrim(refresh_group), ''), runner,
            tide.stream_day(view_name::regclass), tide.stream_always_reason(view_name::regclass),
            tide.stream_full_reason(view_name::regclass),
            jsonb_build_object('search_path', path, 'timezone', current_setting('timezone'), 'datestyle', current_setting('datestyle'),
                               'intervalstyle', current_setting('intervalstyle'), 'bytea_output', current_setting('bytea_output'),
                               'extra_float_digits', current_setting('extra_float_digits'), 'lc_monetary', current_setting('lc_monetary'),
                               'lc_numeric', current_setting('lc_numeric'), 'lc_time', current_setting('lc_time')))
    returning * into made;
    perform tide.stream_immediate_check(made);
    insert into tide.stream_state (stream_id) values (next_id);
    perform tide.stream_sources_read(next_id);
    perform tide.stream_capture_sources(next_id);
    perform tide.stream_configure(made);
end $$;

-- The query is read with the search_path of the caller: which is another one inside.
create or replace function tide.create_stream_table(
    name text, query text, schedule text default null, refresh_mode text default 'AUTO', initialize boolean default true,
    diamond_consistency text default 'atomic', append_only boolean default false, pooler_compatibility_mode boolean default false,
    tier text default 'hot', schedule_seconds int default null, refresh_group text default null
) returns void
language sql
begin atomic
    select tide.stream_create(name, query, coalesce(schedule_seconds || 's', schedule), refresh_mode, initialize, diamond_consistency, append_only,
                              pooler_compatibility_mode, tier, refresh_group, pg_catalog.current_setting('search_path') || ', pg_temp');
end;
comment on function tide.create_stream_table is
    'Creates a table that is kept equal to a query. It is filled, and refreshed on its schedule, by the fleet.';

create or replace function tide.drop_stream_table(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line    tide.stream;
    sources oid[];
begin
    begin
        line := tide.find_stream(name);
    exception when undefined_object then
        if if_exists then
            return;
        end if;
        raise;
    end;
    perform tide.stream_require_mine(line, 'tide.stream_forget()');
    sources := array(select s.source from tide.stream_source s where s.stream_id = line.stream_id);
    perform tide.stream_immediate_drop(line.stream_id);
    perform tide.stream_forget_plan(line.stream_id);
    perform tide.stream_drop_table(line.relation);
    delete from tide.stream s where s.stream_id = line.stream_id;
    delete from tide.pipeline p where p.name = line.pipeline;
    perform tide.stream_regroup();
    perform tide.stream_capture_end(s) from unnest(sources) s;
    execute format('drop view if exists tide_stream.q_%s', line.stream_id);
    perform pg_notify('tide_relay_config', line.pipeline);
end $$;
comment on function tide.drop_stream_table is 'Drops the table, and the capture of those sources that no other stream table reads.';

create or replace function tide.pause_stream_table(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line tide.stream := tide.find_stream(name);
begin
    update tide.stream s set suspended = true where s.stream_id = line.stream_id returning * into line;
    perform tide.stream_configure(line);
end $$;
comment on function tide.pause_stream_table is 'Has a stream table not refreshed until it is resumed. It keeps its rows.';

create or replace function tide.resume_stream_table(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line tide.stream := tide.find_stream(name);
begin
    perform tide.stream_require_mine(line, 'tide.relay_enable(text)');
    update tide.stream s set suspended = false where s.stream_id = line.stream_id returning * into line;
    update tide.stream_state s set errors = 0, last_error = null where s.stream_id = line.stream_id;
    perform tide.stream_configure(line);
end $$;
comment on function tide.resume_stream_table is 'Has a stream table refreshed again that was suspended after three failures in a row, or created so.';

-- Nothing but a refresh writes it. The owner of the table could remove this trigger: it guards against mistakes.
create or replace function tide.stream_guard() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('tide.refreshing', true) is distinct from tg_relid::text then
        raise exception 'stream table "%" is written by its refreshes alone', tg_table_name using
            errcode = 'object_not_in_prerequisite_state', hint = 'Change the tables that its query reads.';
    end if;
    return null;
end $$;
