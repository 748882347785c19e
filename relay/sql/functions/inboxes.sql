-- Inboxes: creating and dropping them.
--
-- The state of a message is in its row, so that applications which UPDATE it directly need nothing of ours:
--   processed   processed_at is not null
--   dead        processed_at is null and retry_count >= N, N = max_retries, at least 1
--   pending     the others. One with available_at ahead is left alone until then: claimed_by says for whom it is kept,
--               or is null, after a failure.
-- N is a constant of each inbox, written into its indexes and views: the planner uses a partial index only for a
-- condition that it can prove. Functions that touch messages run with the caller's rights: what a role may do with an
-- inbox is what it may do with the table.

create or replace function tide.find_inbox(inbox text) returns tide.inbox
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_inbox tide.inbox;
begin
    select * into found_inbox from tide.inbox i where i.name = find_inbox.inbox;
    if not found then
        raise exception 'inbox "%" does not exist', inbox using
            errcode = 'undefined_object',
            hint = format('Create it: select tide.inbox_create(%L);', inbox);
    end if;
    return found_inbox;
end $$;

create or replace function tide.inbox_pending(box tide.inbox, prefix text default '') returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select format('%1$sprocessed_at is null and %1$sretry_count < %2$s', prefix, greatest((box).max_retries, 1));
end;

create or replace function tide.inbox_dead(box tide.inbox, prefix text default '') returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select format('%1$sprocessed_at is null and %1$sretry_count >= %2$s', prefix, greatest((box).max_retries, 1));
end;

create or replace function tide.inbox_relation(box tide.inbox) returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic select format('%I.%I', (box).table_schema, (box).table_name); end;

-- For applications that count failures by themselves: when a message died is what its retention is counted from.
create or replace function tide.inbox_failed() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    new.failed_at := clock_timestamp();
    return new;
end $$;

