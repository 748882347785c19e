-- The outbox: storage, publishing, the horizon and the bell.
--
-- Publish (why no row of a slower transaction is ever lost, and no publisher ever waits):
--   1. The first publish of a transaction to an outbox reads last_value of the outbox's sequence, v, and THEN takes
--      the shared advisory lock (lock_class of the outbox, v mod 2^31): "my ids are all above v". This is its mark.
--   2. It THEN takes its ids and inserts.
--   3. A reader reads last_value (top), THEN the marks from pg_locks, and THEN, in a new statement with a new
--      snapshot, the rows up to the horizon: the lowest mark, or top if there is none.
--   A publisher whose mark was not seen either took it after top was read, so its ids are above top; or had ended,
--   and PostgreSQL releases locks only after a commit is visible, so the later snapshot sees its rows.
--
-- Bell: publishers NOTIFY only if a consumer group sleeps. A group arms its bell, commits, and looks again: a publisher
-- that saw the bell unarmed had its mark before the bell was armed, so the second look sees the mark or the row.

create schema if not exists tide;

create table tide.outbox (
    outbox_id         int generated always as identity primary key,
    name              text not null unique check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'),
    enabled           boolean not null default true,
    retention_hours   int not null default 24 check (retention_hours >= 0),
    max_payload_bytes int not null default 1048576 check (max_payload_bytes between 1 and 268435456),
    partition_size    bigint not null default 1000000 check (partition_size between 1000 and 1000000000),
    ids               regclass not null,
    created_at        timestamptz not null default now()
);
comment on column tide.outbox.ids is 'The sequence that numbers the messages. CACHE 1: the horizon depends on it.';
comment on column tide.outbox.partition_size is 'Ids per partition of tide.message; see tide.outbox_extend.';

-- Two levels: one list partition an outbox, below it one range partition every partition_size ids.
create table tide.message (
    outbox_id  int not null,
    id         bigint not null,
    created_at timestamptz not null default clock_timestamp(),
    size       int not null,
    key        text,
    headers    jsonb not null,
    payload    jsonb not null,
    primary key (outbox_id, id)
) partition by list (outbox_id);
comment on column tide.message.size is 'Bytes of payload and headers as text, and of the key: readers bound their memory by it.';

