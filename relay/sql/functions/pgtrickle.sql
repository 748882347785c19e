-- The schema pgtrickle: the calls of earlier systems, by their names, arguments and defaults, each a wrapper of tide's.
--
-- They run with the rights of their caller, who needs those of the functions that they call. Bodies are bound when they
-- are made: no search_path of a caller can turn them. Only names of tables are looked up as the caller would.

-- Outboxes and their consumers ----------------------------------------------------------------------------------------

-- Earlier systems name an outbox by its table, with its schema or without.
create or replace function tide.outbox_of(name text, source regclass) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce((select o.name from tide.outbox o where o.name = outbox_of.name),
                    (select o.name from tide.table_outbox t join tide.outbox o on o.outbox_id = t.outbox_id
                      where t.source = outbox_of.source),
                    (select o.name from tide.stream s join tide.outbox o on o.outbox_id = s.outbox_id where s.relation = outbox_of.source),
                    outbox_of.name);
end;
comment on function tide.outbox_of is 'The outbox of that name, else that of the table, else the name, which is of no outbox.';

create or replace function pgtrickle.outbox_of(name text) returns text
language sql stable
return tide.outbox_of(name, case when name ~ '^[^.]+(\.[^.]+)?$' then to_regclass(name) end);
comment on function pgtrickle.outbox_of is 'The outbox of that name, or of the table of that name; else the name itself.';

create or replace function pgtrickle.enable_outbox(table_name text, retention_hours int default null) returns text
language sql
begin atomic
    select case when tide.is_stream_table(table_name::regclass) then tide.stream_outbox_enable(table_name, retention_hours => retention_hours)
                else tide.table_outbox_enable(table_name::regclass, retention_hours => retention_hours) end;
end;
comment on function pgtrickle.enable_outbox is
    'Has each refresh of a stream table, or each statement that changes another table, publish what it changed. Returns the name of the outbox.';

create or replace function pgtrickle.disable_outbox(table_name text) returns void
language sql
begin atomic
    select tide.stream_outbox_disable(table_name) where tide.is_stream_table(table_name::regclass);
    select tide.table_outbox_disable(table_name::regclass) where not tide.is_stream_table(table_name::regclass);
end;
comment on function pgtrickle.disable_outbox is 'The table publishes no more. What was published is still delivered.';

create or replace function pgtrickle.outbox_status(
    name text,
    out outbox text, out enabled boolean, out retention_hours int, out max_payload_bytes int, out last_id bigint,
    out horizon bigint, out open_publishers int, out partitions int, out total_bytes bigint, out consumer_groups int,
    out slowest_group text, out lag bigint
)
language sql
begin atomic select * from tide.outbox_status(pgtrickle.outbox_of(outbox_status.name)); end;

create or replace function pgtrickle.create_consumer_group(
    name text, outbox text, auto_offset_reset text default 'earliest', if_not_exists boolean default false
) returns void
language sql
begin atomic select tide.create_consumer_group(name, pgtrickle.outbox_of(outbox), auto_offset_reset, if_not_exists); end;

create or replace function pgtrickle.drop_consumer_group(name text, if_exists boolean default false) returns void
language sql
begin atomic select tide.drop_consumer_group(name, if_exists); end;

create or replace function pgtrickle.poll_outbox(consumer_group text, consumer text, batch_size int default 100, visibility_seconds int default 30)
returns table (outbox_id bigint, payload jsonb, key text, headers jsonb, created_at timestamptz)
language sql
begin atomic
    select m.id, m.payload, m.key, m.headers, m.created_at
      from tide.poll_outbox(consumer_group, consumer, batch_size, visibility_seconds) m;
end;
comment on function pgtrickle.poll_outbox is 'Leases the next messages to a consumer; outbox_id is the id of the message.';

create or replace function pgtrickle.commit_offset(consumer_group text, consumer text, last_offset bigint) returns bigint
language sql
begin atomic select tide.commit_offset(consumer_group, consumer, last_offset); end;

create or replace function pgtrickle.extend_lease(consumer_group text, consumer text, extension_seconds int default 30) returns timestamptz
language sql
begin atomic select tide.extend_lease(consumer_group, consumer, extension_seconds); end;

