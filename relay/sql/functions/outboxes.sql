-- Outboxes: creating and dropping them, and how they are doing. Why nothing is lost: see publish.sql. Their partitions: see partitions.sql.

create or replace function tide.find_outbox(outbox text) returns tide.outbox
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_outbox tide.outbox;
begin
    select * into found_outbox from tide.outbox o where o.name = find_outbox.outbox;
    if not found then
        raise exception 'outbox "%" does not exist', outbox using
            errcode = 'undefined_object',
            hint = format('Create it: select tide.outbox_create(%L);', outbox);
    end if;
    return found_outbox;
end $$;

-- An outbox of messages: a queue of jobs has functions of its own.
create or replace function tide.find_message_outbox(outbox text) returns tide.outbox
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    if box.kind <> 'messages' then
        raise exception 'outbox "%" is a queue of jobs', outbox using
            errcode = 'wrong_object_type', hint = 'See tide.job_queue_create and relay jobs queue.';
    end if;
    return box;
end $$;

create or replace function tide.outbox_limit(outbox text) returns int
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic select (tide.find_outbox(outbox)).max_payload_bytes; end;
comment on function tide.outbox_limit is 'The largest message that the outbox takes: bytes of payload, headers and key as text.';

create or replace function tide.outbox_last_id(outbox_id int) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp
return (select coalesce(pg_sequence_last_value(o.ids), 0) from tide.outbox o where o.outbox_id = outbox_last_id.outbox_id);
comment on function tide.outbox_last_id is 'The highest id taken; that message may be open still, or rolled back.';

