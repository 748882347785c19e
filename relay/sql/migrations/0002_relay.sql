-- Pipelines: their configuration, ownership, drains and dead letters.
--
-- Every write of a drain names its fence: epoch and number. The epoch grows whenever a pipeline gets a new owner or its
-- drain was given up; it grows only while no lease runs, so that two drains of a pipeline never publish at once.

-- Neither number ever comes back, also when a pipeline is deleted and made again under its name: a message of the old
-- one's drains stays stale, and no open sink of the old one is taken for the new one's.
create sequence tide.revisions;
create sequence tide.epochs;

create table tide.pipeline (
    name           text primary key check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'),
    direction      text not null check (direction in ('forward', 'reverse')),
    group_id       int unique references tide.consumer_group,
    enabled        boolean not null default true,
    config         jsonb not null check (jsonb_typeof(config) = 'object'),
    revision       bigint not null default nextval('tide.revisions'),
    invalid_reason text,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    check ((direction = 'forward') = (group_id is not null))
);
comment on column tide.pipeline.revision is 'Grows with every change; a running drain stops at the next batch when it sees one.';
comment on column tide.pipeline.invalid_reason is 'Why a scheduler cannot run this configuration; null if it can.';

create table tide.drain (
    pipeline     text primary key references tide.pipeline on delete cascade,
    owner        uuid,
    epoch        bigint not null default 0,
    number       bigint not null default 0,
    lease_until  timestamptz,
    outcome      text,
    failures     int not null default 0,
    retry_at     timestamptz,
    error_code   text,
    error        text,
    error_at     timestamptz,
    ended_at     timestamptz,
    delivered    bigint not null default 0,
    dead_letters bigint not null default 0
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table tide.drain is 'The last drain of each pipeline: its fence (epoch, number), its lease, what became of it.';

create table tide.dead_letter (
    dead_letter_id bigint generated always as identity primary key,
    pipeline       text not null,
    outbox         text not null,
    message_id     bigint not null,
    key            text,
    headers        jsonb not null,
    payload        jsonb not null,
    published_at   timestamptz not null,
    failed_at      timestamptz not null default now(),
    code           text not null,
    reason         text not null,
    unique (pipeline, outbox, message_id)
);

create function tide.refuse_pipeline(name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'pipeline "%" does not exist', name using
        errcode = 'undefined_object', hint = 'List the pipelines: select * from tide.relay_list_configs();';
end $$;

create function tide.relay_set_outbox(name text, outbox text, consumer_group text, config jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box          tide.outbox := tide.find_outbox(outbox);
    old_group_id int;
    new_group_id int;
begin
    if coalesce(jsonb_typeof(config), 'null') <> 'object' then
        raise exception 'the configuration of pipeline "%" must be a JSON object, not %', name, coalesce(jsonb_typeof(config), 'NULL')
            using errcode = 'invalid_parameter_value', hint = 'For example: ''{"sink_type": "nats", "url": "nats://localhost:4222"}''.';
    elsif coalesce(jsonb_typeof(config -> 'sink_type'), 'null') <> 'string' then
        raise exception 'the configuration of pipeline "%" has no sink_type', name
            using errcode = 'invalid_parameter_value', hint = 'Name the kind of sink, for example "sink_type": "nats".';
    end if;
    if name is null or name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$' or coalesce(consumer_group, '') !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$' then
        raise exception 'pipeline name % or consumer group % is not valid',
            coalesce(quote_literal(name), 'NULL'), coalesce(quote_literal(consumer_group), 'NULL') using
            errcode = 'invalid_name',
            hint = 'Use 1 to 100 letters, digits, "_", "-" and ".", not starting with "-" or ".".';
    end if;
    insert into tide.consumer_group (outbox_id, name) values (box.outbox_id, consumer_group) on conflict do nothing;
    select g.group_id into new_group_id from tide.consumer_group g
     where g.outbox_id = box.outbox_id and g.name = consumer_group;
    insert into tide.bell (group_id, outbox_id) values (new_group_id, box.outbox_id) on conflict do nothing;
    if exists (select from tide.pipeline p where p.group_id = new_group_id and p.name <> relay_set_outbox.name) then
        raise exception 'consumer group "%" of outbox "%" belongs to another pipeline', consumer_group, outbox using
            errcode = 'duplicate_object', hint = 'Give each pipeline a consumer group of its own.';
    end if;
    select p.group_id into old_group_id from tide.pipeline p where p.name = relay_set_outbox.name for update;
    insert into tide.pipeline as p (name, direction, group_id, config) values (name, 'forward', new_group_id, config)
    on conflict on constraint pipeline_pkey do update
        set direction = 'forward', group_id = excluded.group_id, config = excluded.config,
            revision = nextval('tide.revisions'), invalid_reason = null, updated_at = now();
    -- A changed configuration may cure what a retry waits for.
    insert into tide.drain (pipeline) values (name) on conflict on constraint drain_pkey do update set retry_at = null;
    delete from tide.consumer_group g where g.group_id = old_group_id and old_group_id <> new_group_id;
    perform pg_notify('tide_relay_config', name);
end $$;
comment on function tide.relay_set_outbox(text, text, text, jsonb) is
    'Creates or changes a forward pipeline. A new one is enabled and starts at the oldest message kept.';

create function tide.relay_set_outbox(name text, outbox text, config jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    present_group text;
begin
    select g.name into present_group
      from tide.pipeline p
      join tide.consumer_group g on g.group_id = p.group_id
      join tide.outbox o on o.outbox_id = g.outbox_id
     where p.name = relay_set_outbox.name and o.name = relay_set_outbox.outbox;
    perform tide.relay_set_outbox(name, outbox, coalesce(present_group, name), config);
end $$;
comment on function tide.relay_set_outbox(text, text, jsonb) is
    'The same; a new pipeline has a consumer group of its own name, another keeps the one it has.';

create function tide.relay_set_enabled(name text, enabled boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update tide.pipeline p
       set enabled = relay_set_enabled.enabled, revision = nextval('tide.revisions'), updated_at = now()
     where p.name = relay_set_enabled.name;
    if not found then
        perform tide.refuse_pipeline(name);
    end if;
    update tide.drain d set retry_at = null where d.pipeline = name;
    -- A bell that nobody answers would only cost the publishers. The first drain after enabling arms it again.
    if not enabled then
        update tide.bell b set armed = false
          from tide.pipeline p where p.name = relay_set_enabled.name and b.group_id = p.group_id and b.armed;
    end if;
    perform pg_notify('tide_relay_config', name);
end $$;

create function tide.relay_enable(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.relay_set_enabled(name, true); end;

create function tide.relay_disable(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.relay_set_enabled(name, false); end;
comment on function tide.relay_disable is 'Stops after the batch in hand. The consumer group keeps its offset.';

create function tide.relay_delete(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    old_group_id int;
begin
    delete from tide.pipeline p where p.name = relay_delete.name returning p.group_id into old_group_id;
    if not found then
        perform tide.refuse_pipeline(name);
    end if;
    delete from tide.consumer_group g where g.group_id = old_group_id;
    perform pg_notify('tide_relay_config', name);
end $$;
comment on function tide.relay_delete is 'Removes the pipeline and its consumer group, so its offset is forgotten.';

create function tide.relay_list_configs() returns table (
    name text, direction text, outbox text, consumer_group text, enabled boolean, status text, reason text, config jsonb
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select p.name, p.direction, o.name, g.name, p.enabled,
           case when not p.enabled then 'disabled' when p.invalid_reason is not null then 'invalid' else 'enabled' end,
           p.invalid_reason, p.config
      from tide.pipeline p
      left join tide.consumer_group g on g.group_id = p.group_id
      left join tide.outbox o on o.outbox_id = g.outbox_id
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

create function tide.outbox_drop(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box     tide.outbox;
    used_by text;
begin
    select * into box from tide.outbox o where o.name = outbox_drop.name;
    if not found then
        if not if_exists then
            perform tide.find_outbox(name);
        end if;
        return;
    end if;
    select string_agg(format('%I', p.name), ', ' order by p.name) into used_by
      from tide.pipeline p join tide.consumer_group g on g.group_id = p.group_id where g.outbox_id = box.outbox_id;
    if used_by is not null then
        raise exception 'outbox "%" is read by pipelines: %', name, used_by using
            errcode = 'dependent_objects_still_exist', hint = 'Delete them first: select tide.relay_delete(...);';
    end if;
    delete from tide.consumer_group g where g.outbox_id = box.outbox_id;
    delete from tide.outbox o where o.outbox_id = box.outbox_id;
    execute format('drop table tide.message_%s', box.outbox_id);
    execute format('drop sequence tide.message_%s_ids', box.outbox_id);
end $$;
comment on function tide.outbox_drop is 'Removes the outbox and all its messages, delivered or not.';

revoke all on all functions in schema tide from public;

-- Two roles, so that no application and no relay needs to own the schema.
create function tide.grant_publisher(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('grant usage on schema tide to %I', role);
    execute format('grant execute on function tide.outbox_publish(text, jsonb, jsonb, text), '
                   'tide.outbox_publish_many(text, jsonb[], text[], jsonb[]) to %I', role);
end $$;
comment on function tide.grant_publisher is 'Lets a role publish, and nothing else.';

create function tide.grant_relay(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('grant usage on schema tide to %I', role);
    execute format('grant select on all tables in schema tide to %I', role);
    execute format('grant update (invalid_reason) on tide.pipeline to %I', role);
    execute format('grant update on tide.consumer_group, tide.bell, tide.drain to %I', role);
    execute format('grant insert on tide.dead_letter to %I', role);
    execute format('grant usage on sequence tide.epochs to %I', role);
    execute format('grant insert, update, delete on tide.scheduler to %I', role);
    execute format('grant execute on function tide.outbox_horizon(int), tide.outbox_last_id(int), tide.outbox_needs_partition(int), '
                   'tide.outbox_extend(text), tide.outbox_oldest_publisher_seconds(int) to %I', role);
end $$;
comment on function tide.grant_relay is 'Lets a role run schedulers and workers: read messages, move offsets, write dead letters.';

revoke all on all functions in schema tide from public;