create or replace function pgtrickle.seek_offset(consumer_group text, consumer text, new_offset bigint) returns void
language sql
begin atomic select tide.seek_offset(consumer_group, consumer, new_offset); end;

create or replace function pgtrickle.consumer_heartbeat(consumer_group text, consumer text) returns void
language sql
begin atomic select tide.consumer_heartbeat(consumer_group, consumer); end;

create or replace function pgtrickle.consumer_lag(consumer_group text default null) returns table (
    consumer_group text, outbox text, offset_id bigint, horizon bigint, lag bigint, lag_seconds float8, leased bigint, consumers bigint
)
language sql
begin atomic select * from tide.consumer_lag(consumer_lag.consumer_group); end;

-- Inboxes -------------------------------------------------------------------------------------------------------------
create or replace function pgtrickle.create_inbox(
    name text, schema text default 'pgtrickle', max_retries int default 3, with_dead_letter boolean default true,
    with_stats boolean default true, schedule_seconds int default 5
) returns void
language sql
begin atomic select tide.inbox_create(name, schema, max_retries, with_dead_letter, with_stats); end;
comment on function pgtrickle.create_inbox is
    'Makes an inbox and its views. schedule_seconds is taken and not needed: the views are never behind.';

create or replace function pgtrickle.drop_inbox(name text, if_exists boolean default false) returns void
language sql
begin atomic select tide.inbox_drop(name, if_exists); end;

create or replace function pgtrickle.inbox_health(inbox text) returns jsonb
language sql
begin atomic select tide.inbox_health(inbox); end;

create or replace function pgtrickle.inbox_status(inbox text default null) returns table (
    name text, table_schema name, table_name name, pending bigint, claimed bigint, retrying bigint, processed bigint,
    dead bigint, oldest_pending_seconds float8, duplicates bigint, total_bytes bigint
)
language sql
begin atomic select * from tide.inbox_status(inbox_status.inbox); end;

create or replace function pgtrickle.replay_inbox_messages(inbox text, event_ids text[]) returns int
language sql
begin atomic select tide.replay_inbox_messages(inbox, event_ids); end;

create or replace function pgtrickle.enable_inbox_ordering(
    inbox text, aggregate_id_col text default 'aggregate_id', seq_col text default 'event_sequence'
) returns void
language sql
begin atomic select tide.enable_inbox_ordering(inbox, aggregate_id_col, seq_col); end;

create or replace function pgtrickle.disable_inbox_ordering(inbox text) returns void
language sql
begin atomic select tide.disable_inbox_ordering(inbox); end;

create or replace function pgtrickle.inbox_ordering_gaps(inbox text) returns table (aggregate_id text, expected bigint, found bigint)
language sql
begin atomic select * from tide.inbox_ordering_gaps(inbox_ordering_gaps.inbox); end;

create or replace function pgtrickle.enable_inbox_priority(inbox text, priority_col text, descending boolean default true) returns void
language sql
begin atomic select tide.enable_inbox_priority(inbox, priority_col, descending); end;

create or replace function pgtrickle.disable_inbox_priority(inbox text) returns void
language sql
begin atomic select tide.disable_inbox_priority(inbox); end;

create or replace function pgtrickle.inbox_is_my_partition(aggregate_id text, worker int, workers int) returns boolean
language sql immutable parallel safe
return tide.inbox_is_my_partition(aggregate_id, worker, workers);

create or replace function pgtrickle.enable_inbox_tracking(
    table_name text, name text default null, event_id_col text default 'event_id', max_retries int default 3
) returns text
language sql
begin atomic
    select tide.enable_inbox_tracking(table_name::regclass, name, event_id_col, max_retries => max_retries);
end;
comment on function pgtrickle.enable_inbox_tracking is 'Makes an existing table an inbox, and returns its name.';

-- Pipelines -----------------------------------------------------------------------------------------------------------

-- Sessions that listen to pg_trickle's channel are notified of every change, too.
create or replace function pgtrickle.relay_changed(name text) returns void
language sql
begin atomic select pg_notify('pgtrickle_relay_config', name); end;