-- To ask for many outboxes one by one costs several times as much.
create or replace function tide.outbox_last_ids(outbox_ids int[]) returns table (outbox_id int, last_id bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select o.outbox_id, coalesce(pg_sequence_last_value(o.ids), 0) from tide.outbox o where o.outbox_id = any (outbox_last_ids.outbox_ids);
end;
comment on function tide.outbox_last_ids is 'The same of several outboxes at once. One that does not exist is left out.';

-- Who has changed a table and not ended, for errors: without their names where no one may see them.
create or replace function tide.changing(relations regclass[]) returns text
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic
    select string_agg(distinct coalesce(format('pid %s of role %s', l.pid, quote_ident(a.usename)), 'a prepared transaction'), ', ')
      from pg_locks l left join pg_stat_activity a on a.pid = l.pid
     where l.granted and l.locktype = 'relation' and l.relation = any (changing.relations) and l.pid is distinct from pg_backend_pid()
       and l.mode not in ('AccessShareLock', 'RowShareLock')
       and l.database = (select d.oid from pg_database d where d.datname = current_database());
end;

-- The tables that the logs of an outbox are to be partitions of, where it is the first of its hundred. One at a time makes them.
create or replace function tide.outbox_make_parents(box tide.outbox) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    log    text;
    parent text;
    first  int := box.outbox_id / 100 * 100;
begin
    foreach log in array tide.outbox_logs(box) loop
        parent := tide.log_parent(log);
        continue when to_regclass(format('tide.%I', parent)) is not null;
        execute format('lock table only tide.%I in share update exclusive mode', tide.log_root(log));
        continue when to_regclass(format('tide.%I', parent)) is not null;
        execute format('create table tide.%I (like tide.%I including defaults including constraints including indexes) '
                       'partition by list (outbox_id)', parent, tide.log_root(log));
        execute format('alter table tide.%I attach partition tide.%I for values from (%s) to (%s)',
                       tide.log_root(log), parent, first, first + 100);
    end loop;
end $$;

-- The row of an outbox, its sequence and its tables. Those are made apart, with all their partitions, and attached last:
-- CREATE ... PARTITION OF would have their parent, and so the publishers of other outboxes, wait until the caller commits.
-- To make a partition costs less than to make a table and attach it. For each, PostgreSQL reads all of pg_constraint.
create or replace function tide.outbox_make(
    name text, kind text, retention_hours int, max_payload_bytes int, partition_size bigint
) returns tide.outbox
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox;
    log text;
begin
    insert into tide.outbox (name, kind, retention_hours, max_payload_bytes, partition_size, partitions_end, ids)
    values (name, kind, coalesce(retention_hours, tide.setting_number('outbox_retention_hours')), max_payload_bytes, partition_size,
            2 * partition_size, 0::regclass)
    returning * into box;
    execute format('create sequence tide.%I cache 1', box.log || '_ids');
    execute format('create sequence tide.%I cache 1 maxvalue 3', box.log || '_bell');
    update tide.outbox o
       set ids = format('tide.%I', o.log || '_ids')::regclass, bell = format('tide.%I', o.log || '_bell')::regclass
     where o.outbox_id = box.outbox_id
    returning * into box;
    perform tide.keep_bell(box.outbox_id);
    foreach log in array tide.outbox_logs(box) loop
        execute format('create table tide.%I (like tide.%I including defaults including constraints including indexes) partition by range (id)',
                       log, tide.log_root(log));
        execute format('create table tide.%I partition of tide.%I default', log || '_rest', log);
        for n in 0 .. 1 loop
            execute format('create table tide.%I partition of tide.%I for values from (%s) to (%s)',
                           log || '_' || n * box.partition_size, log, n * box.partition_size, (n + 1) * box.partition_size);
        end loop;
    end loop;
    perform tide.outbox_make_parents(box);
    foreach log in array tide.outbox_logs(box) loop
        execute format('alter table tide.%I attach partition tide.%I for values in (%s)', tide.log_parent(log), log, box.outbox_id);
    end loop;
    perform tide.outbox_make_view(box);
    return box;
end $$;

-- Work on the partitions of an outbox is done by one at a time: by who has its row, which no one can lock who may not change
-- outboxes. Advisory locks would be anyone's. A retention that is not given is that of the settings.
create or replace function tide.outbox_create(
    name text, retention_hours int default null, max_payload_bytes int default 1048576, partition_size bigint default 1000000
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    if outbox_create.name is null or outbox_create.name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$' then
        raise exception 'outbox name % is not valid', coalesce(quote_literal(name), 'NULL') using
            errcode = 'invalid_name',
            hint = 'Use 1 to 100 letters, digits, "_", "-" and ".", not starting with "-" or ".".';
    end if;
    if exists (select from tide.outbox o where o.name = outbox_create.name) then
        raise exception 'outbox "%" exists already', name using
            errcode = 'duplicate_object',
            hint = 'Use tide.outbox_create_if_not_exists to create it only where it is missing.';
    end if;
    if not tide.setting_is_on('outbox_enabled') then
        raise exception 'outbox "%" was not created: outboxes are switched off in this database', name using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'Switch them on: select tide.setting_set(''outbox_enabled'', ''true'');';
    end if;
    perform tide.outbox_make(name, 'messages', retention_hours, max_payload_bytes, partition_size);
exception when lock_not_available then
    raise exception 'outbox "%" was not created: another transaction is creating or changing outboxes, for more than 5 s', name using
        errcode = 'lock_not_available',
        detail = coalesce('In the way: ' || tide.changing(array['tide.outbox', 'tide.message']::regclass[]) || '.', 'It has ended by now.'),
        hint = 'Nothing was changed. Call it again when that has ended; or end it: select pg_terminate_backend(pid);';
end $$;

create or replace function tide.outbox_create_if_not_exists(
    name text, retention_hours int default null, max_payload_bytes int default 1048576, partition_size bigint default 1000000
) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from tide.outbox o where o.name = outbox_create_if_not_exists.name) then
        return false;
    end if;
    perform tide.outbox_create(name, retention_hours, max_payload_bytes, partition_size);
    return true;
exception when duplicate_object or unique_violation then
    -- Another transaction created it meanwhile: its row was waited for.
    return false;
end $$;
comment on function tide.outbox_create_if_not_exists is 'True if it was created, false if it was there.';

create or replace function tide.outbox_set_enabled(outbox text, enabled boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    update tide.outbox o set enabled = outbox_set_enabled.enabled where o.outbox_id = box.outbox_id;
end $$;

create or replace function tide.outbox_enable(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.outbox_set_enabled(name, true); end;

create or replace function tide.outbox_disable(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.outbox_set_enabled(name, false); end;
comment on function tide.outbox_disable is 'Refuses new messages. Those already published are still delivered.';

create or replace function tide.outbox_set_retention(outbox text, hours int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    update tide.outbox o set retention_hours = coalesce(hours, tide.setting_number('outbox_retention_hours'))
     where o.outbox_id = box.outbox_id;
end $$;
comment on function tide.outbox_set_retention is
    'How long messages are kept once settled; null: as the setting outbox_retention_hours says now.';

-- Drops the tables of an outbox; false if another transaction is in the way. Their parent is locked for that, which the open
-- publishers of every outbox of its hundred have, and new ones need. So it is not asked for while one of them stays, and for a
-- moment only.
create or replace function tide.outbox_drop_tables(box tide.outbox) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    logs   text := (select string_agg(format('tide.%I', l), ', ' order by n) from unnest(tide.outbox_logs(box)) with ordinality as u (l, n));
    parent regclass := format('tide.%I', tide.log_parent(box.log))::regclass;
begin
    if tide.held_for_long(parent) then
        return false;
    end if;
    -- These concern no other outbox, and autovacuum gives way only after deadlock_timeout, a second.
    perform set_config('lock_timeout', '1200ms', true);
    execute format('drop view if exists tide_outbox.%I', box.name);
    execute format('lock table %s in access exclusive mode', logs);
    perform set_config('lock_timeout', '50ms', true);
    if tide.held_for_long(parent) then
        raise lock_not_available;
    end if;
    execute format('lock table only %s in access exclusive mode', parent);
    execute format('drop table %s', logs);
    execute format('drop sequence %s', concat_ws(', ', box.ids, box.bell));
    execute format('drop function if exists tide.publish_to_%s() cascade', box.outbox_id);
    return true;
exception when lock_not_available then
    return false;
end $$;

-- Refused while consumers poll: their groups, unlike a pipeline's, would be gone without notice. It waits without any lock
-- for a transaction that is in the way, for two seconds in all.
create or replace function tide.outbox_drop(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box      tide.outbox;
    used_by  text;
    polled   text;
    give_up  timestamptz := clock_timestamp() + interval '2 seconds';
begin
    select * into box from tide.outbox o where o.name = outbox_drop.name;
    if not found then
        if not if_exists then
            perform tide.find_outbox(name);
        end if;
        return;
    end if;
    perform tide.find_message_outbox(name);
    select string_agg(format('%I', p.name), ', ' order by p.name) into used_by
      from tide.pipeline p join tide.consumer_group g on g.group_id = p.group_id where g.outbox_id = box.outbox_id;
    select string_agg(format('%I', g.name), ', ' order by g.name) into polled
      from tide.consumer_group g where g.outbox_id = box.outbox_id and g.polled;
    if used_by is not null then
        raise exception 'outbox "%" is read by pipelines: %', name, used_by using
            errcode = 'dependent_objects_still_exist', hint = 'Delete them first: select tide.relay_delete(...);';
    elsif polled is not null then
        raise exception 'outbox "%" is polled by consumer groups: %', name, polled using
            errcode = 'dependent_objects_still_exist', hint = 'Drop them first: select tide.drop_consumer_group(...);';
    end if;
    delete from tide.consumer_group g where g.outbox_id = box.outbox_id;
    delete from tide.outbox o where o.outbox_id = box.outbox_id;
    while not tide.outbox_drop_tables(box) loop
        if clock_timestamp() > give_up then
            raise exception 'outbox "%" was not dropped: a transaction that publishes, also to other outboxes, or reads messages stays open', name
                using errcode = 'lock_not_available',
                hint = 'Nothing was changed. Try again when it has ended: '
                       'select name, (tide.outbox_status(name)).open_publishers from tide.outbox;';
        end if;
        perform pg_sleep(0.05 + random() * 0.1);
    end loop;
    perform tide.inbox_move_drop(outbox_id => box.outbox_id);
end $$;
comment on function tide.outbox_drop is 'Removes the outbox and all its messages, delivered or not.';

create or replace function tide.outbox_status(
    name text,
    out outbox text, out enabled boolean, out retention_hours int, out max_payload_bytes int, out last_id bigint,
    out horizon bigint, out open_publishers int, out partitions int, out total_bytes bigint, out consumer_groups int,
    out slowest_group text, out lag bigint
)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox := tide.find_outbox(name);
begin
    outbox := box.name;
    enabled := box.enabled;
    retention_hours := box.retention_hours;
    max_payload_bytes := box.max_payload_bytes;
    last_id := coalesce(pg_sequence_last_value(box.ids), 0);
    select h.horizon, h.open_publishers into outbox_status.horizon, outbox_status.open_publishers
      from tide.outbox_horizon(box.outbox_id) h;
    select count(*), coalesce(sum(pg_total_relation_size(t.relid)), 0) into partitions, total_bytes
      from pg_partition_tree(format('tide.%I', box.log)::regclass) t where t.isleaf;
    select count(*) into consumer_groups from tide.consumer_group g where g.outbox_id = box.outbox_id and g.lane = 0;
    select g.name, greatest(last_id - g.offset_id, 0) into slowest_group, lag
      from tide.consumer_group g where g.outbox_id = box.outbox_id order by g.offset_id, g.name limit 1;
end $$;
comment on function tide.outbox_status is 'One row. lag counts ids, so messages that were rolled back count too.';
