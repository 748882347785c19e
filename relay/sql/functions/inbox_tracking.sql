-- Tables that were there before, as inboxes.

create or replace function tide.inbox_check_table(existing_table regclass, event_id_col text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel    pg_class;
    needed text := 'Make it so: alter table %1$s alter column %2$I set not null; create unique index on %1$s (%2$I);';
    col    pg_attribute;
begin
    select * into rel from pg_class c where c.oid = existing_table;
    select * into col from pg_attribute a where a.attrelid = existing_table and a.attname = event_id_col and a.attnum > 0;
    if rel.relkind is distinct from 'r' or rel.relpersistence = 't' then
        raise exception '% cannot become an inbox: it is no ordinary table', coalesce(existing_table::text, 'NULL') using
            errcode = 'wrong_object_type', hint = 'Partitioned, temporary and foreign tables and views cannot.';
    elsif rel.relnamespace = 'tide'::regnamespace then
        raise exception '% cannot become an inbox: it is a table of tide-relay', existing_table using errcode = 'wrong_object_type';
    elsif not pg_has_role(current_user, rel.relowner, 'usage') then
        raise exception '% belongs to %, not to %, who owns the schema tide', existing_table, rel.relowner::regrole, quote_ident(current_user)
            using errcode = 'insufficient_privilege',
            hint = format('Let the one act for the other: grant %s to %I;', rel.relowner::regrole, current_user);
    elsif not pg_has_role(tide.caller()::name, rel.relowner, 'usage') then
        raise exception '% belongs to %, not to %', existing_table, rel.relowner::regrole, quote_ident(tide.caller()) using
            errcode = 'insufficient_privilege', hint = 'Only the owner of a table, or a member of that role, can make it an inbox.';
    elsif col is null then
        raise exception '% has no column %', existing_table, coalesce(quote_ident(event_id_col), 'NULL') using
            errcode = 'undefined_column', hint = 'Name the column by which a message is known: event_id_col => ''...''.';
    elsif not col.attnotnull or not exists (
        select from pg_index x where x.indrelid = existing_table and x.indisunique and x.indisvalid and x.indimmediate
           and x.indnkeyatts = 1 and x.indkey[0] = col.attnum and x.indpred is null) then
        raise exception 'column % of % must be unique and not null: by it a message is known', quote_ident(event_id_col), existing_table
            using errcode = 'invalid_table_definition', hint = format(needed, existing_table, event_id_col);
    end if;
end $$;

-- Adds the columns of an inbox that a table lacks, in one statement. Those that it has must be of the same kinds.
create or replace function tide.inbox_add_columns(existing_table regclass, existing_are_processed boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    texts    regtype[] := array['text'::regtype, 'character varying'::regtype];
    instants regtype[] := array['timestamptz'::regtype];
    given    record;
    added    text[] := '{}';
begin
    for given in
        select w.*, a.attname is not null as present, a.atttypid::regtype as type, a.attnotnull, a.atthasdef or a.attidentity <> '' as filled
          from (values
            ('inbox_seq', 'bigint generated always as identity', array['bigint'::regtype], true),
            ('event_type', 'text', texts, false),
            ('source', 'text', texts, false),
            ('aggregate_id', 'text', texts, false),
            ('event_sequence', 'bigint', array['bigint'::regtype, 'int'::regtype], false),
            ('payload', 'jsonb', array['jsonb'::regtype], false),
            ('headers', 'jsonb not null default ''{}''', array['jsonb'::regtype], false),
            ('trace_id', 'text', texts, false),
            ('received_at', 'timestamptz not null default now()', instants, false),
            ('processed_at', case when existing_are_processed then 'timestamptz default now()' else 'timestamptz' end, instants, false),
            ('error', 'text', texts, false),
            ('retry_count', 'int not null default 0', array['int'::regtype], true),
            ('failed_at', 'timestamptz', instants, false),
            ('claimed_by', 'text', texts, false),
            ('available_at', 'timestamptz', instants, false)) w (name, definition, types, always)
          left join pg_attribute a on a.attrelid = existing_table and a.attname = w.name and a.attnum > 0 and not a.attisdropped
    loop
        if not given.present then
            added := added || format('add column %I %s', given.name, given.definition);
        elsif given.type <> all (given.types) then
            raise exception 'column % of % is of type %, an inbox needs %', given.name, existing_table, given.type, given.types[1]
                using errcode = 'datatype_mismatch', hint = 'Change its type, or rename it: an inbox then adds one of its own.';
        elsif given.always and not (given.attnotnull and given.filled) then
            raise exception 'column % of % must be not null and have a default', given.name, existing_table
                using errcode = 'invalid_table_definition', hint = 'Change it, or rename it: an inbox then adds one of its own.';
        elsif given.name = 'processed_at' and existing_are_processed then
            raise exception 'column processed_at of % tells already which messages are processed', existing_table
                using errcode = 'invalid_parameter_value', hint = 'Leave existing_are_processed out.';
        end if;
    end loop;
    if cardinality(added) > 0 then
        execute format('alter table %s %s', existing_table, array_to_string(added, ', '));
    end if;
    if existing_are_processed then
        execute format('alter table %s alter column processed_at drop default', existing_table);
    end if;
end $$;

create or replace function tide.enable_inbox_tracking(
    existing_table regclass, name text default null, event_id_col text default 'event_id', max_retries int default 3,
    with_dead_letter boolean default true, with_stats boolean default true, processed_retention_hours int default 0,
    dead_retention_hours int default 0, existing_are_processed boolean default false
) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.inbox;
begin
    perform tide.inbox_check_table(existing_table, event_id_col);
    select * into box from tide.inbox i
     where (i.table_schema, i.table_name) = (select n.nspname, c.relname from pg_class c
                                               join pg_namespace n on n.oid = c.relnamespace where c.oid = existing_table);
    if found then
        raise exception '% is the inbox "%" already', existing_table, box.name using
            errcode = 'duplicate_object', hint = format('To change how, first: select tide.disable_inbox_tracking(%L);', box.name);
    end if;
    name := coalesce(name, (select c.relname from pg_class c where c.oid = existing_table));
    perform tide.inbox_refuse_name(name);
    select name, n.nspname, c.relname into box.name, box.table_schema, box.table_name
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = existing_table;
    perform tide.inbox_guard(box, 'access exclusive');
    perform tide.inbox_add_columns(existing_table, existing_are_processed);
    insert into tide.inbox (name, table_schema, table_name, event_id_col, event_id_type, tracked, max_retries, with_dead_letter,
                            with_stats, processed_retention_hours, dead_retention_hours)
    select name, n.nspname, c.relname, event_id_col, format_type(a.atttypid, null), true, max_retries, with_dead_letter,
           with_stats, processed_retention_hours, dead_retention_hours
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attname = event_id_col
     where c.oid = existing_table
    returning * into box;
    perform tide.inbox_build(box);
    return name;
end $$;
comment on function tide.enable_inbox_tracking is
    'Makes a table that is there an inbox, by adding what it lacks; returns the inbox''s name, which is the table''s unless one is given.';

create or replace function tide.disable_inbox_tracking(inbox text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box    tide.inbox := tide.find_inbox(inbox);
    suffix text;
begin
    if not box.tracked then
        raise exception 'inbox "%" was made as an inbox', inbox using
            errcode = 'object_not_in_prerequisite_state', hint = format('To remove it with its messages: select tide.inbox_drop(%L);', inbox);
    end if;
    perform tide.inbox_forget(box);
    foreach suffix in array array['pending', 'done', 'dead', 'order', 'claimed', 'past', 'first'] loop
        execute format('drop index if exists %I.%I', box.table_schema, box.name || '_tide_' || suffix);
    end loop;
    if to_regclass(tide.inbox_relation(box)) is not null then
        execute format('drop trigger if exists tide_inbox on %s', tide.inbox_relation(box));
        execute format('drop trigger if exists tide_inbox_failed on %s', tide.inbox_relation(box));
    end if;
end $$;
comment on function tide.disable_inbox_tracking is 'Makes the inbox an ordinary table again. Its rows and columns stay as they are.';
