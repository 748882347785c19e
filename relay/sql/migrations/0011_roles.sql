-- Who may do what: kinds of roles, each with the least that it needs, and rights to single outboxes and inboxes.
--
-- A right is a row of tide.permission, and nowhere else; tide.grant_admin, tide.grant_publisher and the others give a role
-- all rows of its kind. A migration that makes a function says there who may call it, or that nobody but the owner may.

create table tide.permission (
    kind        text not null check (kind in ('admin', 'operator', 'reader', 'publisher', 'consumer', 'inbox_worker',
                                              'relay', 'api', 'inbox_writer', 'owner')),
    object_type text not null check (object_type in ('function', 'table', 'sequence')),
    schema      name not null default 'tide',
    object      name not null,
    privileges  text not null default 'execute',
    primary key (kind, object_type, schema, object)
);
comment on table tide.permission is
    'The rights of each kind of role; kind owner: nobody else has any. A function stands for all of its name.';

insert into tide.permission (kind, object_type, object)
select p.kind, 'function', unnest(p.names)
  from (values
    -- What configures.
    ('admin', array[
        'outbox_create', 'outbox_create_if_not_exists', 'outbox_drop', 'outbox_grant_publish', 'outbox_revoke_publish',
        'relay_set_outbox', 'relay_set_inbox', 'relay_delete', 'create_consumer_group', 'drop_consumer_group',
        'inbox_create', 'inbox_drop', 'inbox_grant', 'inbox_revoke', 'enable_inbox_ordering', 'disable_inbox_ordering',
        'enable_inbox_priority', 'disable_inbox_priority', 'enable_inbox_tracking', 'disable_inbox_tracking',
        'setting_set', 'setting_reset',
        -- A table is made an outbox with the rights of its owner: so these need their parts, too.
        'table_outbox_enable', 'table_outbox_disable', 'table_outbox_changed', 'table_outbox_tables',
        'table_outbox_triggers', 'table_outbox_register', 'table_outbox_forget', 'table_name']),
    -- What keeps going what is configured.
    ('operator', array[
        'outbox_enable', 'outbox_disable', 'outbox_extend', 'outbox_needs_partition', 'relay_enable', 'relay_disable',
        'relay_list_configs', 'relay_get_config', 'relay_config_history', 'relay_dlq_list', 'relay_dlq_retry', 'relay_dlq_discard',
        'relay_dlq_purge', 'relay_replay', 'relay_replay_preview', 'relay_replay_cancel', 'seek_offset', 'consumers_reap',
        'outbox_set_retention', 'outbox_retain', 'inbox_retain', 'dead_letter_retain', 'config_history_retain']),
    -- What tells how things are, and shows neither messages nor configurations.
    ('reader', array[
        'outbox_status', 'outbox_last_id', 'outbox_horizon', 'outbox_oldest_publisher_seconds', 'outbox_holds',
        'consumer_lag', 'consumer_status', 'inbox_status', 'inbox_health', 'inbox_ordering_gaps',
        'relay_dlq_stats', 'relay_replays', 'table_outbox_status', 'setting_number', 'setting_is_on']),
    ('publisher', array['outbox_publish', 'outbox_publish_many', 'publish_anywhere']),
    ('consumer', array[
        'poll_outbox', 'commit_offset', 'extend_lease', 'consumer_heartbeat', 'consumer_lag', 'consumer_status']),
    -- What works inboxes off, with the caller's rights: so it needs its parts, too.
    ('inbox_worker', array[
        'inbox_claim', 'inbox_mark_processed', 'inbox_mark_failed', 'inbox_release', 'replay_inbox_messages', 'inbox_status',
        'inbox_health',
        'inbox_ordering_gaps', 'inbox_is_my_partition', 'find_inbox', 'inbox_pending', 'inbox_dead', 'inbox_relation',
        'inbox_claimable', 'inbox_waiting', 'inbox_is_next', 'inbox_heads', 'inbox_lock', 'inbox_lock_next',
        'inbox_lock_aggregates']),
    ('relay', array[
        'outbox_horizon', 'outbox_last_id', 'outbox_needs_partition', 'outbox_extend', 'outbox_oldest_publisher_seconds',
        'outbox_retain', 'outbox_holds', 'inbox_retain', 'dead_letter_retain', 'config_history_retain', 'consumers_reap']),
    ('api', array['inbox_look']),
    ('inbox_writer', array['inbox_write']),
    ('owner', array[
        'grant_admin', 'grant_operator', 'grant_reader', 'grant_publisher', 'grant_consumer', 'grant_relay', 'grant_api',
        'grant_inbox_writer', 'grant_rights', 'kinds_of', 'may_publish', 'guard_publishing', 'new_outbox_guarded', 'require_role',
        'inbox_rights',
        'find_outbox', 'find_pipeline', 'find_setting', 'lock_class', 'attach_partition', 'outbox_upper',
        'outbox_set_enabled', 'outbox_mark', 'outbox_asleep', 'outbox_refuse', 'refuse_pipeline', 'relay_set_enabled',
        'inbox_notify', 'keep_direction', 'redelivery_floor', 'redelivery_wake', 'forget_requests', 'end_replays', 'caller',
        'refuse_dead_letter', 'direction_of', 'replay_range', 'pipeline_described', 'keep_history',
        'check_consumer_name', 'check_isolation', 'check_seconds', 'consumer_alive_since', 'consumer_group_lock',
        'consumer_lease_again',
        'consumer_lease_new', 'consumer_seen', 'consumer_settle', 'consumer_unsettled', 'find_consumer_groups',
        'message_batch', 'message_count', 'refuse_commit', 'refuse_consumer_group', 'refuse_polled_group',
        'inbox_add_columns', 'inbox_build', 'inbox_check_column', 'inbox_check_table', 'inbox_code_of_others', 'inbox_failed',
        'inbox_forget', 'inbox_guard', 'inbox_refuse_name', 'inbox_remove', 'held_for_long', 'lock_holders', 'longest_hold', 'newest_message', 'outbox_cut',
        'outbox_drop_partitions', 'outbox_drop_tables', 'outbox_groups', 'outbox_may_go', 'outbox_partitions', 'outbox_truncate', 'record_losses',
        'outbox_append', 'is_array', 'keep_table_outbox', 'table_key', 'table_outbox_append_chunk',
        'table_outbox_append_rows', 'table_outbox_columns', 'table_outbox_problem', 'table_outbox_refuse_size',
        'table_outbox_refuse_table'])
  ) as p (kind, names);

