-- Inboxes, reverse pipelines, and the positions at which sources are resumed.
--
-- A message becomes a row once: event_id is the table's primary key, and whoever writes does nothing on a conflict. A
-- reverse drain writes rows, dead letters and positions in one transaction that names its fence, commits, and only then
-- acknowledges to its source.

create table tide.inbox (
    inbox_id     int generated always as identity primary key,
    name         text not null unique check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_-]{0,49}$'),
    table_schema name not null,
    max_retries  int not null default 3 check (max_retries between 0 and 1000000),
    created_at   timestamptz not null default now()
);
comment on table tide.inbox is 'The inboxes: each is a table of the same name in table_schema.';

create function tide.find_inbox(inbox text) returns tide.inbox
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

-- A statement that inserted nothing, because every row was known, wakes nobody.
create function tide.inbox_notify() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from arrived) then
        perform pg_notify('tide_inbox', tg_argv[0]);
    end if;
    return null;
end $$;

create function tide.inbox_create(name text, schema text default 'tide', max_retries int default 3) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if name is null or name !~ '^[A-Za-z0-9_][A-Za-z0-9_-]{0,49}$' then
        raise exception 'inbox name % is not valid', coalesce(quote_literal(name), 'NULL') using
            errcode = 'invalid_name', hint = 'Use 1 to 50 letters, digits, "_" and "-", not starting with "-".';
    elsif schema = 'tide' and name ~ '^message(_|$)' then
        raise exception 'inbox name "%" is one that outboxes use in schema tide', name using
            errcode = 'invalid_name', hint = 'Choose another name, or another schema.';
    end if;
    insert into tide.inbox (name, table_schema, max_retries) values (name, schema, max_retries) on conflict do nothing;
    if not found then
        raise exception 'inbox "%" exists already', name using
            errcode = 'duplicate_object', hint = 'Choose another name, or drop it first: select tide.inbox_drop(...);';
    end if;
    execute format('create table %I.%I ('
        'event_id text primary key, '
        -- The order of arrival: received_at is the same for a whole batch.
        'inbox_seq bigint generated always as identity, '
        'event_type text, source text, aggregate_id text, event_sequence bigint, payload jsonb, '
        'headers jsonb not null default ''{}'', trace_id text, '
        'received_at timestamptz not null default now(), processed_at timestamptz, error text, '
        'retry_count int not null default 0)', schema, name);
    -- What waits, in the order of arrival; and what was done, for those who remove it.
    execute format('create index on %I.%I (inbox_seq) where processed_at is null', schema, name);
    execute format('create index on %I.%I (processed_at) where processed_at is not null', schema, name);
    execute format('create trigger tide_inbox after insert on %I.%I referencing new table as arrived '
                   'for each statement execute function tide.inbox_notify(%L)', schema, name, name);
end $$;
comment on function tide.inbox_create is
    'Makes an inbox: a table of that name in schema. Whoever listens to tide_inbox hears its name when rows arrive.';

-- One statement for a batch. The relay needs no right on the table itself.
create function tide.inbox_write(
    inbox text, event_ids text[], event_types text[], sources text[], aggregate_ids text[], event_sequences bigint[],
    payloads text[], headers text[], trace_ids text[]
) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box     tide.inbox := tide.find_inbox(inbox);
    written bigint;
begin
    execute format('insert into %I.%I '
        '(event_id, event_type, source, aggregate_id, event_sequence, payload, headers, trace_id) '
        'select r.event_id, r.event_type, r.source, r.aggregate_id, r.event_sequence, r.payload::jsonb, '
        '       coalesce(r.headers, ''{}'')::jsonb, r.trace_id '
        '  from unnest($1, $2, $3, $4, $5, $6, $7, $8) as '
        '       r (event_id, event_type, source, aggregate_id, event_sequence, payload, headers, trace_id) '
        'on conflict (event_id) do nothing', box.table_schema, box.name)
        using event_ids, event_types, sources, aggregate_ids, event_sequences, payloads, headers, trace_ids;
    get diagnostics written = row_count;
    return written;
end $$;
comment on function tide.inbox_write is 'Writes messages that are not there yet; returns how many. Payloads and headers are JSON texts.';

-- Reverse pipelines ---------------------------------------------------------------------------------------------------

alter table tide.pipeline
    add column inbox_id int references tide.inbox,
    add check ((direction = 'reverse') = (inbox_id is not null));

create function tide.keep_direction() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'pipeline "%" is a % pipeline', old.name, old.direction using
        errcode = 'duplicate_object', hint = 'Choose another name, or delete it first: select tide.relay_delete(...);';
end $$;
create trigger keep_direction before update on tide.pipeline
    for each row when (old.direction <> new.direction) execute function tide.keep_direction();