create table tide.consumer_group (
    group_id  int generated always as identity primary key,
    outbox_id int not null references tide.outbox,
    name      text not null check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'),
    offset_id bigint not null default 0,
    unique (outbox_id, name)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column tide.consumer_group.offset_id is 'Every message up to this id is settled: delivered or a dead letter.';

-- A table of its own: publishers read it, so it must not carry the dead versions that offsets leave behind.
create table tide.bell (
    group_id  int primary key references tide.consumer_group on delete cascade,
    outbox_id int not null references tide.outbox,
    armed     boolean not null default true
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index on tide.bell (outbox_id);

-- The schedulers that run; each writes seen_at every second.
create table tide.scheduler (
    scheduler_id   uuid primary key,
    relay_group_id text not null,
    backend_pid    int not null,
    backend_start  timestamptz not null,
    host           text not null,
    pid            int not null,
    version        text not null,
    started_at     timestamptz not null default now(),
    seen_at        timestamptz not null default now()
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- The first key of the advisory locks by which publishers mark themselves. The base keeps clear of the small numbers
-- that applications tend to use; a foreign lock in the same class could only delay a reader, never hide a message.
create function tide.lock_class(outbox_id int) returns int
language sql immutable parallel safe
return 1952670720 + outbox_id % 1000000;

create function tide.find_outbox(outbox text) returns tide.outbox
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

-- The range partition whose first id is `first_id`. Made apart and then attached: unlike CREATE ... PARTITION OF,
-- ATTACH lets publishers and readers of the parent go on.
create function tide.attach_partition(box tide.outbox, first_id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    parent text := format('message_%s', box.outbox_id);
    part   text := format('message_%s_%s', box.outbox_id, first_id);
begin
    execute format('create table tide.%I (like tide.%I including defaults including constraints)', part, parent);
    execute format('alter table tide.%I attach partition tide.%I for values from (%s) to (%s)',
                   parent, part, first_id, first_id + box.partition_size);
end $$;

create function tide.outbox_last_id(outbox_id int) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp
return (select coalesce(pg_sequence_last_value(o.ids), 0) from tide.outbox o where o.outbox_id = outbox_last_id.outbox_id);
comment on function tide.outbox_last_id is 'The highest id taken; that message may be open still, or rolled back.';

-- The first id above the range partitions of an outbox.
create function tide.outbox_upper(outbox_id int) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''?(\d+)''?\)')::bigint), 0)
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = format('tide.message_%s', outbox_id)::regclass;
end;

create function tide.outbox_needs_partition(outbox_id int) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select tide.outbox_upper(o.outbox_id) <= tide.outbox_last_id(o.outbox_id) + o.partition_size
      from tide.outbox o where o.outbox_id = outbox_needs_partition.outbox_id;
end;

-- Makes sure that at least one whole unused partition lies above the highest id. The scheduler calls it on a timer.
-- Ids beyond the last partition fall into the default partition, so that publishing never depends on it.
-- Returns the number of partitions made. Gives up after lock_timeout, or when publishers are faster: it is called again
-- soon.
create function tide.outbox_extend(outbox text) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    box   tide.outbox := tide.find_outbox(outbox);
    last  bigint := coalesce(pg_sequence_last_value(box.ids), 0);
    upper bigint;
    made  int := 0;
begin
    perform pg_advisory_xact_lock(tide.lock_class(0), box.outbox_id);
    upper := tide.outbox_upper(box.outbox_id);
    -- Ids go to the default partition already, or soon: the next range starts well above them. One that publishers reach
    -- while it is attached would refuse their rows.
    if last + box.partition_size / 2 >= upper then
        upper := (last / box.partition_size + 2) * box.partition_size;
        perform tide.attach_partition(box, upper);
        upper := upper + box.partition_size;
        made := 1;
    end if;
    while upper <= last + box.partition_size loop
        perform tide.attach_partition(box, upper);
        upper := upper + box.partition_size;
        made := made + 1;
    end loop;
    return made;
exception when check_violation then
    -- Publishers overtook us into the default partition; the next call starts above them.
    return 0;
end $$;

create function tide.outbox_create(
    name text, retention_hours int default 24, max_payload_bytes int default 1048576, partition_size bigint default 1000000
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box      tide.outbox;
    numbered text;
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
    insert into tide.outbox (name, retention_hours, max_payload_bytes, partition_size, ids)
    values (name, retention_hours, max_payload_bytes, partition_size, 0::regclass)
    returning * into box;
    numbered := format('message_%s', box.outbox_id);
    execute format('create sequence tide.%I cache 1', numbered || '_ids');
    update tide.outbox o set ids = format('tide.%I', numbered || '_ids')::regclass
     where o.outbox_id = box.outbox_id returning * into box;
    execute format('create table tide.%I partition of tide.message for values in (%s) partition by range (id)',
                   numbered, box.outbox_id);
    execute format('create table tide.%I partition of tide.%I default', numbered || '_rest', numbered);
    perform tide.attach_partition(box, 0);
    perform tide.attach_partition(box, box.partition_size);
end $$;

create function tide.outbox_create_if_not_exists(
    name text, retention_hours int default 24, max_payload_bytes int default 1048576, partition_size bigint default 1000000
) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_advisory_xact_lock(tide.lock_class(0), hashtext(name));
    if exists (select from tide.outbox o where o.name = outbox_create_if_not_exists.name) then
        return false;
    end if;
    perform tide.outbox_create(name, retention_hours, max_payload_bytes, partition_size);
    return true;
end $$;
comment on function tide.outbox_create_if_not_exists is 'True if it was created, false if it was there.';

create function tide.outbox_set_enabled(outbox text, enabled boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    update tide.outbox o set enabled = outbox_set_enabled.enabled where o.outbox_id = box.outbox_id;
end $$;

create function tide.outbox_enable(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.outbox_set_enabled(name, true); end;

create function tide.outbox_disable(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.outbox_set_enabled(name, false); end;
comment on function tide.outbox_disable is 'Refuses new messages. Those already published are still delivered.';

-- Takes the mark of this transaction on an outbox. Arguments are evaluated before the call, so last_value is read before
-- the lock is taken. Mark and setting both revert with a savepoint, so they never disagree.
-- PL/pgSQL sets up each expression anew in each transaction, so the publish functions have few; this one is inlined.
create function tide.outbox_mark(outbox_id int, ids regclass) returns text
language sql volatile
return concat(
    pg_advisory_xact_lock_shared(
        tide.lock_class(outbox_id), (coalesce(pg_sequence_last_value(ids), 0) % 2147483648)::int)::text,
    set_config('tide.inflight_' || outbox_id, 'on', true)
);

-- Whether a publisher that has just taken its mark must NOTIFY. A snapshot that is older than the mark may not show a
-- bell armed since, so REPEATABLE READ and SERIALIZABLE always do. PREPARE TRANSACTION refuses a transaction that has
-- executed NOTIFY: a publisher that sets tide.two_phase leaves its messages to the timer. With no scheduler to hear it a
-- NOTIFY would only make publishers wait for each other; the next scheduler looks at everything when it starts.
create function tide.outbox_asleep(outbox_id int) returns boolean
language sql volatile
return coalesce(current_setting('tide.two_phase', true), '') <> 'on'
   and (current_setting('transaction_isolation') <> 'read committed'
        or exists (select from tide.bell b where b.outbox_id = outbox_asleep.outbox_id and b.armed)
           and exists (select from tide.scheduler s where s.seen_at > clock_timestamp() - interval '15 seconds'));

create function tide.outbox_refuse(
    outbox text, headers jsonb, size bigint, which text default ''
) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    if not box.enabled then
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

create function tide.outbox_publish(
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
       and coalesce(jsonb_typeof(headers), 'object') = 'object';
    if not found then
        perform tide.outbox_refuse(outbox, headers, size);
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
comment on function tide.outbox_publish is 'Publishes a message in the caller''s transaction and returns its id.';

create function tide.outbox_publish_many(
    outbox text, payloads jsonb[], keys text[] default null, headers jsonb[] default null
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box     tide.outbox := tide.find_outbox(outbox);
    wanted  int := coalesce(cardinality(payloads), 0);
    wrong   record;
    mark    text;
    new_ids bigint[];
    asleep  boolean;
begin
    if not box.enabled then
        mark := tide.outbox_refuse(outbox, null, 0);
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
        mark := tide.outbox_refuse(outbox, wrong.headers, wrong.size, format('message %s of the array: ', wrong.number));
    end if;
    if current_setting('tide.inflight_' || box.outbox_id, true) is distinct from 'on' then
        mark := tide.outbox_mark(box.outbox_id, box.ids);
        asleep := tide.outbox_asleep(box.outbox_id);
    end if;
    with given as (
        select coalesce(m.payload, 'null') as payload, m.key, coalesce(m.headers, '{}') as headers
          from unnest(payloads, keys, headers) with ordinality as m (payload, key, headers, number)
         order by m.number
    ), written as (
        insert into tide.message (outbox_id, id, size, key, headers, payload)
        select box.outbox_id, nextval(box.ids),
               octet_length(g.payload::text) + octet_length(g.headers::text) + coalesce(octet_length(g.key), 0),
               g.key, g.headers, g.payload
          from given g
        returning id
    )
    select array_agg(w.id order by w.id) into new_ids from written w;
    if asleep then
        perform pg_notify('tide_outbox_notify', box.name);
    end if;
    return new_ids;
end $$;
comment on function tide.outbox_publish_many is 'Publishes messages in the order of the array and returns their ids in that order.';

-- The horizon, and how many publishers are open. The two reads are separate statements, in this order; the rows must be
-- read in a later one. Volatile: in READ COMMITTED each statement below sees the present.
-- A mark that is a little above top was taken after top was read, and its ids are above top: it holds nothing back.
create function tide.outbox_horizon(outbox_id int, out horizon bigint, out open_publishers int)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    top bigint := coalesce(tide.outbox_last_id(outbox_id), 0);
begin
    select coalesce(top - max(marks.behind) filter (where marks.behind < 2130706432), top, 0), count(*)
      into horizon, open_publishers
      from (select (top - l.objid::bigint) & 2147483647 as behind
              from pg_locks l
             where l.locktype = 'advisory' and l.objsubid = 2
               and l.classid = tide.lock_class(outbox_horizon.outbox_id)::oid
               and l.database = (select d.oid from pg_database d where d.datname = current_database())) marks;
end $$;

create function tide.outbox_oldest_publisher_seconds(outbox_id int) returns float8
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(extract(epoch from clock_timestamp() - min(coalesce(a.xact_start, x.prepared))), 0)::float8
      from pg_locks l
      left join pg_stat_activity a on a.pid = l.pid
      left join pg_locks t on l.pid is null and t.locktype = 'transactionid' and t.virtualtransaction = l.virtualtransaction
      left join pg_prepared_xacts x on x.transaction = t.transactionid
     where l.locktype = 'advisory' and l.objsubid = 2
       and l.classid = tide.lock_class(outbox_oldest_publisher_seconds.outbox_id)::oid
       and l.database = (select d.oid from pg_database d where d.datname = current_database());
end;
comment on function tide.outbox_oldest_publisher_seconds is 'How long the oldest transaction that still publishes is open; 0 if there is none.';

create function tide.outbox_status(
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
      from pg_partition_tree(format('tide.message_%s', box.outbox_id)::regclass) t where t.isleaf;
    select count(*) into consumer_groups from tide.consumer_group g where g.outbox_id = box.outbox_id;
    select g.name, greatest(last_id - g.offset_id, 0) into slowest_group, lag
      from tide.consumer_group g where g.outbox_id = box.outbox_id order by g.offset_id, g.name limit 1;
end $$;
comment on function tide.outbox_status is 'One row. lag counts ids, so messages that were rolled back count too.';

-- Nobody but the owner has any right until it is granted: see docs/security.md for the two roles.
revoke all on all functions in schema tide from public;
