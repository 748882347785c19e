-- How an inbox is doing, and its retention.

-- What tells about the messages of an inbox runs with its owner's rights, and tells those who may read its table, or may see
-- how everything is doing.
create or replace function tide.may_see_inbox(box tide.inbox) returns boolean
language sql stable
return tide.may_see_anything()
    or coalesce(has_table_privilege(tide.caller()::name, to_regclass(tide.inbox_relation(box)), 'select'), false);

create or replace function tide.inbox_require_sight(box tide.inbox) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not tide.may_see_inbox(box) then
        raise exception 'role % may not read inbox "%"', quote_ident(tide.caller()), box.name using
            errcode = 'insufficient_privilege',
            hint = format('Let the owner of schema tide, or a role of tide.grant_admin, run: select tide.inbox_grant(%L, %L);',
                          box.name, tide.caller());
    end if;
end $$;

create or replace function tide.inbox_status(inbox text default null) returns table (
    name text, table_schema name, table_name name, pending bigint, claimed bigint, retrying bigint, processed bigint,
    dead bigint, oldest_pending_seconds float8, duplicates bigint, total_bytes bigint
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.inbox;
begin
    if inbox is not null then
        perform tide.inbox_require_sight(tide.find_inbox(inbox));
    end if;
    for box in select * from tide.inbox i where inbox is null or i.name = inbox_status.inbox order by i.name loop
        continue when not tide.may_see_inbox(box);
        begin
            perform tide.inbox_guard(box, 'access share');
        exception when insufficient_privilege or invalid_table_definition or wrong_object_type then
            -- One that cannot be looked at does not hide the others.
            if inbox is not null then
                raise;
            end if;
            name := box.name;
            table_schema := box.table_schema;
            table_name := box.table_name;
            return next;
            continue;
        end;
        -- In parts for which there are indexes: together they would be a look at every row.
        return query execute format(
            'select $1, $2, $3, f.pending, w.claimed, w.retrying, '
            '(select count(*) from %1$s i where i.processed_at is not null), (select count(*) from %1$s i where %2$s), '
            'case when f.pending > 0 then greatest(extract(epoch from clock_timestamp() - least(w.oldest, o.oldest)), 0)::float8 end, '
            '(select coalesce(sum(d.messages), 0)::bigint from tide.inbox_duplicates d where d.inbox_id = $4), '
            'pg_total_relation_size(%4$L) '
            'from (select count(*) as pending from %1$s i where %3$s) f, '
            '(select count(*) filter (where i.claimed_by is not null and i.available_at > clock_timestamp()) as claimed, '
            'count(*) filter (where i.claimed_by is null) as retrying, min(i.received_at) as oldest from %1$s i where %3$s and i.available_at is not null) w, '
            '(select (select i.received_at from %1$s i where %3$s and i.available_at is null order by i.available_at, i.inbox_seq limit 1) as oldest) o',
            tide.inbox_relation(box), tide.inbox_dead(box, 'i.'), tide.inbox_pending(box, 'i.'), tide.inbox_relation(box))
            using box.name, box.table_schema, box.table_name, box.inbox_id;
    end loop;
end $$;
comment on function tide.inbox_status is
    'A row for each inbox, or for one. pending includes the claimed and the retrying; oldest_pending_seconds is null when nothing waits; all is null of '
    'an inbox whose table cannot be read: ask for that one alone to be told why.';

create or replace function tide.inbox_health(inbox text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    box        tide.inbox := tide.find_inbox(inbox);
    alert      int := greatest(tide.setting_number('inbox_dlq_alert_max_per_refresh'), 1);
    now_is     record;
    done       bigint;
    newly_dead bigint;
    reasons    text[];
    critical   boolean;
begin
    perform tide.inbox_require_sight(box);
    perform tide.inbox_guard(box, 'access share');
    select * into now_is from tide.inbox_status(inbox);
    execute format('select (select count(*) from %1$s i where i.processed_at > clock_timestamp() - interval ''1 minute''), '
                   '(select count(*) from %1$s i where %2$s and i.failed_at > clock_timestamp() - interval ''5 minutes'')',
                   tide.inbox_relation(box), tide.inbox_dead(box, 'i.')) into done, newly_dead;
    critical := newly_dead >= alert or now_is.oldest_pending_seconds > 3600;
    reasons := array_remove(array[
        case when now_is.oldest_pending_seconds > 300
             then format('the oldest pending message waits for %s seconds', round(now_is.oldest_pending_seconds)) end,
        case when newly_dead > 0 then format('%s %s died within the last five minutes', newly_dead,
                                             case newly_dead when 1 then 'message' else 'messages' end) end], null);
    return jsonb_build_object(
        'inbox', box.name,
        'status', case when critical then 'critical' when cardinality(reasons) > 0 then 'degraded' else 'healthy' end,
        'reasons', to_jsonb(reasons), 'pending', now_is.pending, 'claimed', now_is.claimed, 'retrying', now_is.retrying,
        'oldest_pending_seconds', now_is.oldest_pending_seconds, 'processed_per_minute', done,
        'duplicates', now_is.duplicates, 'dead', now_is.dead, 'dead_last_5_minutes', newly_dead);
end $$;
comment on function tide.inbox_health is
    'critical: the oldest pending message waits for more than an hour, or as many as the setting inbox_dlq_alert_max_per_refresh '
    'died within five minutes; degraded: five minutes, or one.';

-- Retention -----------------------------------------------------------------------------------------------------------
create or replace function tide.inbox_remove(box tide.inbox, which text, before timestamptz, max_rows bigint) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    removed bigint;
begin
    execute format('delete from %1$s i where i.%2$I = any (array(select r.%2$I from %1$s r where %3$s limit $2 for update skip locked))',
                   tide.inbox_relation(box), box.event_id_col, which) using before, max_rows;
    get diagnostics removed = row_count;
    return removed;
end $$;

create or replace function tide.inbox_retain(inbox text, max_rows int default 10000) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box             tide.inbox := tide.find_inbox(inbox);
    processed_hours int := coalesce(box.processed_retention_hours, tide.setting_number('inbox_processed_retention_hours'));
    dead_hours      int := coalesce(box.dead_retention_hours, tide.setting_number('inbox_dlq_retention_hours'));
    removed         bigint := 0;
begin
    if max_rows is null or max_rows < 1 then
        raise exception 'max_rows is %, it must be at least 1', coalesce(max_rows::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'It is how many messages a call removes at most.';
    end if;
    perform tide.inbox_guard(box, 'row exclusive');
    if processed_hours > 0 then
        removed := tide.inbox_remove(box, 'r.processed_at < $1 order by r.processed_at',
                                     now() - make_interval(hours => processed_hours), max_rows);
    end if;
    if dead_hours > 0 and removed < max_rows then
        removed := removed + tide.inbox_remove(box, tide.inbox_dead(box, 'r.') || ' and r.failed_at < $1 order by r.failed_at',
                                               now() - make_interval(hours => dead_hours), max_rows - removed);
    end if;
    with old as (
        delete from tide.inbox_duplicates d where d.ctid = any (array(
            select s.ctid from tide.inbox_duplicates s where s.inbox_id = box.inbox_id limit max_rows for update skip locked))
        returning d.messages
    )
    insert into tide.inbox_duplicates (inbox_id, messages)
    select box.inbox_id, sum(o.messages) from old o having sum(o.messages) > 0;
    return removed;
end $$;
comment on function tide.inbox_retain is
    'Removes up to max_rows messages whose retention is over, processed ones first, and returns how many. An id that is removed is new again.';
