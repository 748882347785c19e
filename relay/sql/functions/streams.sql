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
    elsif wanted ~ E'^(\\d{1,9}(ms|s|m|h|d) *)+$' then
        select sum(m[1]::numeric * case m[2] when 'ms' then 1 when 's' then 1000 when 'm' then 60000 when 'h' then 3600000 else 86400000 end)
          into found_ms
          from regexp_matches(wanted, E'(\\d+)(ms|[smhd])', 'g') m;
    end if;
    if found_ms is null or found_ms < 100 or found_ms > 31536000000 then
        raise exception '% is no schedule of a stream table', coalesce(quote_literal(schedule), 'NULL') using
            errcode = 'invalid_parameter_value',
            hint = 'Give a duration from 100ms to 365d, such as ''5s'' or ''1m30s''; or ''calculated'', to follow its sources at once.';
    end if;
    return found_ms;
end $$;

-- What its pipeline does: the timer, and whether it is drained at all.
create or replace function tide.stream_configure(stream tide.stream) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    interval_ms bigint := coalesce(tide.stream_interval_ms(stream.schedule), 1000)
                          * case stream.tier when 'warm' then 2 when 'cold' then 10 else 1 end;
begin
    update tide.pipeline p
       set config = p.config || jsonb_build_object('poll_interval_ms', interval_ms), enabled = stream.tier <> 'frozen' and not stream.suspended,
           revision = nextval('tide.revisions'), updated_at = now()
     where p.name = stream.pipeline;
    -- Retention does not wait for one that is not refreshed: what it would need may be gone.
    update tide.stream_state s set frontier = null where s.stream_id = stream.stream_id and (stream.tier = 'frozen' or stream.suspended);
    update tide.drain d set retry_at = null where d.pipeline = stream.pipeline;
    perform pg_notify('tide_relay_config', stream.pipeline);
end $$;

create or replace function tide.stream_create(
    name text, query text, schedule text, refresh_mode text, initialize boolean, tier text, path text
) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    parts     text[];
    target    text;
    made      tide.stream;
    next_id   int := nextval(pg_get_serial_sequence('tide.stream', 'stream_id'));
    view_name text := format('tide_stream.q_%s', next_id);
    line_name text;
    source    oid;
    probe     refcursor;
    probe_text text;
    view_text text;
    here      text;