create table tide.position (
    pipeline  text not null references tide.pipeline on delete cascade,
    partition text not null,
    position  text not null,
    primary key (pipeline, partition)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table tide.position is
    'For each partition of a source, the position of the last message whose row is committed; for a sink that gathers, '
    'the end of the object in hand.';

-- A message of a source has no row to be kept from, so its bytes are kept here.
alter table tide.dead_letter
    alter column outbox drop not null,
    alter column message_id drop not null,
    alter column headers drop not null,
    alter column payload drop not null,
    alter column published_at drop not null,
    add column inbox text,
    add column event_id text,
    add column subject text,
    add column body bytea,
    add unique (pipeline, inbox, event_id),
    add check ((outbox is null) <> (inbox is null)),
    add check (outbox is null or (message_id is not null and payload is not null)),
    add check (inbox is null or (event_id is not null and body is not null));

create function tide.relay_set_inbox(name text, inbox text, config jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
    old tide.pipeline;
begin
    if coalesce(jsonb_typeof(config), 'null') <> 'object' then
        raise exception 'the configuration of pipeline "%" must be a JSON object, not %', name, coalesce(jsonb_typeof(config), 'NULL')
            using errcode = 'invalid_parameter_value', hint = 'For example: ''{"source_type": "nats", "url": "nats://localhost:4222"}''.';
    elsif coalesce(jsonb_typeof(config -> 'source_type'), 'null') <> 'string' then
        raise exception 'the configuration of pipeline "%" has no source_type', name
            using errcode = 'invalid_parameter_value', hint = 'Name the kind of source, for example "source_type": "nats".';
    elsif name is null or name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$' then
        raise exception 'pipeline name % is not valid', coalesce(quote_literal(name), 'NULL') using
            errcode = 'invalid_name',
            hint = 'Use 1 to 100 letters, digits, "_", "-" and ".", not starting with "-" or ".".';
    end if;
    select * into old from tide.pipeline p where p.name = relay_set_inbox.name for update;
    insert into tide.pipeline as p (name, direction, inbox_id, config) values (name, 'reverse', box.inbox_id, config)
    on conflict on constraint pipeline_pkey do update
        set direction = 'reverse', inbox_id = excluded.inbox_id, config = excluded.config,
            revision = nextval('tide.revisions'), invalid_reason = null, updated_at = now();
    -- Another inbox has none of the rows that the positions stand for; another kind of source cannot read them.
    if old.inbox_id <> box.inbox_id or old.config -> 'source_type' <> config -> 'source_type' then
        delete from tide.position p where p.pipeline = relay_set_inbox.name;
    end if;
    insert into tide.drain (pipeline) values (name) on conflict on constraint drain_pkey do update set retry_at = null;
    perform pg_notify('tide_relay_config', name);
end $$;
comment on function tide.relay_set_inbox(text, text, jsonb) is
    'Creates or changes a reverse pipeline, from a source into an inbox. A new one is enabled.';

create function tide.inbox_drop(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box     tide.inbox;
    used_by text;
begin
    select * into box from tide.inbox i where i.name = inbox_drop.name;
    if not found then
        if not if_exists then
            perform tide.find_inbox(name);
        end if;
        return;
    end if;
    select string_agg(format('%I', p.name), ', ' order by p.name) into used_by
      from tide.pipeline p where p.inbox_id = box.inbox_id;
    if used_by is not null then
        raise exception 'inbox "%" is written by pipelines: %', name, used_by using
            errcode = 'dependent_objects_still_exist', hint = 'Delete them first: select tide.relay_delete(...);';
    end if;
    delete from tide.inbox i where i.inbox_id = box.inbox_id;
    execute format('drop table %I.%I', box.table_schema, box.name);
end $$;
comment on function tide.inbox_drop is 'Removes the inbox and all its messages, processed or not.';

-- Listings tell of both directions.
drop function tide.relay_get_config(text);
drop function tide.relay_list_configs();

create function tide.relay_list_configs() returns table (
    name text, direction text, outbox text, consumer_group text, inbox text, enabled boolean, status text, reason text,
    config jsonb
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select p.name, p.direction, o.name, g.name, i.name, p.enabled,
           case when not p.enabled then 'disabled' when p.invalid_reason is not null then 'invalid' else 'enabled' end,
           p.invalid_reason, p.config
      from tide.pipeline p
      left join tide.consumer_group g on g.group_id = p.group_id
      left join tide.outbox o on o.outbox_id = g.outbox_id
      left join tide.inbox i on i.inbox_id = p.inbox_id
     order by p.name
$$;

create function tide.relay_get_config(name text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_config jsonb;
begin
    select to_jsonb(c) into found_config from tide.relay_list_configs() c where c.name = relay_get_config.name;
    if found_config is null then
        perform tide.refuse_pipeline(name);
    end if;
    return found_config;
end $$;
comment on function tide.relay_get_config is 'The pipeline as one JSON object: enabled, status, reason, config and the rest.';

create or replace function tide.grant_relay(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('grant usage on schema tide to %I', role);
    execute format('grant select on tide.migration, tide.outbox, tide.message, tide.consumer_group, tide.bell, tide.scheduler, '
                   'tide.pipeline, tide.drain, tide.dead_letter, tide.inbox, tide.position to %I', role);
    execute format('grant update (invalid_reason) on tide.pipeline to %I', role);
    execute format('grant update on tide.consumer_group, tide.bell, tide.drain to %I', role);
    execute format('grant insert on tide.dead_letter to %I', role);
    execute format('grant insert, update, delete on tide.position to %I', role);
    execute format('grant usage on sequence tide.epochs to %I', role);
    execute format('grant insert, update, delete on tide.scheduler to %I', role);
    execute format('grant execute on function tide.outbox_horizon(int), tide.outbox_last_id(int), tide.outbox_needs_partition(int), '
                   'tide.outbox_extend(text), tide.outbox_oldest_publisher_seconds(int) to %I', role);
    perform tide.grant_inbox_writer(role);
end $$;
comment on function tide.grant_relay is
    'Lets a role run schedulers, workers and the API: read messages, move offsets and positions, write inboxes and dead letters.';

create function tide.grant_inbox_writer(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('grant usage on schema tide to %I', role);
    execute format('grant select on tide.inbox to %I', role);
    execute format('grant execute on function tide.inbox_write(text, text[], text[], text[], text[], bigint[], text[], text[], text[]) '
                   'to %I', role);
end $$;
comment on function tide.grant_inbox_writer is 'Lets a role write messages into inboxes, and nothing else: for inbox sinks of other databases.';

revoke all on all functions in schema tide from public;
