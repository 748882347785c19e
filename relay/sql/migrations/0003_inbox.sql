-- Inboxes, reverse pipelines, and the positions at which sources are resumed.
--
-- A message becomes a row once: event_id is the table's primary key, and whoever writes does nothing on a conflict. A
-- reverse drain writes rows, dead letters and positions in one transaction that names its fence, commits, and only then
-- acknowledges to its source.

create table tide.inbox (
    inbox_id                  int generated always as identity primary key,
    name                      text not null unique check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_-]{0,49}$'),
    table_schema              name not null,
    table_name                name not null,
    event_id_col              name not null default 'event_id',
    event_id_type             text not null default 'text',
    tracked                   boolean not null default false,
    max_retries               int not null default 3 check (max_retries between 0 and 1000000),
    with_dead_letter          boolean not null default true,
    with_stats                boolean not null default true,
    processed_retention_hours int check (processed_retention_hours >= 0),
    dead_retention_hours      int check (dead_retention_hours >= 0),
    aggregate_id_col          name,
    seq_col                   name,
    priority_col              name,
    priority_descending       boolean not null default true,
    created_at                timestamptz not null default now(),
    unique (table_schema, table_name),
    check ((aggregate_id_col is null) = (seq_col is null))
);
comment on table tide.inbox is 'The inboxes. Each is a table, of the same name unless it was there before (tracked).';
comment on column tide.inbox.max_retries is 'Part of the indexes and views of the inbox, so it is fixed when the inbox is made.';
comment on column tide.inbox.processed_retention_hours is 'Null: as the setting inbox_processed_retention_hours says. 0: for ever.';
comment on column tide.inbox.dead_retention_hours is 'Null: as the setting inbox_dlq_retention_hours says. 0: for ever.';

-- Messages that came again. Rows are only added, so that writers never wait for each other; tide.inbox_retain sums them up.
create table tide.inbox_duplicates (
    inbox_id   int not null references tide.inbox on delete cascade,
    counted_at timestamptz not null default now(),
    messages   bigint not null
);
create index on tide.inbox_duplicates (inbox_id);

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

-- What must not happen: that code of others runs with the rights of this schema's owner, because a function of ours reads or
-- writes a table for which they have made triggers, rules, defaults, constraints, policies, indexes or types. A table
-- may belong to others, or be in their schema; on it there may be no code but that of roles which have our rights anyway.

