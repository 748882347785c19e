-- Changing stream tables: their queries and their options.

-- Gives a stream table another query. The table stays as it is, with new columns at its end, which are null until the next refresh:
-- that computes the query and writes what differs.
create or replace function tide.stream_requery(name text, query text, path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line      tide.stream;
    view      regclass;
    same_text text;
    target    regclass := tide.stream_relation(name);
begin
    if tide.stream_is_foreign(target) then
        perform tide.stream_requery_foreign(target::text, target, query, path);
        return;
    end if;
    perform tide.stream_require_owner();
    line := tide.find_stream(name);
    view := format('tide_stream.q_%s', line.stream_id);
    -- A refresh that runs is waited for, and one that has begun but not come so far fails: none is of both queries.
    update tide.stream_state s set frontier = s.frontier where s.stream_id = line.stream_id;
    same_text := pg_get_viewdef(view);
    begin
        query := tide.stream_define(view::text, line.name, query, path);
    exception when invalid_table_definition then
        perform tide.stream_refuse_columns(line.name, sqlerrm);
    end;
    perform tide.stream_check_columns(line.name, view);
    perform tide.stream_take_query(line, query, same_text, path);
end $$;

create or replace function tide.stream_refuse_columns(name text, reason text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'the new query of stream table "%" has other columns: %', name, reason using
        errcode = 'invalid_table_definition',
        hint = 'The columns stay, in their order and with their types, and new ones come after them. Else drop it, and create it again.';
end $$;

-- After its view has another query.
create or replace function tide.stream_take_query(line tide.stream, query text, same_text text, path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    view    regclass := format('tide_stream.q_%s', line.stream_id);
    sources oid[];
begin
    update tide.stream s set query = stream_take_query.query where s.stream_id = line.stream_id;
    if pg_get_viewdef(view) = same_text then
        return;
    end if;
    if exists (select from tide.stream_tables_read(view) t
                where t.source = line.relation
                   or exists (select from tide.stream other cross join lateral tide.stream_above(other.stream_id) a
                               where other.relation = t.source and a.stream_id = line.stream_id)) then
        raise exception 'stream table "%" would read itself', line.name using
            errcode = 'invalid_object_definition', hint = 'Its query may not read it, nor stream tables that read it.';
    end if;
    perform tide.stream_immediate_drop(line.stream_id);
    perform tide.stream_forget_plan(line.stream_id);
    perform tide.stream_add_columns(line.relation, view);
    update tide.stream s
       set daily = tide.stream_day(view), always_reason = tide.stream_always_reason(view), full_reason = tide.stream_full_reason(view),
           settings = s.settings || jsonb_build_object('search_path', path)
     where s.stream_id = line.stream_id
    returning * into line;
    perform tide.stream_immediate_check(line);
    update tide.stream_state s set frontier = null where s.stream_id = line.stream_id;
    sources := array(select s.source from tide.stream_source s where s.stream_id = line.stream_id);
    perform tide.stream_sources_read(line.stream_id);
    perform tide.stream_capture_sources(line.stream_id);
    perform tide.stream_capture_end(s) from unnest(sources) s
      where s not in (select n.source from tide.stream_source n where n.stream_id = line.stream_id);
    perform tide.stream_regroup();
    -- Those that follow it follow what it reads.
    perform tide.stream_configure_all(array(select d.stream_id from tide.stream d cross join lateral tide.stream_above(d.stream_id) a
                                             where d.schedule = 'calculated' and a.stream_id = line.stream_id));
end $$;

create or replace function tide.stream_add_columns(relation regclass, view regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    col record;
begin
    for col in select a.attname, format_type(a.atttypid, a.atttypmod) as type,
                      case when c.oid is not null then format('collate %I.%I', n.nspname, c.collname) end as collation_name
                 from pg_attribute a
                 left join pg_collation c on c.oid = a.attcollation
                 left join pg_namespace n on n.oid = c.collnamespace
                where a.attrelid = view and a.attnum > 0
                  and not exists (select from pg_attribute o where o.attrelid = relation and o.attname = a.attname and o.attnum > 0 and not o.attisdropped)
                order by a.attnum
    loop
        execute format('alter table %s add column %I %s %s', relation, col.attname, col.type, col.collation_name);
    end loop;
end $$;

-- Changes options; null keeps what is.
create or replace function tide.stream_set(
    name text, schedule text, refresh_mode text, tier text, status text, diamond_consistency text, append_only boolean, pooler_compatibility_mode boolean,
    refresh_group text
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line tide.stream := tide.find_stream(name);
begin
    perform tide.stream_require_mine(line, 'tide.stream_forget()');
    if 'IMMEDIATE' in (upper(btrim(schedule)), upper(refresh_mode)) then
        schedule := 'IMMEDIATE';
        refresh_mode := 'IMMEDIATE';
    elsif line.refresh_mode = 'IMMEDIATE' and coalesce(schedule, refresh_mode) is not null then
        -- It leaves the mode: with the schedule that it would have been created with, if it is given none.
        line.schedule := null;
        refresh_mode := coalesce(refresh_mode, 'AUTO');
    end if;
    -- Also as it is: its query may be another one.
    schedule := tide.stream_schedule(coalesce(schedule, line.schedule), format('tide_stream.q_%s', line.stream_id)::regclass, line.settings ->> 'timezone');
    perform tide.stream_check_options(refresh_mode, tier, diamond_consistency);
    if upper(status) <> all (array['ACTIVE', 'SUSPENDED']) then
        raise exception 'status % cannot be set', quote_literal(status) using
            errcode = 'invalid_parameter_value', hint = 'It is ACTIVE or SUSPENDED.';
    end if;
    update tide.stream s
       set schedule = stream_set.schedule, refresh_mode = coalesce(upper(stream_set.refresh_mode), s.refresh_mode),
           tier = coalesce(stream_set.tier, s.tier), suspended = coalesce(upper(status) = 'SUSPENDED', s.suspended),
           diamond_consistency = coalesce(lower(stream_set.diamond_consistency), s.diamond_consistency),
           append_only = coalesce(stream_set.append_only, s.append_only),
           append_broken = case when stream_set.append_only is null then s.append_broken end,
           pooler_compatibility_mode = coalesce(stream_set.pooler_compatibility_mode, s.pooler_compatibility_mode),
           refresh_group = case when stream_set.refresh_group is null then s.refresh_group else nullif(btrim(stream_set.refresh_group), '') end
     where s.stream_id = line.stream_id
    returning * into line;
    if refresh_mode is not null then
        perform tide.stream_immediate_check(line);
    end if;
    update tide.stream_state s set errors = 0, last_error = null where s.stream_id = line.stream_id and upper(status) = 'ACTIVE';
    -- Its sources are captured row by row, or no longer.
    if refresh_mode is not null or append_only is not null then
        if line.refresh_mode = 'FULL' then
            perform tide.stream_forget_plan(line.stream_id);
        end if;
        if line.refresh_mode <> 'IMMEDIATE' then
            perform tide.stream_immediate_drop(line.stream_id);
        end if;
        perform tide.stream_capture_sources(line.stream_id);
    end if;
    perform tide.stream_configure(line);
end $$;

create or replace function tide.alter_stream_table(
    name text, query text default null, schedule text default null, refresh_mode text default null, tier text default null,
    status text default null, append_only boolean default null, diamond_consistency text default null,
    pooler_compatibility_mode boolean default null, schedule_seconds int default null, refresh_group text default null
) returns void
language sql
begin atomic
    select tide.stream_requery(name, query, pg_catalog.current_setting('search_path') || ', pg_temp') where query is not null;
    select tide.stream_set(name, coalesce(schedule_seconds || 's', schedule), refresh_mode, tier, status, diamond_consistency, append_only,
                           pooler_compatibility_mode, refresh_group);
end;
comment on function tide.alter_stream_table is
    'Changes the query, the schedule, the mode, the tier or the status of a stream table; null keeps what is.';

create or replace function tide.stream_create_if(
    name text, query text, schedule text, refresh_mode text, initialize boolean, diamond_consistency text, append_only boolean,
    pooler_compatibility_mode boolean, tier text, refresh_group text, path text, or_replace boolean
) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    target text;
begin
    target := tide.stream_target(name, path);
    if not coalesce(tide.is_stream_table(to_regclass(target)), false) then
        perform tide.stream_create(name, query, schedule, refresh_mode, initialize, diamond_consistency, append_only, pooler_compatibility_mode, tier,
                                   refresh_group, path);
    elsif or_replace then
        perform tide.stream_requery(target, query, path);
        perform tide.stream_set(target, coalesce(schedule, tide.stream_usual_schedule(target)),
                                refresh_mode, tier, null, diamond_consistency, append_only, pooler_compatibility_mode, refresh_group);
    else
        raise notice 'stream table % exists already: it stays as it is', target;
    end if;
end $$;

create or replace function tide.create_stream_table_if_not_exists(
    name text, query text, schedule text default null, refresh_mode text default 'AUTO', initialize boolean default true,
    diamond_consistency text default 'atomic', append_only boolean default false, pooler_compatibility_mode boolean default false,
    tier text default 'hot', schedule_seconds int default null, refresh_group text default null
) returns void
language sql
begin atomic
    select tide.stream_create_if(name, query, coalesce(schedule_seconds || 's', schedule), refresh_mode, initialize, diamond_consistency, append_only,
                                 pooler_compatibility_mode, tier, refresh_group, pg_catalog.current_setting('search_path') || ', pg_temp', false);
end;
comment on function tide.create_stream_table_if_not_exists is 'Creates a stream table, unless there is one of that name.';

create or replace function tide.create_or_replace_stream_table(
    name text, query text, schedule text default null, refresh_mode text default 'AUTO', initialize boolean default true,
    diamond_consistency text default 'atomic', append_only boolean default false, pooler_compatibility_mode boolean default false,
    tier text default 'hot', schedule_seconds int default null, refresh_group text default null
) returns void
language sql
begin atomic
    select tide.stream_create_if(name, query, coalesce(schedule_seconds || 's', schedule), refresh_mode, initialize, diamond_consistency, append_only,
                                 pooler_compatibility_mode, tier, refresh_group, pg_catalog.current_setting('search_path') || ', pg_temp', true);
end;
comment on function tide.create_or_replace_stream_table is
    'Creates a stream table, or gives the one of that name this query and these options; its rows stay, and the next refresh changes what differs.';