insert into tide.permission (kind, object_type, object, privileges)
select p.kind, p.object_type, unnest(p.names), p.privileges
  from (values
    ('relay', 'table', 'select', array[
        'migration', 'outbox', 'message', 'scheduler', 'pipeline', 'inbox', 'setting', 'redelivery_waiting',
        'retention_loss', 'hold']),
    ('relay', 'table', 'select, update', array['consumer_group', 'bell', 'drain', 'replay', 'chore']),
    ('relay', 'table', 'select, insert, update, delete', array['dead_letter', 'position']),
    ('relay', 'sequence', 'usage', array['epochs']),
    ('api', 'table', 'select', array['migration', 'pipeline', 'outbox', 'consumer_group']),
    ('inbox_writer', 'table', 'select', array['inbox']),
    ('inbox_worker', 'table', 'select', array['inbox']),
    ('operator', 'table', 'select', array['pipeline', 'position', 'replay', 'redelivery_waiting']),
    ('reader', 'table', 'select', array[
        'migration', 'outbox', 'consumer_group', 'bell', 'scheduler', 'drain', 'inbox', 'setting', 'retention_loss',
        'permission']),
    ('reader', 'table', 'select (name, direction, group_id, inbox_id, enabled, revision, invalid_reason, created_at, updated_at)',
        array['pipeline']),
    ('reader', 'table', 'select (outbox_id, id, created_at, size)', array['message']),
    ('owner', 'table', 'all', array['consumer', 'consumer_lease', 'inbox_duplicates', 'pipeline_history', 'publish_guard',
        'table_outbox', 'truncating']),
    ('owner', 'sequence', 'all', array['revisions'])
  ) as p (kind, object_type, privileges, names);

update tide.permission p set privileges = 'select, update (invalid_reason)' where (p.kind, p.object) = ('relay', 'pipeline');
update tide.permission p set privileges = 'select, insert, update, delete' where (p.kind, p.object) = ('relay', 'scheduler');

-- Which kinds a kind is, beside itself.
create function tide.kinds_of(kind text) returns text[]
language sql immutable
return case kind when 'admin' then array['admin', 'operator', 'reader']
                 when 'operator' then array['operator', 'reader']
                 when 'relay' then array['relay', 'api', 'inbox_writer']
                 when 'api' then array['api', 'inbox_writer']
                 when 'consumer' then array['consumer', 'inbox_worker']
                 else array[kind] end;