-- The text under the first of these keys.
create or replace function pgtrickle.relay_box(name text, config jsonb, keys text[]) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    box text;
begin
    select config ->> k.key into box from unnest(keys) with ordinality as k (key, n)
     where jsonb_typeof(config -> k.key) = 'string' order by k.n limit 1;
    if box is null then
        raise exception 'the configuration of pipeline "%" has no %', name, keys[1] using
            errcode = 'invalid_parameter_value', hint = format('Name it, for example "%s": "orders".', keys[1]);
    end if;
    return box;
end $$;

-- The outbox that a configuration names. What is there is taken; a table that is named as stream_table becomes one; else it is made.
create or replace function pgtrickle.relay_outbox(name text, config jsonb) returns text
language plpgsql as $$
declare
    named pg_catalog.text := pgtrickle.relay_box(name, config, '{stream_table,outbox}');
    box   pg_catalog.text := pgtrickle.outbox_of(named);
begin
    if exists (select from tide.outbox o where o.name operator(pg_catalog.=) box) then
        return box;
    elsif pg_catalog.jsonb_typeof(config operator(pg_catalog.->) 'stream_table') operator(pg_catalog.=) 'string'
          and named operator(pg_catalog.~) E'^[^.]+(\\.[^.]+)?$' and pg_catalog.to_regclass(named) is not null then
        return pgtrickle.enable_outbox(named);
    end if;
    perform tide.outbox_create(named);
    return named;
end $$;

-- What is new does not run until it is enabled; what is there goes on as it was.
create or replace function pgtrickle.set_relay_outbox(name text, config jsonb) returns void
language plpgsql as $$
declare
    box    pg_catalog.text := pgtrickle.relay_outbox(name, config);
    is_new boolean := not exists (select from tide.relay_list_configs() c where c.name operator(pg_catalog.=) set_relay_outbox.name);
    rest   pg_catalog.jsonb := config operator(pg_catalog.-) '{stream_table,outbox,consumer_group}'::pg_catalog.text[];
begin
    if config operator(pg_catalog.->>) 'consumer_group' is null then
        perform tide.relay_set_outbox(name, box, rest);
    else
        perform tide.relay_set_outbox(name, box, config operator(pg_catalog.->>) 'consumer_group', rest);
    end if;
    if is_new then
        perform tide.relay_disable(name);
    end if;
    perform pgtrickle.relay_changed(name);
end $$;
comment on function pgtrickle.set_relay_outbox is
    'Creates or changes a forward pipeline; stream_table names the outbox, which is made if need be. A new pipeline is disabled: enable it with enable_relay.';

create or replace function pgtrickle.set_relay_inbox(name text, config jsonb) returns void
language plpgsql as $$
declare
    box    pg_catalog.text := pgtrickle.relay_box(name, config, '{inbox_table,inbox}');
    is_new boolean := not exists (select from tide.relay_list_configs() c where c.name operator(pg_catalog.=) set_relay_inbox.name);
begin
    if not exists (select from tide.inbox i where i.name operator(pg_catalog.=) box) then
        perform pgtrickle.create_inbox(box);
    end if;
    perform tide.relay_set_inbox(name, box, config operator(pg_catalog.-) '{inbox_table,inbox}'::pg_catalog.text[]);
    if is_new then
        perform tide.relay_disable(name);
    end if;
    perform pgtrickle.relay_changed(name);
end $$;
comment on function pgtrickle.set_relay_inbox is
    'Creates or changes a reverse pipeline; inbox_table names the inbox, which is made if need be. A new pipeline is disabled: enable it with enable_relay.';

create or replace function pgtrickle.enable_relay(name text) returns void
language sql
begin atomic select tide.relay_enable(name); select pgtrickle.relay_changed(name); end;

create or replace function pgtrickle.disable_relay(name text) returns void
language sql
begin atomic select tide.relay_disable(name); select pgtrickle.relay_changed(name); end;

create or replace function pgtrickle.delete_relay(name text) returns void
language sql
begin atomic select tide.relay_delete(name); select pgtrickle.relay_changed(name); end;

create or replace function pgtrickle.get_relay_config(name text) returns jsonb
language sql stable
begin atomic select tide.relay_get_config(name); end;

create or replace function pgtrickle.list_relay_configs() returns table (
    name text, direction text, outbox text, consumer_group text, inbox text, enabled boolean, status text, reason text, config jsonb
)
language sql stable
begin atomic select * from tide.relay_list_configs(); end;