-- Such code, as a sentence for people, or null. Rows of tables that refer to this one and are deleted or changed with its
-- rows count as its own; those of tables that inherit from it would, and are not needed.
create function tide.inbox_code_of_others(relation regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_code record;
begin
    with recursive touched (relid, depth) as (
        select relation, 0
         union
        select t.tgconstrrelid::regclass, least(d.depth + 1, 10)
          from touched d join pg_trigger t on t.tgrelid = d.relid
         where t.tgfoid in ('"RI_FKey_cascade_del"'::regproc, '"RI_FKey_setnull_del"'::regproc, '"RI_FKey_setdefault_del"'::regproc,
                            '"RI_FKey_cascade_upd"'::regproc, '"RI_FKey_setnull_upd"'::regproc, '"RI_FKey_setdefault_upd"'::regproc)
    ), part (class_id, object_id) as (
        select 'pg_class'::regclass, t.relid::oid from touched t
         union select 'pg_attrdef'::regclass, d.oid from pg_attrdef d join touched t on d.adrelid = t.relid
         union select 'pg_constraint'::regclass, c.oid from pg_constraint c join touched t on c.conrelid = t.relid
         union select 'pg_trigger'::regclass, g.oid from pg_trigger g join touched t on g.tgrelid = t.relid
         union select 'pg_class'::regclass, x.indexrelid from pg_index x join touched t on x.indrelid = t.relid
         union select 'pg_policy'::regclass, l.oid from pg_policy l join touched t on l.polrelid = t.relid
    ), used (class_id, object_id, code_class, code_id, owner) as (
        select p.*, d.refclassid, d.refobjid, coalesce(f.proowner, t.typowner, o.oprowner)
          from part p
          join pg_depend d on d.classid = p.class_id and d.objid = p.object_id
          left join pg_proc f on d.refclassid = 'pg_proc'::regclass and f.oid = d.refobjid
          left join pg_type t on d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid
          left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
         where coalesce(f.oid, t.oid, o.oid) is not null
         union all
        select 'pg_class'::regclass, relation, 'pg_class'::regclass, t.relid, c.relowner
          from touched t join pg_class c on c.oid = t.relid where t.depth > 0
         union all
        -- What a rule does is not looked into.
        select 'pg_class'::regclass, relation, 'pg_rewrite'::regclass, r.oid, null
          from pg_rewrite r join touched t on r.ev_class = t.relid
         union all
        select 'pg_class'::regclass, relation, 'pg_class'::regclass, i.inhrelid, null
          from pg_inherits i join touched t on i.inhparent = t.relid
    )
    select pg_describe_object(u.class_id, u.object_id, 0) as part, pg_describe_object(u.code_class, u.code_id, 0) as code,
           pg_get_userbyid(u.owner) as owner
      into found_code
      from used u
     where u.owner is null
        or not exists (select from pg_roles r where r.oid = u.owner and (r.rolsuper or pg_has_role(r.oid, current_user, 'member')))
     order by u.owner is null, u.class_id, u.object_id
     limit 1;
    return format('%s uses %s', found_code.part, found_code.code) || coalesce(', which belongs to ' || quote_ident(found_code.owner), '')
        where found_code.code is not null;
end $$;

-- To be called before anything with the owner's rights reads or writes the table. The lock keeps what was looked at as it
-- is until the transaction ends: 'access share' for reading.
create function tide.inbox_guard(box tide.inbox, lock_mode text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    named    text := format('%I.%I', box.table_schema, box.table_name);
    relation regclass := to_regclass(named);
    kind     "char";
    code     text;
begin
    select c.relkind into kind from pg_class c where c.oid = relation;
    if kind = 'r' then
        execute format('lock table only %s in %s mode', named, lock_mode);
        code := tide.inbox_code_of_others(relation);
    end if;
    if kind is null or to_regclass(named) is distinct from relation then
        raise exception 'the table % of inbox "%" is gone', named, box.name using
            errcode = 'invalid_table_definition',
            hint = format(case when box.tracked then 'Forget it: select tide.disable_inbox_tracking(%L);'
                               else 'Forget it: select tide.inbox_drop(%L);' end, box.name);
    elsif kind <> 'r' then
        raise exception '%, the table of inbox "%", is no ordinary table any more', named, box.name using
            errcode = 'wrong_object_type', hint = 'Somebody has replaced it, who may do so with what is in that schema.';
    elsif code is not null then
        raise exception 'inbox "%" is not touched: code of others would run with the rights of %: %', box.name, quote_ident(current_user), code
            using errcode = 'insufficient_privilege',
            hint = format('Remove it. If you trust a function or a type, and nobody else may change it, let it belong to %I.', current_user);
    end if;
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

-- One statement for a batch. The relay needs no right on the table itself.
create function tide.inbox_write(
    inbox text, event_ids text[], event_types text[], sources text[], aggregate_ids text[], event_sequences bigint[],
    payloads text[], headers text[], trace_ids text[]
) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box     tide.inbox := tide.find_inbox(inbox);
    given   bigint := coalesce(cardinality(event_ids), 0);
    written bigint;
begin
    perform tide.inbox_guard(box, 'row exclusive');
    -- received_at is written, as a table that was there before may have no default for it.
    execute format('insert into %I.%I '
        '(%I, event_type, source, aggregate_id, event_sequence, payload, headers, trace_id, received_at) '
        'select r.event_id::%s, r.event_type, r.source, r.aggregate_id, r.event_sequence, r.payload::jsonb, '
        '       coalesce(r.headers, ''{}'')::jsonb, r.trace_id, now() '
        '  from unnest($1, $2, $3, $4, $5, $6, $7, $8) as '
        '       r (event_id, event_type, source, aggregate_id, event_sequence, payload, headers, trace_id) '
        'on conflict (%3$I) do nothing', box.table_schema, box.table_name, box.event_id_col, box.event_id_type)
        using event_ids, event_types, sources, aggregate_ids, event_sequences, payloads, headers, trace_ids;
    get diagnostics written = row_count;
    if written < given then
        insert into tide.inbox_duplicates (inbox_id, messages) values (box.inbox_id, given - written);
    end if;
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