create function tide.require_role(role name) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_roles r where r.rolname = require_role.role) then
        raise exception 'role % does not exist', coalesce(quote_ident(role), 'NULL') using
            errcode = 'undefined_object', hint = 'Create it first, or have relay migrate --roles make the roles of tide-relay.';
    end if;
end $$;

create function tide.grant_rights(kind text, role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    object record;
begin
    perform tide.require_role(role);
    for object in
        select distinct p.schema from tide.permission p
         where p.kind = any (tide.kinds_of(grant_rights.kind)) and to_regnamespace(quote_ident(p.schema)) is not null
    loop
        execute format('grant usage on schema %I to %I', object.schema, role);
    end loop;
    for object in
        select p.privileges, 'function ' || f.oid::regprocedure as named
          from tide.permission p
          join pg_namespace n on n.nspname = p.schema
          join pg_proc f on f.pronamespace = n.oid and f.proname = p.object
         where p.object_type = 'function' and p.kind = any (tide.kinds_of(grant_rights.kind))
         union all
        select p.privileges, format('%s %I.%I', p.object_type, p.schema, p.object)
          from tide.permission p
          join pg_namespace n on n.nspname = p.schema
          join pg_class c on c.relnamespace = n.oid and c.relname = p.object
         where p.object_type <> 'function' and p.kind = any (tide.kinds_of(grant_rights.kind))
    loop
        execute format('grant %s on %s to %I', object.privileges, object.named, role);
    end loop;
end $$;

create function tide.grant_admin(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('admin', role); end;
comment on function tide.grant_admin is 'Lets a role configure, and all that an operator may. It can neither publish nor read an outbox.';

create function tide.grant_operator(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('operator', role); end;
comment on function tide.grant_operator is
    'Lets a role stop and start pipelines, see to dead letters and replays, and read configurations; and all that a reader may.';

create function tide.grant_reader(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('reader', role); end;
comment on function tide.grant_reader is 'Lets a role see how things are: no message, no configuration.';

create function tide.grant_consumer(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('consumer', role); end;
comment on function tide.grant_consumer is
    'Lets a role poll consumer groups, and call what works inboxes off: those that tide.inbox_grant gives it.';

create or replace function tide.grant_publisher(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_rights('publisher', role);
end $$;
comment on function tide.grant_publisher is 'Lets a role publish to every outbox, and nothing else. For single ones: tide.outbox_grant_publish.';

create or replace function tide.grant_relay(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_rights('relay', role);
end $$;

create or replace function tide.grant_api(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_rights('api', role);
end $$;

create or replace function tide.grant_inbox_writer(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_rights('inbox_writer', role);
end $$;

-- The right to publish to single outboxes -----------------------------------------------------------------------------
--
-- Publishing runs with its owner's rights, so that PostgreSQL does not ask who publishes where. From the first right to
-- a single outbox on, every outbox is guarded, and a publish asks: for the right to publish anywhere, which is EXECUTE
-- on tide.publish_anywhere, or for the right to this outbox, which is USAGE on the sequence of its ids. So PostgreSQL
-- keeps these rights as it keeps all others: through memberships, renamed roles, DROP OWNED, dumps. Until then a publish
-- reads one boolean.

alter table tide.outbox add column guarded boolean not null default false;
comment on column tide.outbox.guarded is 'Whether a publish asks for the right to this outbox; see tide.outbox_grant_publish.';

create table tide.publish_guard (
    guarded_since timestamptz not null default now()
);
create unique index publish_guard_is_one_row on tide.publish_guard ((true));
comment on table tide.publish_guard is 'One row since somebody has had the right to a single outbox.';

create function tide.publish_anywhere() returns void
language sql immutable
begin atomic
end;
comment on function tide.publish_anywhere is 'Does nothing. Who may execute it may publish to every outbox.';

-- Whoever could publish until now could do so to every outbox.
do $$
declare
    grantee record;
begin
    for grantee in
        select distinct r.rolname
          from pg_proc f, aclexplode(f.proacl) a join pg_roles r on r.oid = a.grantee
         where f.oid = 'tide.outbox_publish(text, jsonb, jsonb, text)'::regprocedure and a.privilege_type = 'EXECUTE'
           and a.grantee <> f.proowner
    loop
        execute format('grant execute on function tide.publish_anywhere() to %I', grantee.rolname);
    end loop;
end $$;

-- Inside a function that runs with its owner's rights the caller is known only as the role of the session.
create function tide.may_publish(ids regclass) returns boolean
language sql stable
return has_function_privilege(tide.caller()::name, 'tide.publish_anywhere()'::regprocedure, 'execute')
    or has_sequence_privilege(tide.caller()::name, ids, 'usage');

create function tide.new_outbox_guarded() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    new.guarded := exists (select from tide.publish_guard);
    return new;
end $$;
create trigger new_outbox_guarded before insert on tide.outbox for each row execute function tide.new_outbox_guarded();

-- The lock keeps outboxes from being made meanwhile, which would not see that they are to be guarded. Publishers go on.
create function tide.guard_publishing() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    if not exists (select from tide.publish_guard) then
        lock table tide.outbox in share row exclusive mode;
        insert into tide.publish_guard default values on conflict do nothing;
        update tide.outbox o set guarded = true where not o.guarded;
    end if;
end $$;

create function tide.outbox_grant_publish(outbox text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    perform tide.require_role(role);
    perform tide.guard_publishing();
    execute format('grant usage on schema tide to %I', role);
    execute format('grant usage on sequence %s to %I', box.ids, role);
    execute format('grant execute on function tide.outbox_publish(text, jsonb, jsonb, text), '
                   'tide.outbox_publish_many(text, jsonb[], text[], jsonb[]) to %I', role);
end $$;
comment on function tide.outbox_grant_publish is
    'Lets a role publish to this outbox. One that may publish to every outbox (tide.grant_publisher) still may.';

create function tide.outbox_revoke_publish(outbox text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    perform tide.require_role(role);
    execute format('revoke usage on sequence %s from %I', box.ids, role);
end $$;
comment on function tide.outbox_revoke_publish is 'Takes back what tide.outbox_grant_publish gave, and nothing else.';

create or replace function tide.outbox_refuse(
    outbox text, headers jsonb, size bigint, which text default ''
) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    if box.guarded and not tide.may_publish(box.ids) then
        raise exception 'role % may not publish to outbox "%"', quote_ident(tide.caller()), box.name using
            errcode = 'insufficient_privilege',
            hint = format('Let the owner of schema tide, or a role of tide.grant_admin, run: select tide.outbox_grant_publish(%L, %L);',
                          box.name, tide.caller());
    elsif not box.enabled then
        raise exception 'outbox "%" is disabled', box.name using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Enable it: select tide.outbox_enable(%L);', box.name);
    elsif jsonb_typeof(headers) <> 'object' then
        raise exception '%headers must be a JSON object, not %', which, jsonb_typeof(headers) using
            errcode = 'invalid_parameter_value', hint = 'For example: ''{"type": "order.created"}''. Nothing was published.';
    end if;
    raise exception '%the message for outbox "%" has % bytes, its limit is %', which, box.name, size, box.max_payload_bytes using
        errcode = 'program_limit_exceeded',
        hint = 'Nothing was published. Publish a reference to large data, or raise max_payload_bytes in tide.outbox.';
end $$;

create or replace function tide.outbox_publish(
    outbox text, payload jsonb, headers jsonb default '{}', key text default null
) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    size      bigint := coalesce(octet_length(payload::text), 4) + coalesce(octet_length(headers::text), 2) + coalesce(octet_length(key), 0);
    in_outbox int;
    ids       regclass;
    marked    boolean;
    new_id    bigint;
    asleep    boolean;
begin
    select o.outbox_id, o.ids,
           case when current_setting('tide.inflight_' || o.outbox_id, true) = 'on' then false
                else tide.outbox_mark(o.outbox_id, o.ids) is not null end
      into in_outbox, ids, marked
      from tide.outbox o
     where o.name = outbox_publish.outbox and o.enabled and size <= o.max_payload_bytes
       and coalesce(jsonb_typeof(headers), 'object') = 'object' and not o.guarded;
    -- The question of a guarded outbox is a statement more, so that others do not pay for it.
    if not found then
        select o.outbox_id, o.ids,
               case when current_setting('tide.inflight_' || o.outbox_id, true) = 'on' then false
                    else tide.outbox_mark(o.outbox_id, o.ids) is not null end
          into in_outbox, ids, marked
          from tide.outbox o
         where o.name = outbox_publish.outbox and o.enabled and size <= o.max_payload_bytes
           and coalesce(jsonb_typeof(headers), 'object') = 'object' and (not o.guarded or tide.may_publish(o.ids));
        if not found then
            perform tide.outbox_refuse(outbox, headers, size);
        end if;
    end if;
    -- A first look at the bell, in a statement later than the mark; the whole question is a statement more, asked only then.
    insert into tide.message (outbox_id, id, size, key, headers, payload)
    values (in_outbox, nextval(ids), size, key, coalesce(headers, '{}'), coalesce(payload, 'null'))
    returning id, marked and (current_setting('transaction_isolation') <> 'read committed'
                              or exists (select from tide.bell b where b.outbox_id = in_outbox and b.armed))
      into new_id, asleep;
    if asleep then
        perform pg_notify('tide_outbox_notify', outbox) where tide.outbox_asleep(in_outbox);
    end if;
    return new_id;
end $$;

create or replace function tide.outbox_publish_many(
    outbox text, payloads jsonb[], keys text[] default null, headers jsonb[] default null
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box     tide.outbox := tide.find_outbox(outbox);
    wanted  int := coalesce(cardinality(payloads), 0);
    wrong   record;
    refusal text;
begin
    if not box.enabled or box.guarded and not tide.may_publish(box.ids) then
        refusal := tide.outbox_refuse(outbox, null, 0);
    elsif cardinality(keys) <> wanted or cardinality(headers) <> wanted then
        raise exception 'outbox_publish_many got % payloads, % keys and % headers',
            wanted, coalesce(cardinality(keys), 0), coalesce(cardinality(headers), 0) using
            errcode = 'array_subscript_error',
            hint = 'Give arrays of the same length, or NULL for all keys or all headers. Nothing was published.';
    elsif wanted = 0 then
        return '{}';
    end if;
    select * into wrong
      from (select m.number, m.headers, coalesce(octet_length(m.payload::text), 4) + coalesce(octet_length(m.headers::text), 2)
                   + coalesce(octet_length(m.key), 0)::bigint as size
              from unnest(payloads, keys, headers) with ordinality as m (payload, key, headers, number)) m
     where m.size > box.max_payload_bytes or jsonb_typeof(m.headers) <> 'object'
     order by m.number
     limit 1;
    if found then
        refusal := tide.outbox_refuse(outbox, wrong.headers, wrong.size, format('message %s of the array: ', wrong.number));
    end if;
    return tide.outbox_append(box, payloads, keys, headers);
end $$;

-- The right to work off single inboxes --------------------------------------------------------------------------------
--
-- What works inboxes off runs with the caller's rights, so that the right to an inbox is the right to its table.

create function tide.inbox_rights(inbox text, verb text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box    tide.inbox := tide.find_inbox(inbox);
    object record;
    towards text := case verb when 'grant' then 'to' else 'from' end;
begin
    perform tide.require_role(role);
    for object in
        select c.oid::regclass as named, c.relkind = 'r' as is_table, pg_has_role(c.relowner, 'usage') as ours
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = box.table_schema
           and (c.relname = box.table_name and c.relkind in ('r', 'p')
                or c.relname in (box.name || '_pending', box.name || '_dlq', box.name || '_stats', 'next_' || box.name)
                   and c.relkind = 'v')
         order by c.relkind, c.oid
    loop
        if not object.ours then
            raise exception 'the table % of inbox "%" belongs to another role', object.named, inbox using
                errcode = 'insufficient_privilege',
                hint = format('Let its owner run: %s select, update on %s %s %I;', verb, object.named, towards, role);
        end if;
        execute format('%s %s on %s %s %I', verb, case when object.is_table then 'select, update' else 'select' end,
                       object.named, towards, role);
    end loop;
end $$;

create function tide.inbox_grant(inbox text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
begin
    perform tide.inbox_rights(inbox, 'grant', role);
    if pg_has_role((select n.nspowner from pg_namespace n where n.nspname = box.table_schema), 'usage') then
        execute format('grant usage on schema %I to %I', box.table_schema, role);
    end if;
    perform tide.grant_rights('inbox_worker', role);
end $$;
comment on function tide.inbox_grant is 'Lets a role read this inbox and work it off: claim, mark, or UPDATE by hand. It can neither add nor remove messages.';

create function tide.inbox_revoke(inbox text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.inbox_rights(inbox, 'revoke', role);
end $$;
comment on function tide.inbox_revoke is 'Takes back what tide.inbox_grant gave to this inbox.';

revoke all on all functions in schema tide from public;