create or replace function tide.inbox_refuse_name(name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not tide.setting_is_on('inbox_enabled') then
        raise exception 'inbox % cannot be created: inboxes are turned off in this database', coalesce(quote_ident(name), 'NULL') using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'Turn them on: select tide.setting_set(''inbox_enabled'', ''true'');';
    elsif name is null or name !~ '^[A-Za-z0-9_][A-Za-z0-9_-]{0,49}$' then
        raise exception 'inbox name % is not valid', coalesce(quote_literal(name), 'NULL') using
            errcode = 'invalid_name', hint = 'Use 1 to 50 letters, digits, "_" and "-", not starting with "-".';
    elsif exists (select from tide.inbox i where i.name = inbox_refuse_name.name) then
        raise exception 'inbox "%" exists already', name using
            errcode = 'duplicate_object', hint = 'Choose another name, or drop it first: select tide.inbox_drop(...);';
    end if;
end $$;

-- What the database has beside the table, under names made of the inbox's: 50 characters and these endings fit in 63.
create or replace function tide.inbox_build(box tide.inbox) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    relation text := tide.inbox_relation(box);
    taken    text;
begin
    select string_agg(quote_ident(c.relname), ', ' order by c.relname) into taken
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = box.table_schema
       and (c.relname in (box.name || '_pending', 'next_' || box.name)
            or c.relname = box.name || '_dlq' and box.with_dead_letter
            or c.relname = box.name || '_stats' and box.with_stats);
    if taken is not null then
        raise exception 'inbox "%" needs names that are taken in schema %: %', box.name, quote_ident(box.table_schema), taken using
            errcode = 'duplicate_table', hint = 'Choose another name for the inbox, or another schema, or rename what is there.';
    end if;
    -- What waits for its time, by that, and behind it, without one, what can be claimed at once, in the order of arrival: a
    -- claim passes over none of the others, however many wait for a retry. What was done and what is dead, for retention.
    execute format('create index %I on %s (available_at, inbox_seq) where %s',
                   box.name || '_tide_pending', relation, tide.inbox_pending(box));
    execute format('create index %I on %s (processed_at) where processed_at is not null', box.name || '_tide_done', relation);
    execute format('create index %I on %s (failed_at) where %s', box.name || '_tide_dead', relation, tide.inbox_dead(box));
    execute format('create trigger tide_inbox after insert on %s referencing new table as arrived '
                   'for each statement execute function tide.inbox_notify(%L)', relation, box.name);
    execute format('create trigger tide_inbox_failed before update of retry_count on %s for each row '
                   'when (new.retry_count > old.retry_count and new.failed_at is not distinct from old.failed_at) '
                   'execute function tide.inbox_failed()', relation);
    execute format('create view %I.%I as select * from %s where %s',
                   box.table_schema, box.name || '_pending', relation, tide.inbox_pending(box));
    if box.with_dead_letter then
        execute format('create view %I.%I as select * from %s where %s',
                       box.table_schema, box.name || '_dlq', relation, tide.inbox_dead(box));
    end if;
    if box.with_stats then
        execute format('create view %I.%I as select event_type, count(*) filter (where %s) as pending, '
                       'count(processed_at) as processed, count(*) filter (where %s) as dead, '
                       'min(received_at) filter (where %3$s) as oldest_pending_at, max(processed_at) as last_processed_at '
                       'from %5$s group by event_type',
                       box.table_schema, box.name || '_stats', tide.inbox_pending(box), tide.inbox_dead(box), relation);
    end if;
    perform tide.inbox_write_copy(box);
end $$;

create or replace function tide.inbox_create(
    name text, schema text default 'tide', max_retries int default 3, with_dead_letter boolean default true,
    with_stats boolean default true, processed_retention_hours int default null, dead_retention_hours int default null
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.inbox;
begin
    perform tide.inbox_refuse_name(name);
    if num_nulls(schema, max_retries, with_dead_letter, with_stats) > 0 then
        raise exception 'schema, max_retries, with_dead_letter and with_stats of inbox "%" must not be NULL', name using
            errcode = 'null_value_not_allowed', hint = 'Leave an argument out for its default.';
    elsif schema = 'tide' and name ~ '^message(_|$)' then
        raise exception 'inbox name "%" is one that outboxes and consumer groups use in schema tide', name using
            errcode = 'invalid_name', hint = 'Choose another name, or another schema.';
    elsif to_regclass(format('%I.%I', schema, name)) is not null then
        raise exception 'a relation % is there already in schema %', quote_ident(name), quote_ident(schema) using
            errcode = 'duplicate_table',
            hint = 'Choose another name. A table of your own becomes an inbox by tide.enable_inbox_tracking(...).';
    end if;
    insert into tide.inbox (name, table_schema, table_name, max_retries, with_dead_letter, with_stats,
                            processed_retention_hours, dead_retention_hours)
    values (name, schema, name, max_retries, with_dead_letter, with_stats, processed_retention_hours, dead_retention_hours)
    returning * into box;
    execute format('create table %I.%I ('
        'event_id text primary key, '
        -- The order of arrival: received_at is the same for a whole batch.
        'inbox_seq bigint generated always as identity, '
        'event_type text, source text, aggregate_id text, event_sequence bigint, payload jsonb, '
        'headers jsonb not null default ''{}'', trace_id text, '
        'received_at timestamptz not null default now(), processed_at timestamptz, error text, '
        'retry_count int not null default 0, failed_at timestamptz, claimed_by text, available_at timestamptz) '
        'with (autovacuum_vacuum_scale_factor = 0.02)', schema, name);
    perform tide.inbox_build(box);
end $$;
comment on function tide.inbox_create is
    'Makes an inbox: a table of that name in schema, and its views. A session that listens to tide_inbox gets its name when rows arrive.';

-- Takes away what inbox_build and the enable functions have made, and the name; a table that was not there before, too.
create or replace function tide.inbox_forget(box tide.inbox) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    used_by text;
    view    text;
begin
    select string_agg(format('%I', p.name), ', ' order by p.name) into used_by
      from tide.pipeline p where p.inbox_id = box.inbox_id;
    if used_by is not null then
        raise exception 'inbox "%" is written by pipelines: %', box.name, used_by using
            errcode = 'dependent_objects_still_exist', hint = 'Delete them first: select tide.relay_delete(...);';
    end if;
    delete from tide.inbox i where i.inbox_id = box.inbox_id;
    perform tide.inbox_move_drop(inbox_id => box.inbox_id);
    execute format('drop function if exists tide.inbox_write_%s', box.inbox_id);
    begin
        foreach view in array array_remove(array[
            box.name || '_pending', case when box.with_dead_letter then box.name || '_dlq' end,
            case when box.with_stats then box.name || '_stats' end, case when box.seq_col is not null then 'next_' || box.name end], null)
        loop
            execute format('drop view if exists %I.%I', box.table_schema, view);
        end loop;
        if not box.tracked then
            execute format('drop table if exists %s', tide.inbox_relation(box));
        end if;
    exception when dependent_objects_still_exist then
        get stacked diagnostics used_by = pg_exception_detail;
        raise exception 'inbox "%" is used by other objects of the database', box.name using
            errcode = 'dependent_objects_still_exist', detail = used_by, hint = 'Drop them first.';
    end;
end $$;

create or replace function tide.inbox_drop(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.inbox;
begin
    select * into box from tide.inbox i where i.name = inbox_drop.name;
    if not found then
        if not if_exists then
            perform tide.find_inbox(name);
        end if;
        return;
    elsif box.tracked then
        raise exception 'inbox "%" is the table %, which was there before', name, tide.inbox_relation(box) using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Let it be an ordinary table again: select tide.disable_inbox_tracking(%L);', name);
    end if;
    perform tide.inbox_forget(box);
end $$;
comment on function tide.inbox_drop is 'Removes the inbox, its views and all its messages, processed or not.';