begin
    -- Its query runs with the rights of who owns our functions: only who has them may say what it is.
    if current_user <> (select n.nspowner::regrole::text from pg_namespace n where n.nspname = 'tide') then
        raise exception 'stream tables are created by the role that owns the schema tide, not by %', current_user using
            errcode = 'insufficient_privilege',
            hint = format('Become it first: set role %s;', (select n.nspowner::regrole from pg_namespace n where n.nspname = 'tide'));
    end if;
    perform tide.stream_interval_ms(schedule);
    if refresh_mode is null or upper(refresh_mode) <> all (array['AUTO', 'DIFFERENTIAL', 'FULL']) then
        raise exception 'refresh_mode % does not exist', coalesce(quote_literal(refresh_mode), 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'It is AUTO, DIFFERENTIAL or FULL.';
    elsif tier is null or tier <> all (array['hot', 'warm', 'cold', 'frozen']) then
        raise exception 'tier % does not exist', coalesce(quote_literal(tier), 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'It is hot, warm, cold or frozen.';
    elsif coalesce(btrim(query), '') = '' then
        raise exception 'the query of stream table "%" is empty', name using errcode = 'invalid_parameter_value';
    end if;
    query := regexp_replace(query, E';\\s*$', '');
    probe_text := format(E'select from (%s\n) query', query);
    view_text := format(E'create view %s as %s', view_name, query);
    -- Nothing of ours is looked up by the path of the caller.
    perform set_config('search_path', path, true);
    here := pg_catalog.current_schema();
    begin
        -- A cursor is of one statement, and this one runs nothing.
        open probe for execute probe_text;
        close probe;
    exception when invalid_cursor_definition then
        raise exception 'the query of stream table "%" is more than one statement', name using errcode = 'invalid_parameter_value';
    end;
    execute view_text;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    parts := parse_ident(name);
    if cardinality(parts) = 1 then
        parts := here || parts;
    end if;
    if cardinality(parts) <> 2 or parts[1] is null then
        raise exception '"%" is no name of a stream table', name using errcode = 'invalid_name', hint = 'Give schema.table, or a table alone.';
    end if;
    target := format('%I.%I', parts[1], parts[2]);
    perform tide.stream_check_columns(target, view_name::regclass);
    execute format('create table %s as select * from %s with no data', target, view_name);
    line_name := 'streams.' || case when target ~ '^[A-Za-z0-9_.-]{1,92}$'
                                     and not exists (select from tide.pipeline p where p.name = 'streams.' || target) then target
                                else next_id::text end;
    insert into tide.pipeline (name, direction, config) values (line_name, 'stream', '{}');
    insert into tide.drain (pipeline) values (line_name);
    insert into tide.stream (stream_id, name, relation, pipeline, query, schedule, refresh_mode, tier, suspended, daily, always_reason, settings)
    overriding system value
    values (next_id, target, target::regclass, line_name, query, lower(btrim(schedule)), upper(refresh_mode), tier, not initialize,
            tide.stream_day(view_name::regclass), tide.stream_always_reason(view_name::regclass),
            jsonb_build_object('search_path', path, 'timezone', current_setting('timezone'), 'datestyle', current_setting('datestyle'),
                               'intervalstyle', current_setting('intervalstyle'), 'bytea_output', current_setting('bytea_output'),
                               'extra_float_digits', current_setting('extra_float_digits'), 'lc_monetary', current_setting('lc_monetary'),
                               'lc_numeric', current_setting('lc_numeric'), 'lc_time', current_setting('lc_time')))
    returning * into made;
    insert into tide.stream_state (stream_id) values (next_id);
    for source in select t.source from tide.stream_tables_read(view_name::regclass) t where t.captured loop
        insert into tide.stream_source (stream_id, source) values (next_id, source);
        perform tide.stream_capture_source(source);
    end loop;
    execute format('create trigger tide_stream_guard before insert or update or delete or truncate on %s
                    for each statement execute function tide.stream_guard()', target);
    perform tide.stream_configure(made);
end $$;

-- The query is read with the search_path of the caller: which is another one inside.
create or replace function tide.create_stream_table(
    name text, query text, schedule text default 'calculated', refresh_mode text default 'AUTO', initialize boolean default true,
    tier text default 'hot', schedule_seconds int default null
) returns void
language sql
begin atomic
    select tide.stream_create(name, query, coalesce(schedule_seconds || 's', schedule), refresh_mode, initialize, tier,
                              pg_catalog.current_setting('search_path') || ', pg_temp');
end;
comment on function tide.create_stream_table is
    'Creates a table that is kept equal to a query. It is filled, and refreshed on its schedule, by the fleet.';

create or replace function tide.drop_stream_table(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line   tide.stream;
    source oid;
begin
    begin
        line := tide.find_stream(name);
    exception when undefined_object then
        if if_exists then
            return;
        end if;
        raise;
    end;
    delete from tide.stream s where s.stream_id = line.stream_id;
    delete from tide.pipeline p where p.name = line.pipeline;
    for source in select t.source from tide.stream_tables_read(format('tide_stream.q_%s', line.stream_id)::regclass) t where t.captured loop
        perform tide.stream_capture_end(source);
    end loop;
    execute format('drop view tide_stream.q_%s', line.stream_id);
    execute format('drop table %s', line.relation);
    perform pg_notify('tide_relay_config', line.pipeline);
end $$;
comment on function tide.drop_stream_table is 'Drops the table, and the capture of those sources that no other stream table reads.';

create or replace function tide.alter_stream_table(
    name text, schedule text default null, refresh_mode text default null, tier text default null, schedule_seconds int default null
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line tide.stream := tide.find_stream(name);
begin
    schedule := lower(btrim(coalesce(schedule_seconds || 's', schedule)));
    if schedule is not null then
        perform tide.stream_interval_ms(schedule);
    end if;
    if upper(refresh_mode) <> all (array['AUTO', 'DIFFERENTIAL', 'FULL']) then
        raise exception 'refresh_mode % does not exist', quote_literal(refresh_mode) using
            errcode = 'invalid_parameter_value', hint = 'It is AUTO, DIFFERENTIAL or FULL.';
    elsif tier <> all (array['hot', 'warm', 'cold', 'frozen']) then
        raise exception 'tier % does not exist', quote_literal(tier) using
            errcode = 'invalid_parameter_value', hint = 'It is hot, warm, cold or frozen.';
    end if;
    update tide.stream s
       set schedule = coalesce(alter_stream_table.schedule, s.schedule), refresh_mode = coalesce(upper(alter_stream_table.refresh_mode), s.refresh_mode),
           tier = coalesce(alter_stream_table.tier, s.tier)
     where s.stream_id = line.stream_id
    returning * into line;
    perform tide.stream_configure(line);
end $$;
comment on function tide.alter_stream_table is 'Changes the schedule, the mode or the tier; null keeps what is.';

create or replace function tide.resume_stream_table(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line tide.stream := tide.find_stream(name);
begin
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
