-- Pipelines: configuring, enabling, listing. The fence of their drains: see tide.drain.

create or replace function tide.refuse_pipeline(name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'pipeline "%" does not exist', name using
        errcode = 'undefined_object', hint = 'List the pipelines: select * from tide.relay_list_configs(); or: relay pipeline list';
end $$;

create or replace function tide.find_pipeline(pipeline text) returns tide.pipeline
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_pipeline tide.pipeline;
begin
    select * into found_pipeline from tide.pipeline p where p.name = find_pipeline.pipeline;
    if not found then
        perform tide.refuse_pipeline(pipeline);
    end if;
    return found_pipeline;
end $$;

create or replace function tide.relay_set_outbox(name text, outbox text, consumer_group text, config jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box          tide.outbox := tide.find_message_outbox(outbox);
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
     where g.outbox_id = box.outbox_id and g.name = consumer_group and g.lane = 0;
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

create or replace function tide.relay_set_outbox(name text, outbox text, config jsonb) returns void
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

create or replace function tide.relay_set_inbox(name text, inbox text, config jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
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

create or replace function tide.keep_direction() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'pipeline "%" is a % pipeline', old.name, old.direction using
        errcode = 'duplicate_object', hint = 'Choose another name, or delete it first: select tide.relay_delete(...);';
end $$;
create or replace trigger keep_direction before update on tide.pipeline
    for each row when (old.direction <> new.direction) execute function tide.keep_direction();

create or replace function tide.relay_set_enabled(name text, enabled boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    update tide.pipeline p
       set enabled = relay_set_enabled.enabled, revision = nextval('tide.revisions'), updated_at = now()
     where p.name = relay_set_enabled.name;
    if not found then
        perform tide.refuse_pipeline(name);
    end if;
    update tide.drain d set retry_at = null where d.pipeline = relay_set_enabled.name;
    -- A bell that no one answers would only cost the publishers. The first drain after enabling arms it again.
    if not enabled then
        update tide.bell b set armed = false
          from tide.pipeline p join tide.consumer_group g on g.head_id = p.group_id
         where p.name = relay_set_enabled.name and b.group_id = g.group_id and b.armed;
    end if;
    perform pg_notify('tide_relay_config', name);
end $$;

create or replace function tide.relay_enable(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.relay_set_enabled(name, true); end;

create or replace function tide.relay_disable(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.relay_set_enabled(name, false); end;
comment on function tide.relay_disable is 'Stops after the batch in hand. The consumer group keeps its offset.';

create or replace function tide.relay_delete(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    old_group_id int;
begin
    if exists (select from tide.pipeline p where p.name = relay_delete.name and p.direction = 'jobs') then
        raise exception 'pipeline "%" belongs to a queue of jobs', name using
            errcode = 'dependent_objects_still_exist',
            hint = format('Drop the queue: select tide.job_queue_drop(%L);', substr(name, 6));
    end if;
    if exists (select from tide.stream s where s.pipeline = relay_delete.name) then
        raise exception 'pipeline "%" belongs to a stream table', name using
            errcode = 'dependent_objects_still_exist',
            hint = format('Drop the stream table: select tide.drop_stream_table(%L);', (select s.name from tide.stream s where s.pipeline = relay_delete.name));
    end if;
    delete from tide.pipeline p where p.name = relay_delete.name returning p.group_id into old_group_id;
    if not found then
        perform tide.refuse_pipeline(name);
    end if;
    delete from tide.consumer_group g where g.group_id = old_group_id;
    perform pg_notify('tide_relay_config', name);
end $$;
comment on function tide.relay_delete is 'Removes the pipeline and its consumer group, so its offset is forgotten.';

create or replace function tide.relay_list_configs() returns table (
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

create or replace function tide.relay_get_config(name text) returns jsonb
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
